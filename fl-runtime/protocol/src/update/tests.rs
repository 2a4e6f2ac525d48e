use super::*;
use crate::layout::{Layout, ModelKind, TensorSpec};
use crate::plan::TernaryMethod;
use crate::{Error, Total};
use proptest::prelude::*;
use tern_engine::Device;
use tern_engine::ops::masked::{FixedPoint, Mask};
use tern_secagg::Masks;

/// Three tensors: one of a single element, one that crosses chunks.
fn layout() -> Layout {
    let shapes = [vec![1], vec![7, 9], vec![CHUNK + 70]];
    let tensors = shapes.into_iter().enumerate();
    let tensors = tensors.map(|(i, shape)| TensorSpec { name: format!("t{i}"), shape });
    Layout::of(&ModelKind::Tensors(tensors.collect())).unwrap()
}

fn format(kind: Kind) -> Format {
    Format::new(kind, &layout(), 8.0)
}

fn vector(seed: u32) -> Vec<f32> {
    let layout = layout();
    let mut x = (0..layout.elements() as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32)
        .map(|x| x / 8_388_608.0 - 1.0)
        .collect::<Vec<_>>();
    layout.clear_padding(&mut x);
    x
}

fn codec() -> Codec {
    Codec::new(&Device::cpu(), &layout()).unwrap()
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

#[test]
fn floats_come_back_and_halves_nearly() {
    let x = vector(1);
    let body = Codec::full(&x);
    assert_eq!(format(Kind::Full).decode(&body).unwrap(), x);
    assert_eq!(format(Kind::Full).check(&body[..]).unwrap(), Digest::of(&body));
    let body = Codec::half(&x);
    assert_eq!(body.len() as u64, format(Kind::Half).bytes());
    for (x, y) in x.iter().zip(format(Kind::Half).decode(&body).unwrap()) {
        assert!((x - y).abs() <= 1.0 / 2048.0 * x.abs().max(1e-4));
    }
}

#[test]
fn codes_and_residual_make_up_the_update() {
    let (x, before) = (vector(1), vector(2));
    let given = [0.5, 0.25, 1.0];
    for scales in [
        Scales::Own(TernaryMethod::Thresholded(0.7)),
        Scales::Own(TernaryMethod::Drawn(2.5)),
        Scales::Given(&given),
    ] {
        let (body, residual) = codec().ternary(&x, &before, scales, [1, 2, 3]).unwrap();
        let format = format(Kind::Ternary);
        assert_eq!(body.len() as u64, format.bytes());
        let values = format.decode(&body).unwrap();
        for i in 0..x.len() {
            assert!((values[i] + residual[i] - x[i] - before[i]).abs() < 1e-6, "{scales:?} {i}");
        }
        assert!(values.iter().any(|v| *v > 0.0) && values.iter().any(|v| *v < 0.0));
    }
    // At least fifteen times smaller than floats.
    assert!(15 * format(Kind::Ternary).bytes() < format(Kind::Full).bytes());
}

/// -1, 0 or +1 times one scale a tensor, and nothing where the gradient is zero.
#[test]
fn zeros_give_zero_codes() {
    let layout = layout();
    let mut x = vector(1);
    x.iter_mut().skip(64).step_by(3).for_each(|x| *x = 0.0);
    x[..64].fill(0.0);
    let before = vec![0.0; x.len()];
    for method in [TernaryMethod::Thresholded(0.7), TernaryMethod::Drawn(2.5)] {
        let (body, _) = codec().ternary(&x, &before, Scales::Own(method), [1, 2, 3]).unwrap();
        let values = format(Kind::Ternary).decode(&body).unwrap();
        for (value, x) in values.iter().zip(&x) {
            assert!(*x != 0.0 || *value == 0.0, "{method:?}: {value} for a gradient of zero");
        }
        for range in layout.ranges().skip(1) {
            let values = &values[range];
            let scale = values.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            assert!(scale > 0.0 && values.iter().all(|v| *v == 0.0 || v.abs() == scale));
        }
    }
}

#[test]
fn what_is_wrong_with_a_body_is_named() {
    let body = Codec::full(&vector(1));
    let full = format(Kind::Full);
    let short = refusal(full.check(&body[..body.len() - 1]).unwrap_err());
    assert_eq!(short.name(), "length");
    let long = [&body[..], &[0]].concat();
    assert_eq!(refusal(full.check(&long[..]).unwrap_err()).name(), "length");
    for (at, value) in [(0, f32::NAN), (70, f32::INFINITY), (CHUNK + 9, -8.1)] {
        let mut body = body.clone();
        body[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
        let Refusal::Number { at: found, .. } = refusal(full.check(&body[..]).unwrap_err()) else {
            panic!("another refusal")
        };
        assert_eq!(found, at);
    }
    let x = vector(1);
    let scales = Scales::Own(TernaryMethod::Thresholded(0.7));
    let (body, _) = codec().ternary(&x, &vec![0.0; x.len()], scales, [0; 3]).unwrap();
    let ternary = format(Kind::Ternary);
    for at in [0, 5, 64, CHUNK - 1, CHUNK, CHUNK + 67] {
        let mut body = body.clone();
        body[12 + at / 4] |= 3 << (2 * (at % 4));
        assert_eq!(refusal(ternary.check(&body[..]).unwrap_err()), Refusal::Code(at));
    }
    for scale in [f32::NAN, -1.0, 9.0, f32::INFINITY] {
        let mut body = body.clone();
        body[4..8].copy_from_slice(&scale.to_le_bytes());
        assert_eq!(refusal(ternary.check(&body[..]).unwrap_err()).name(), "scale");
    }
}

#[test]
fn masked_words_sum_to_the_mean() {
    let (codec, cohort, elements) = (codec(), 5, layout().elements());
    let vectors: Vec<_> = (0..3).map(vector).collect();
    let mask = |u: u8| Mask::new(&[u + 1; 32], &[0; 12]);
    // The last client's mask cancels the others'.
    let masks = [
        Masks::from_iter([mask(0)]),
        Masks::from_iter([mask(1)]),
        Masks::from_iter([mask(0).negated(), mask(1).negated()]),
    ];
    let sum = |packing: Packing, clients: &[Vec<u32>]| {
        let format = format(Kind::Masked(packing));
        let mut sum = vec![0u32; packing.words()];
        for words in clients {
            let body = packing.pack(words).unwrap();
            assert_eq!(body.len() as u64, format.bytes());
            assert_eq!(format.check(&body[..]).unwrap(), Digest::of(&body));
            format.add_masked(&body[..], &mut sum).unwrap();
        }
        sum.iter_mut().for_each(|word| *word &= packing.modulus_mask());
        sum
    };
    let code = FixedPoint::new(1.0, cohort, 32).unwrap();
    let words = vectors.iter().zip(&masks).map(|(x, masks)| codec.masked(x, code, masks).unwrap());
    let packing = Packing::new(elements, 32).unwrap();
    let total = codec.unmasked(&sum(packing, &words.collect::<Vec<_>>()), code).unwrap();
    for i in 0..elements {
        let expected = vectors.iter().map(|x| x[i]).sum::<f32>();
        assert!((total[i] - expected).abs() < 1e-6, "{i}");
    }
    let (scales, zeros) = ([1.0, 0.5, 2.0], vec![0.0; elements]);
    let (mut clients, mut expected) = (Vec::new(), vec![0.0; elements]);
    for (u, (x, masks)) in vectors.iter().zip(&masks).enumerate() {
        let key = [1, u as u32, 0];
        clients.push(codec.masked_ternary(x, &zeros, &scales, key, cohort, masks).unwrap().0);
        let (clear, _) = codec.ternary(x, &zeros, Scales::Given(&scales), key).unwrap();
        for (sum, x) in expected.iter_mut().zip(format(Kind::Ternary).decode(&clear).unwrap()) {
            *sum += x;
        }
    }
    let sum = sum(Packing::ternary(elements, cohort).unwrap(), &clients);
    let mean = codec.unmasked_ternary(&sum, &scales, cohort, 3).unwrap();
    for i in 0..elements {
        assert!((mean[i] - expected[i] / 3.0).abs() < 1e-6, "{i}");
    }
}

#[test]
fn every_device_masks_alike() {
    let (x, zeros) = (vector(1), vec![0.0; layout().elements()]);
    let code = FixedPoint::new(1.0, 5, 32).unwrap();
    let masks: Masks = (0..70).map(|u| Mask::new(&[u; 32], &[u; 12])).collect();
    let words = |device: &Device| {
        let codec = Codec::new(device, &layout()).unwrap();
        let scales = [0.1, 0.5, 1.0];
        let lanes = codec.masked_ternary(&x, &zeros, &scales, [1, 2, 3], 9, &masks).unwrap();
        (codec.masked(&x, code, &masks).unwrap(), lanes)
    };
    // The references add masks as a GPU does, the processor by its own way.
    assert!(words(&Device::cpu()) == words(&Device::reference()));
}

#[test]
fn folding_bodies_is_folding_vectors() {
    let (full, half) = (format(Kind::Full), format(Kind::Half));
    let mut streamed = Total::new(layout().elements(), 30);
    let mut whole = streamed.clone();
    for seed in 0..4 {
        let x = vector(seed);
        let (format, body) =
            if seed % 2 == 0 { (&full, Codec::full(&x)) } else { (&half, Codec::half(&x)) };
        streamed.begin(seed + 5);
        format.values(&body[..], |at, part| streamed.add(at, part, seed + 5)).unwrap();
        whole.begin(seed + 5);
        whole.add(0, &format.decode(&body).unwrap(), seed + 5);
    }
    assert_eq!(streamed, whole);
}

#[test]
fn long_updates_are_scaled_down_whatever_they_are_read_by() {
    let x = vector(3);
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let scales = Scales::Own(TernaryMethod::Drawn(2.5));
    let codes = codec().ternary(&x, &vec![0.0; x.len()], scales, [1, 2, 3]).unwrap().0;
    for (kind, body) in
        [(Kind::Full, Codec::full(&x)), (Kind::Half, Codec::half(&x)), (Kind::Ternary, codes)]
    {
        let whole = format(kind).decode(&body).unwrap();
        for (most, is_long) in [(norm(&whole) * 0.25, true), (norm(&whole) * 1.01, false)] {
            let mut read = Vec::new();
            let updates = Updates { bound: 8.0, max_norm: Some(most), ..Updates::default() };
            assert!(!format(kind).is_limited());
            let format = Format::of_updates(&updates, kind, &layout());
            assert!(format.is_limited());
            let factor = format.factor(&body[..]).unwrap();
            assert_eq!(factor < 1.0, is_long);
            format.scaled(&body[..], factor, |_, part| read.extend_from_slice(part)).unwrap();
            assert!(norm(&read) <= most * (1.0 + 1e-6));
            assert_eq!(read == whole, !is_long);
            let mut alone = whole.clone();
            assert_eq!(limit(&mut alone, most), is_long);
            assert_eq!(alone, read);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whatever comes in is taken or refused, and what is taken is finite and within the bound.
    #[test]
    fn any_bytes_are_checked(
        kind in 0usize..4,
        start in proptest::collection::vec(any::<u8>(), 0..400),
        cut in 0usize..3,
    ) {
        let packing = Packing::new(77, 9).unwrap();
        let kind = [Kind::Full, Kind::Half, Kind::Ternary, Kind::Masked(packing)][kind];
        let tensors = vec![
            TensorSpec { name: "a".into(), shape: vec![3] },
            TensorSpec { name: "b".into(), shape: vec![65] },
        ];
        let layout = Layout::of(&ModelKind::Tensors(tensors)).unwrap();
        let format = Format::new(kind, &layout, 4.0);
        let mut body = start;
        body.resize(format.bytes() as usize + 1 - cut, 0);
        match format.check(&body[..]) {
            Ok(digest) => {
                prop_assert_eq!(cut, 1);
                prop_assert_eq!(digest, Digest::of(&body));
                if let Kind::Masked(packing) = kind {
                    let mut sum = vec![0; packing.words()];
                    format.add_masked(&body[..], &mut sum).unwrap();
                    prop_assert_eq!(packing.pack(&sum).unwrap(), body);
                } else {
                    let flat = format.decode(&body).unwrap();
                    prop_assert_eq!(flat.len(), layout.elements());
                    prop_assert!(flat.iter().all(|x| x.abs() <= 4.0));
                }
            }
            Err(error) => prop_assert!(matches!(error, Error::Refused(_))),
        }
    }
}

#[test]
fn a_difference_is_added_element_by_element() {
    let (layout, base) = (layout(), vector(3));
    let ahead = vector(4);
    let scales = Scales::Own(TernaryMethod::Thresholded(0.7));
    let before = vec![0.0; base.len()];
    let (body, _) = codec().ternary(&ahead, &before, scales, [1, 2, 3]).unwrap();
    let steps = format(Kind::Ternary).decode(&body).unwrap();
    let sum = add_difference(&layout, &base, &body).unwrap();
    assert_eq!(sum.len(), base.len());
    assert!(sum.iter().zip(base.iter().zip(&steps)).all(|(sum, (x, step))| *sum == x + step));
    assert!(steps.iter().any(|step| *step < 0.0));
    let short = add_difference(&layout, &base, &body[1..]).unwrap_err();
    assert_eq!(refusal(short).name(), "length");
    let floats = Codec::full(&base);
    assert_eq!(Codec::floats(&floats), base);
    assert_eq!(Codec::floats(&floats[..9]), base[..2]);
    assert_eq!(Codec::floats(&[]), [0.0; 0]);
}

#[test]
fn a_body_of_another_length_is_told_what_came() {
    let format = format(Kind::Full);
    let body = Codec::full(&vector(1));
    let length = format.bytes();
    assert_eq!(length, body.len() as u64);
    let more = [&body[..], &[0]].concat();
    let refused = refusal(format.check(&more[..]).unwrap_err());
    assert_eq!(refused, Refusal::Length { given: length + 1, expected: length });
    // A part of it is there: where the part begins that isn't whole.
    for (cut, given) in [(0, 0), (1, 0), (4 * CHUNK + 1, 4 * CHUNK as u64)] {
        let refused = refusal(format.check(&body[..cut]).unwrap_err());
        assert_eq!(refused, Refusal::Length { given, expected: length }, "{cut}");
    }
}

#[test]
fn the_code_that_is_none_is_named_where_it_is() {
    let format = format(Kind::Ternary);
    let zeros = vec![0.0; vector(1).len()];
    let scales = Scales::Own(TernaryMethod::Thresholded(0.7));
    let (body, _) = codec().ternary(&zeros, &zeros, scales, [1, 2, 3]).unwrap();
    let codes = 4 * layout().tensors();
    for at in [0, 1, 6, 63, CHUNK + 5] {
        let mut body = body.clone();
        body[codes + at / 4] |= 3 << (2 * (at % 4));
        assert_eq!(refusal(format.check(&body[..]).unwrap_err()), Refusal::Code(at));
    }
}

#[test]
fn masked_words_are_read_in_pieces_and_end_where_they_end() {
    // More than two pieces, and five bits that belong to no word.
    let packing = Packing::new(5 * CHUNK + 1, 19).unwrap();
    let words: Vec<u32> = (0..packing.words() as u32).map(|i| i * 7_919 % (1 << 19)).collect();
    let body = packing.pack(&words).unwrap();
    assert!(body.len() > 8 * CHUNK && 8 * packing.bytes() - 19 * words.len() == 5);
    let format = format(Kind::Masked(packing));
    assert_eq!(format.check(&body[..]).unwrap(), Digest::of(&body));
    let mut sum = vec![1; words.len()];
    format.add_masked(&body[..], &mut sum).unwrap();
    assert!(sum.iter().zip(&words).all(|(sum, word)| *sum == word + 1));
    for bit in 3..8 {
        let mut more = body.clone();
        *more.last_mut().unwrap() |= 1 << bit;
        let refused = refusal(format.check(&more[..]).unwrap_err());
        assert_eq!(refused, Refusal::Malformed("masked words"), "{bit}");
    }
}

#[test]
fn the_number_that_is_too_large_is_named() {
    let format = format(Kind::Full);
    let mut x = vector(1);
    (x[3], x[70]) = (-8.0, 8.5);
    let refused = refusal(format.check(&Codec::full(&x)[..]).unwrap_err());
    assert_eq!(refused, Refusal::Number { at: 70, value: 8.5, bound: 8.0 });
    x[70] = 8.0;
    format.check(&Codec::full(&x)[..]).unwrap();
}

#[test]
fn tensors_come_back_that_follow_on_one_of_several_parts() {
    let shapes = [vec![2 * CHUNK + 70], vec![CHUNK + 5], vec![3]];
    let tensors = shapes.into_iter().enumerate();
    let tensors = tensors.map(|(i, shape)| TensorSpec { name: format!("t{i}"), shape });
    let layout = Layout::of(&ModelKind::Tensors(tensors.collect())).unwrap();
    let mut x: Vec<f32> = (0..layout.elements()).map(|i| (i % 3) as f32 - 1.0).collect();
    layout.clear_padding(&mut x);
    let codec = Codec::new(&Device::cpu(), &layout).unwrap();
    let scales = Scales::Given(&[1.0; 3]);
    let (body, _) = codec.ternary(&x, &vec![0.0; x.len()], scales, [1, 2, 3]).unwrap();
    assert_eq!(Format::new(Kind::Ternary, &layout, 8.0).decode(&body).unwrap(), x);
}
