use super::*;
use crate::Init;
use crate::ops::masked::{Mask, Masker, sum};
use crate::ops::testing::{floats, run_cases, software};

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

fn layout() -> Parameters {
    let mut parameters = Parameters::new();
    for (name, shape) in [("a", vec![1]), ("b", vec![7, 30]), ("c", vec![64]), ("d", vec![9])] {
        parameters.add(name, &shape, Init::Zeros).unwrap();
    }
    parameters
}

/// Random values with zeros in the padding, `vectors` in a row.
fn updates(parameters: &Parameters, vectors: usize, key: u32) -> Vec<f32> {
    let n = parameters.words();
    let mut x = vec![0.0; n * vectors];
    for (v, x) in x.chunks_mut(n).enumerate() {
        for param in parameters.iter() {
            let values =
                floats(param.len(), 1.0, key + (v * parameters.len() + param.index) as u32);
            x[param.offset..][..param.len()].copy_from_slice(&values);
        }
    }
    x
}

fn reals(vector: &Vector) -> Vec<f32> {
    match vector.read().unwrap() {
        Data::F32(x) => x,
        Data::U32(_) => panic!("floats were asked for"),
    }
}

fn devices() -> Vec<(&'static str, Device)> {
    let mut devices = vec![("references", Device::reference()), ("cpu", Device::cpu())];
    devices.extend(software().iter().cloned());
    devices
}

/// Vectors of a round, on a device.
struct Round {
    codec: TernaryCodec,
    x: Vector,
    residual: Vector,
    scales: Scales,
    codes: Vector,
}

impl Round {
    fn new(device: &Device, vectors: usize) -> Self {
        let codec = TernaryCodec::new(&layout()).unwrap();
        let n = codec.elements() * vectors;
        let (x, residual) = (updates(&layout(), vectors, 1), updates(&layout(), vectors, 500));
        Round {
            x: Vector::upload(device, &Data::F32(x)).unwrap(),
            residual: Vector::upload(device, &Data::F32(residual)).unwrap(),
            scales: Scales::zeros(device, vectors, codec.tensors()).unwrap(),
            codes: Vector::zeros(device, Element::U32, n / CODES).unwrap(),
            codec,
        }
    }

    fn code(&self, pass: &mut Pass, rule: Rule, coding: Coding) {
        let residual = Some(&self.residual);
        self.codec.measure(pass, &self.x, residual, rule, &self.scales).unwrap();
        let (scales, codes) = (&self.scales, &self.codes);
        self.codec.quantize(pass, &self.x, residual, scales, coding, codes).unwrap();
    }
}

#[test]
fn codes_and_residuals_carry_the_whole_update_on_every_device() {
    for (name, device) in devices() {
        for (rule, coding) in [
            (Rule::Maximum(2.5), Coding::Drawn { step: 3, salt: 1, seed: 9 }),
            (Rule::MeanAbove(0.7), Coding::Thresholded),
        ] {
            let round = Round::new(&device, 2);
            let (x, before) = (reals(&round.x), reals(&round.residual));
            let n = round.codec.elements();
            let decoded = Vector::zeros(&device, Element::F32, n).unwrap();
            let mut pass = Pass::new(&device);
            round.code(&mut pass, rule, coding);
            let (scales, codes) = (&round.scales.scales, &round.codes);
            round
                .codec
                .decode_accumulate(&mut pass, codes, scales, &[1.0, 0.5], &decoded, false)
                .unwrap();
            pass.run().unwrap();
            let (decoded, after) = (reals(&decoded), reals(&round.residual));
            for i in 0..n {
                // x + residual = decoded + residual', weighted over both vectors.
                let given = x[i] + before[i] + 0.5 * (x[n + i] + before[n + i]);
                let kept = decoded[i] + after[i] + 0.5 * after[n + i];
                assert!((given - kept).abs() < 1e-6, "{name}, {rule:?}, {i}: {given} {kept}");
            }
            assert!(decoded.iter().any(|x| *x != 0.0));
        }
    }
}

#[test]
fn codes_are_the_same_everywhere_for_given_scales() {
    let run = |device: &Device| {
        let round = Round::new(device, 3);
        let scales = Data::F32(vec![0.9; 3 * round.codec.tensors()]);
        round.scales.scales.write(&scales).unwrap();
        let coding = Coding::Drawn { step: 1, salt: 2, seed: 3 };
        let mut pass = Pass::new(device);
        let (scales, codes) = (&round.scales, &round.codes);
        let residual = Some(&round.residual);
        round.codec.quantize(&mut pass, &round.x, residual, scales, coding, codes).unwrap();
        pass.run().unwrap();
        (codes.read().unwrap(), round.residual.read().unwrap())
    };
    let expected = run(&Device::reference());
    for (name, device) in devices() {
        assert_eq!(run(&device), expected, "{name}");
    }
}

#[test]
fn masked_lanes_give_the_mean_of_the_clients() {
    let clients = 5;
    // The cohort was larger: two did not come.
    let cohort = 7;
    for (name, device) in devices() {
        let round = Round::new(&device, clients);
        let codec = &round.codec;
        let words = codec.lane_words(cohort);
        let shared = Scales::zeros(&device, 1, codec.tensors()).unwrap();
        shared.scales.write(&Data::F32(vec![1.0, 0.5, 2.0, 0.75])).unwrap();
        let lanes = Vector::zeros(&device, Element::U32, clients * words).unwrap();
        let total = Vector::zeros(&device, Element::U32, words).unwrap();
        let mean = Vector::zeros(&device, Element::F32, codec.elements()).unwrap();
        let expected = Vector::zeros(&device, Element::F32, codec.elements()).unwrap();
        // A ring of pairs.
        let mask = |u: usize| Mask::new(&[u as u8; 32], &[1; 12]);
        let masks: Vec<[Mask; 2]> =
            (0..clients).map(|u| [mask(u), mask((u + 1) % clients).negated()]).collect();
        let masks: Vec<&[Mask]> = masks.iter().map(<[Mask; 2]>::as_slice).collect();
        let coding = Coding::Drawn { step: 0, salt: 0, seed: 4 };
        let mut pass = Pass::new(&device);
        codec.quantize(&mut pass, &round.x, None, &shared, coding, &round.codes).unwrap();
        codec.encode_lanes(&mut pass, &round.codes, cohort, &lanes).unwrap();
        Masker::of_replicas(&masks).unwrap().mask(&mut pass, &lanes).unwrap();
        sum(&mut pass, &lanes, 32, &total, false).unwrap();
        let scales = &shared.scales;
        codec.decode_lanes(&mut pass, &total, cohort, clients as u32, scales, &mean).unwrap();
        let weights = vec![1.0 / clients as f32; clients];
        codec
            .decode_accumulate(&mut pass, &round.codes, scales, &weights, &expected, false)
            .unwrap();
        pass.run().unwrap();
        let (mean, expected) = (reals(&mean), reals(&expected));
        for i in 0..mean.len() {
            assert!(
                (mean[i] - expected[i]).abs() < 1e-6,
                "{name}, {i}: {} {}",
                mean[i],
                expected[i]
            );
        }
        assert!(mean.iter().any(|x| *x != 0.0));
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let device = Device::cpu();
    let round = Round::new(&device, 2);
    let short = Vector::zeros(&device, Element::F32, 65).unwrap();
    let mut pass = Pass::new(&device);
    let shape = |result: Result<()>| assert!(matches!(result, Err(Error::Shape { .. })));
    let (codec, scales) = (&round.codec, &round.scales);
    shape(codec.measure(&mut pass, &short, None, Rule::Maximum(0.0), scales));
    shape(codec.quantize(
        &mut pass,
        &round.x,
        Some(&short),
        scales,
        Coding::Thresholded,
        &round.codes,
    ));
    let one = [1.0];
    shape(codec.decode_accumulate(&mut pass, &round.codes, &scales.scales, &one, &round.x, false));
    shape(codec.encode_lanes(&mut pass, &round.codes, 7, &round.codes));
    let mean = codec.decode_lanes(&mut pass, &round.codes, 7, 8, &scales.scales, &round.x);
    assert!(matches!(mean, Err(Error::Value { .. })));
    assert!(TernaryCodec::new(&Parameters::new()).is_err());
}
