use super::*;
use crate::Data;
use crate::Device;
use crate::ops::aggregate::numbers;
use crate::ops::testing::{floats, run_cases, software};
use tern_shaders::Element;
use tern_shaders::kernels::fixed::fixed64;

#[test]
fn cases_hold_on_every_device() {
    run_cases(&cases());
}

fn read_words(vector: &Vector) -> Vec<u32> {
    match vector.read().unwrap() {
        Data::U32(words) => words,
        Data::F32(_) => panic!("words were asked for"),
    }
}

/// Masks of client `u` of `clients`: its own, then one with each other client.
fn masks(u: u8, clients: u8) -> Vec<Mask> {
    let pair = |v: u8| {
        let mask = Mask::new(&[u.min(v); 32], &[u.max(v); 12]);
        if u < v { mask } else { mask.negated() }
    };
    let own = Mask::new(&[u; 32], &[255; 12]);
    std::iter::once(own).chain((0..clients).filter(|v| *v != u).map(pair)).collect()
}

/// A round on a device: what the clients upload, and the mean.
fn round(device: &Device, x: &[f32], n: usize, code: FixedPoint) -> (Vec<u32>, Vec<f32>) {
    let clients = x.len() / n;
    let all: Vec<Vec<Mask>> = (0..clients).map(|u| masks(u as u8, clients as u8)).collect();
    let all: Vec<&[Mask]> = all.iter().map(Vec::as_slice).collect();
    let own: Vec<Mask> = all.iter().map(|masks| masks[0].negated()).collect();
    let x = Vector::upload(device, &Data::F32(x.to_vec())).unwrap();
    let uploads = Vector::zeros(device, Element::U32, x.len()).unwrap();
    let total = Vector::zeros(device, Element::U32, n).unwrap();
    let mean = Vector::zeros(device, Element::F32, n).unwrap();
    let mut pass = Pass::new(device);
    Masker::of_replicas(&all).unwrap().encode(&mut pass, &x, code, &uploads).unwrap();
    sum(&mut pass, &uploads, code.bits, &total, false).unwrap();
    Masker::new(&own).unmask_decode(&mut pass, &total, code, clients as u32, &mean).unwrap();
    pass.run().unwrap();
    let Data::F32(mean) = mean.read().unwrap() else { panic!("floats were asked for") };
    (read_words(&uploads), mean)
}

#[test]
fn a_round_gives_the_mean_and_the_same_words_everywhere() {
    let (n, clients) = (208, 5);
    let x = floats(n * clients, 1.5, 3);
    for bits in [20, 32] {
        let code = FixedPoint::new(1.5, clients as u32, bits).unwrap();
        let expected = round(&Device::reference(), &x, n, code);
        assert_eq!(round(&Device::cpu(), &x, n, code), expected);
        for (name, device) in software() {
            assert_eq!(round(device, &x, n, code), expected, "{name}");
        }
        for i in 0..n {
            let exact: f64 = (0..clients).map(|c| f64::from(x[c * n + i])).sum();
            let step = f64::powi(2.0, -(code.fraction_bits as i32));
            let error = f64::from(expected.1[i]) - exact / clients as f64;
            assert!(error.abs() <= 0.5 * step + 1e-7, "{bits} bits, {i}: {error}");
            let word = fixed64(x[i], 1, code.fraction_bits) as u32;
            assert_ne!(expected.0[i], word & code.modulus_mask(), "an upload is masked");
        }
    }
}

#[test]
fn masks_beyond_a_call_are_added_too() {
    let device = Device::cpu();
    let key = |i: usize| Mask::new(&[i as u8; 32], &[(i / 256) as u8; 12]);
    let masks: Vec<Mask> = (0..600).map(key).collect();
    let opposite: Vec<Mask> = masks.iter().map(|m| m.negated()).collect();
    let code = FixedPoint { fraction_bits: 10, bound: 1 << 30, bits: 32 };
    let x = numbers(64);
    let given = Vector::upload(&device, &Data::F32(x.clone())).unwrap();
    let words = Vector::zeros(&device, Element::U32, 64).unwrap();
    let mean = Vector::zeros(&device, Element::F32, 64).unwrap();
    let mut pass = Pass::new(&device);
    Masker::new(&masks).encode(&mut pass, &given, code, &words).unwrap();
    pass.run().unwrap();
    let masked = read_words(&words);
    let mut pass = Pass::new(&device);
    Masker::new(&opposite).mask(&mut pass, &words).unwrap();
    pass.run().unwrap();
    let plain = read_words(&words);
    for i in 0..64 {
        assert_eq!(plain[i] as i32, fixed64(x[i], 1, 10).clamp(-(1 << 30), 1 << 30) as i32);
    }
    words.write(&Data::U32(masked)).unwrap();
    let mut pass = Pass::new(&device);
    Masker::new(&opposite).unmask_decode(&mut pass, &words, code, 1, &mean).unwrap();
    pass.run().unwrap();
    let expected = plain.iter().map(|w| *w as i32 as f32 / 1024.0).collect();
    assert_eq!(mean.read().unwrap(), Data::F32(expected));
}

#[test]
fn what_does_not_fit_is_refused() {
    let code = FixedPoint::new(1.0, 100, 32).unwrap();
    assert_eq!(code.fraction_bits, 24);
    assert!(FixedPoint::new(1.0, 100, 7).is_err());
    assert!(FixedPoint::new(f32::NAN, 1, 32).is_err());
    assert!(FixedPoint::new(1.0, 1, 33).is_err());
    let device = Device::cpu();
    let odd = Vector::zeros(&device, Element::U32, 17).unwrap();
    let mut pass = Pass::new(&device);
    assert!(matches!(Masker::new(&[]).mask(&mut pass, &odd), Err(Error::Shape { .. })));
    assert!(matches!(sum(&mut pass, &odd, 32, &odd, false), Err(Error::Shape { .. })));
    let two = [masks(0, 2), masks(1, 3)];
    assert!(Masker::of_replicas(&[&two[0], &two[1]]).is_err());
}
