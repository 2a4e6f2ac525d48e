use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;

use tern_engine::nn::ModelSpec;
use tern_engine::{Data, Device, IGNORE, Schedule, Trainable};
use tern_protocol::Digest;

use super::*;

const SHAPE: Shape = Shape { rows: 4, length: 10 };
const TOKENS: usize = 12;

fn public() -> Arc<Public> {
    let model = ModelSpec::language_model(TOKENS, 6, 16, 1);
    let weights = model.build().unwrap().0.initial(5);
    Arc::new(Public { version: 1, model, note: "letters".into(), weights })
}

/// Batch number `i` of somebody who counts in steps of `step`.
fn batch(i: usize, step: usize) -> Batch {
    let tokens = |row: usize| -> Vec<u32> {
        let first = 7 * i + 3 * row;
        (0..=SHAPE.length).map(|t| ((first + step * t) % TOKENS) as u32).collect()
    };
    let rows: Vec<Vec<u32>> = (0..SHAPE.rows).map(tokens).collect();
    let windows: Vec<(&[u32], &[u32])> =
        rows.iter().map(|row| (&row[..SHAPE.length], &row[1..])).collect();
    Batch::of_windows(SHAPE, &windows).unwrap()
}

fn recipe(reuse: Reuse) -> Recipe {
    Recipe { schedule: Schedule::constant(0.02), passes: 3, reuse, seed: 1, ..Recipe::default() }
}

fn learner(recipe: &Recipe) -> Learner {
    let public = public();
    let mut learner = Learner::new(&Device::cpu(), &public.model, SHAPE, recipe).unwrap();
    learner.set_weights(&public.weights).unwrap();
    learner
}

/// Predicts batches one after the other and keeps what training needs of it.
fn predicted(learner: &mut Learner, batches: usize) -> Vec<Batch> {
    let one = |i| {
        let batch = batch(i, 5);
        learner.predict(&batch.inputs).unwrap();
        Batch { kept: Some(learner.keep().unwrap()), ..batch }
    };
    (0..batches).map(one).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_gradient_from_a_prediction_has_the_bits_of_the_ordinary_one() {
    let mut ordinary = learner(&recipe(Reuse::Never));
    let mut exact = learner(&recipe(Reuse::EXACT));
    // Other batches pass through before the first one is trained on.
    let batches = predicted(&mut exact, 3);
    ordinary.start().unwrap();
    exact.start().unwrap();
    assert!(!ordinary.update(&batch(0, 5)).unwrap());
    assert!(exact.update(&batches[0]).unwrap());
    let [a, b] = [&ordinary, &exact].map(|l| bits(&l.gradient().unwrap()));
    assert!(a == b && a.iter().any(|x| *x != 0));
    let [a, b] = [&ordinary, &exact].map(|l| bits(&l.weights().unwrap()));
    assert!(a == b);
    // The next one's activations are of older weights now.
    assert!(!exact.update(&batches[1]).unwrap());
}

#[test]
fn an_update_after_each_prediction_never_computes_forward_twice() {
    let mut ordinary = learner(&recipe(Reuse::Never));
    let mut exact = learner(&recipe(Reuse::EXACT));
    for learner in [&mut ordinary, &mut exact] {
        learner.start().unwrap();
        for i in 0..12 {
            let mut batch = batch(i, 5);
            learner.predict(&batch.inputs).unwrap();
            batch.kept = Some(learner.keep().unwrap());
            let reused = learner.update(&batch).unwrap();
            assert_eq!(reused, learner.recipe().reuse != Reuse::Never);
        }
    }
    let [a, b] = [&ordinary, &exact].map(|l| l.weights().unwrap());
    assert!(bits(&a) == bits(&b) && a != public().weights);
}

#[test]
fn activations_are_used_for_at_most_so_many_updates() {
    let train = |reuse: Reuse| {
        let mut learner = learner(&recipe(reuse));
        let mut batches = predicted(&mut learner, 4);
        let mut updates = 0;
        let work = learner.train(&mut batches, &mut || updates += 1).unwrap();
        assert_eq!((work.updates, updates), (12, 12), "3 passes over 4 batches");
        assert!(batches.iter().all(|b| b.kept.is_none()) && work.kept_bytes > 0);
        let loss = learner.score(&[batch(0, 5)]).unwrap().loss;
        (work.reused, bits(&learner.weights().unwrap()), loss)
    };
    let never = train(Reuse::Never);
    let exact = train(Reuse::EXACT);
    assert_eq!((never.0, exact.0), (0, 1), "only the first update has the predictions' weights");
    assert!(never.1 == exact.1, "and its gradient is the same");
    let (one, three, all) =
        (train(Reuse::Within(1)), train(Reuse::Within(3)), train(Reuse::Within(u32::MAX)));
    assert!(one.0 >= 2 && one.0 < three.0 && three.0 < all.0, "{} {} {}", one.0, three.0, all.0);
    assert_eq!(all.0, 12);
    let before = learner(&recipe(Reuse::Never)).score(&[batch(0, 5)]).unwrap().loss;
    for (_, weights, loss) in [&one, &three, &all] {
        assert!(*weights != never.1 && *loss < before, "{loss} of {before}");
    }
}

#[test]
fn activations_of_other_weights_are_not_used() {
    let mut learner = learner(&recipe(Reuse::Within(9)));
    let mut batches = predicted(&mut learner, 2);
    let weights = learner.weights().unwrap();
    learner.set_weights(&weights).unwrap();
    assert!(!learner.update(&batches[0]).unwrap(), "loaded anew");
    batches[1].inputs = Data::U32(vec![0; 3]);
    assert!(learner.update(&batches[1]).is_err(), "a batch of another shape");
}

#[test]
fn a_weak_device_trains_the_last_layer_alone() {
    let trainable = Trainable::Prefixes(vec!["output".into()]);
    let mut ends = Vec::new();
    for reuse in [Reuse::Never, Reuse::EXACT] {
        let mut learner = learner(&Recipe { trainable: trainable.clone(), ..recipe(reuse) });
        let before = learner.score(&[batch(0, 5)]).unwrap().loss;
        let mut batches = predicted(&mut learner, 4);
        let work = learner.train(&mut batches, &mut || {}).unwrap();
        // The layers before it never change, so what they gave a prediction stays exact.
        assert_eq!(work.reused, if reuse == Reuse::Never { 0 } else { 12 });
        let (weights, gradient) = (learner.weights().unwrap(), learner.gradient().unwrap());
        for p in learner.parameters().iter() {
            let part = p.offset..p.offset + p.len();
            let changed = weights[part.clone()] != public().weights[part.clone()];
            assert_eq!(changed, p.name.starts_with("output"), "{}", p.name);
            assert_eq!(gradient[part].iter().any(|x| *x != 0.0), changed, "{}", p.name);
        }
        assert!(learner.score(&[batch(0, 5)]).unwrap().loss < before);
        ends.push(bits(&weights));
    }
    assert!(ends[0] == ends[1]);
    let nothing = Recipe { trainable: Trainable::None, ..recipe(Reuse::Never) };
    assert!(Learner::new(&Device::cpu(), &public().model, SHAPE, &nothing).is_err());
}

fn client(recipe: &Recipe) -> Client {
    Client::new(&Device::cpu(), &public(), SHAPE, recipe, 300).unwrap()
}

/// The user of a client goes on, for so many batches.
fn use_it(client: &mut Client, batches: std::ops::Range<usize>, step: usize) {
    for i in batches {
        let Batch { inputs, targets, .. } = batch(i, step);
        client.predict(inputs).unwrap();
        client.observe(targets).unwrap();
    }
}

#[test]
fn records_accumulate_to_the_preset_count_and_a_better_model_is_adopted() {
    let long = Recipe { passes: 20, ..recipe(Reuse::Within(1)) };
    let mut client = client(&long);
    use_it(&mut client, 0..7, 5);
    assert_eq!((client.collected(), client.is_ready()), (280, false));
    assert!(client.customize(&mut || {}).unwrap().is_none() && client.rounds().is_empty());
    use_it(&mut client, 7..8, 5);
    let before = client.expected();
    assert_eq!((before.targets, client.is_ready()), (320, true));
    let round = client.customize(&mut || {}).unwrap().unwrap();
    assert!(round.adopted && client.is_customized(), "{round:?}");
    assert_eq!((round.records, round.trained, round.expected), (320, 280, before));
    assert!(round.loss_after < 0.7 * round.loss_before, "{round:?}");
    assert_eq!((client.collected(), client.rounds().len()), (0, 1), "it starts again");
    // The next predictions are the customized model's.
    use_it(&mut client, 8..16, 5);
    assert!(client.expected().top1 > before.top1 + 100, "{:?}", client.expected());
    assert_eq!(client.learner.weights().unwrap(), client.weights());
    let second = client.customize(&mut || {}).unwrap().unwrap();
    assert_eq!(client.held_back.len(), 2);
    assert_eq!(round.loss_public, round.loss_before, "nothing was customized yet");
    assert!(second.loss_public > second.loss_before + 1.0, "{second:?}");
    assert_eq!(client.learner.weights().unwrap(), client.weights());
}

#[test]
fn a_customized_model_that_does_worse_is_not_adopted() {
    let mut client = client(&Recipe { passes: 20, ..recipe(Reuse::EXACT) });
    // What is held back is not what it learned.
    use_it(&mut client, 0..7, 5);
    use_it(&mut client, 7..8, 7);
    let round = client.customize(&mut || {}).unwrap().unwrap();
    assert!(!round.adopted && !client.is_customized(), "{round:?}");
    assert_eq!(client.weights(), public().weights);
    assert_eq!(client.learner.weights().unwrap(), client.weights());
    assert_eq!(client.collected(), 0, "collection starts again all the same");
    let mut personal = Personal::new(&public());
    for (others, own) in [([1.0; 2], f64::NAN), ([1.0, 3.0], 2.0), ([3.0, 1.0], 2.0)] {
        assert!(!personal.decide(vec![0.0], others, own) && !personal.is_customized());
    }
    assert!(personal.decide(vec![0.0], [3.0, 2.0], 1.0) && personal.is_customized());
}

#[test]
fn what_came_belongs_to_a_prediction() {
    let mut client = client(&recipe(Reuse::EXACT));
    assert!(client.observe(vec![0; 40]).unwrap_err().to_string().contains("of no prediction"));
    let Batch { inputs, targets, .. } = batch(0, 5);
    client.predict(inputs.clone()).unwrap();
    // The prediction outlives whatever can't be of it.
    assert!(client.observe(targets[..39].to_vec()).unwrap_err().to_string().contains("39"));
    let other = [vec![12], vec![IGNORE; 39]].concat();
    let error = client.observe(other.clone()).unwrap_err().to_string();
    assert!(error.contains("target 0") && error.contains("below 12"), "{error}");
    let error = client.predict(Data::U32(other)).unwrap_err().to_string();
    assert!(error.contains("token 0") && error.contains("below 12"), "{error}");
    client.observe(vec![IGNORE; 40]).unwrap();
    assert!(client.records.is_empty(), "nothing came");
    let predicted = client.predict(inputs).unwrap();
    client.observe(targets.clone()).unwrap();
    assert!(client.observe(targets).is_err(), "it came already");
    let record = &client.records[0];
    assert!(record.kept.is_some() && predicted.len() == 3 * record.counted());
    assert_eq!(record.predicted, predicted, "the prediction is part of the record");
}

#[test]
fn a_training_that_fails_changes_nothing() {
    let mut client = client(&recipe(Reuse::Never));
    use_it(&mut client, 0..8, 5);
    let (weights, expected) = (client.weights().to_vec(), client.expected());
    let mut updates = 0;
    // The last one is held back; each of the others has another place in the order of updates.
    for bad in 0..7 {
        let inputs = std::mem::replace(&mut client.records[bad].inputs, Data::U32(vec![0; 3]));
        assert!(client.customize(&mut || updates += 1).is_err(), "record {bad}");
        client.records[bad].inputs = inputs;
        assert_eq!((client.records.len(), client.held_back.len()), (8, 0));
        assert!(client.is_ready() && client.rounds().is_empty() && client.expected() == expected);
        assert!(client.weights() == weights && client.learner.weights().unwrap() == weights);
    }
    assert_eq!(updates, 21, "all but the first time the weights had changed");
    let round = client.customize(&mut || {}).unwrap().unwrap();
    assert_eq!((round.records, round.trained, client.held_back.len()), (320, 280, 1));
    assert!(client.held_back[0].predicted.is_empty());
}

#[test]
fn a_newer_public_model_is_merged_with_the_personal_change() {
    let old = public();
    let mut client = client(&Recipe { passes: 20, ..recipe(Reuse::Never) });
    let newer = |version, change: f32| {
        let weights = old.weights.iter().map(|x| x + change * x.signum()).collect();
        Arc::new(Public { version, weights, ..(*old).clone() })
    };
    // Without a change of its own a device takes what is newer.
    let merge = client.merge(&newer(2, 1e-4)).unwrap();
    assert!(merge.adopted && !client.is_customized() && client.public().version == 2);

    use_it(&mut client, 0..8, 5);
    assert!(client.customize(&mut || {}).unwrap().unwrap().adopted);
    let (own, base) = (client.weights().to_vec(), client.public().clone());
    // One that is far off: the personal change on it does worse, and all stays as it is.
    let merge = client.merge(&newer(3, 1.0)).unwrap();
    assert!(!merge.adopted && merge.loss_merged > merge.loss_before, "{merge:?}");
    assert!(client.weights() == own && client.public().version == 2);
    // One that knows what this user does, from somebody else.
    let mut teacher = learner(&Recipe { passes: 4, ..recipe(Reuse::Never) });
    let mut lessons: Vec<Batch> = (20..26).map(|i| batch(i, 5)).collect();
    teacher.train(&mut lessons, &mut || {}).unwrap();
    let better =
        Arc::new(Public { version: 4, weights: teacher.weights().unwrap(), ..(*old).clone() });
    let merged = client.personal.merged(&better).unwrap();
    for (i, merged) in merged.iter().enumerate() {
        let expected = better.weights[i] + (own[i] - base.weights[i]);
        assert!((merged - expected).abs() < 1e-6);
    }
    let merge = client.merge(&better).unwrap();
    assert!(merge.adopted && merge.loss_merged < merge.loss_before, "{merge:?}");
    assert!(merge.loss_merged < merge.loss_public, "the personal change is worth something");
    assert!(client.weights() == merged && client.public().version == 4);
    assert_eq!(client.learner.weights().unwrap(), merged);

    assert!(client.merge(&better).unwrap_err().to_string().contains("version"));
    let other = Public { version: 9, note: "digits".into(), ..(*old).clone() };
    assert!(client.merge(&Arc::new(other)).unwrap_err().to_string().contains("architecture"));
}

/// What a device is, but for how long it trained, and which activations it did it from.
fn all_of(client: &Client) -> impl PartialEq + std::fmt::Debug + use<> {
    let timeless = |round: &Round| {
        let work = TrainingCost { updates: round.work.updates, ..TrainingCost::default() };
        Round { work, ..*round }
    };
    let batches = |batches: &[Batch]| -> Vec<_> {
        batches.iter().map(|batch| (batch.inputs.clone(), batch.targets.clone())).collect()
    };
    (
        bits(client.weights()),
        client.public().clone(),
        client.rounds().iter().map(timeless).collect::<Vec<_>>(),
        client.expected(),
        [batches(&client.records), batches(&client.held_back)],
    )
}

#[test]
fn a_device_goes_on_where_its_process_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device");
    let recipe = Recipe { passes: 20, ..recipe(Reuse::EXACT) };
    let load = || Client::load(&Device::cpu(), &file, SHAPE, &recipe, 300);
    let reopen = |mut client: Client| {
        client.save(&file).unwrap();
        let error = load().err().expect("it is still open").to_string();
        assert!(error.contains("in use by"), "{error}");
        let saved = all_of(&client);
        drop(client);
        let loaded = load().unwrap();
        assert_eq!(all_of(&loaded), saved);
        loaded
    };
    let (mut whole, mut parts) = (client(&recipe), client(&recipe));
    parts = reopen(parts);
    for i in 0..20 {
        for client in [&mut whole, &mut parts] {
            use_it(client, i..i + 1, 5);
            client.customize(&mut || {}).unwrap();
        }
        parts = reopen(parts);
    }
    let error = whole.save(&file).unwrap_err().to_string();
    assert!(error.contains("in use by"), "{error}");
    assert_eq!(all_of(&parts), all_of(&whole));
    assert!(whole.is_customized() && whole.rounds().len() == 2 && whole.collected() == 160);
    let weights = whole.public().weights.clone();
    let newer = Arc::new(Public { version: 2, weights, ..(*public()).clone() });
    for client in [&mut whole, &mut parts] {
        client.merge(&newer).unwrap();
    }
    // A loss that is no number stays none.
    let odd = Round { loss_after: f64::NAN, ..parts.rounds[0] };
    parts.rounds.push(odd);
    parts.save(&file).unwrap();
    drop(parts);
    let mut loaded = load().unwrap();
    assert!(loaded.rounds()[2].loss_after.is_nan());
    // A process that ended in the middle left this.
    std::fs::write(file.with_extension("partial"), "half").unwrap();
    loaded.save(&file).unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: BTreeSet<_> = left.collect();
    assert_eq!(left, ["device", "device.lock"].map(OsString::from).into(), "no partial file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_device_that_is_damaged_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device");
    let error = |shape: Shape| {
        let opened = Client::load(&Device::cpu(), &file, shape, &recipe(Reuse::Never), 300);
        let error = opened.err().expect("it is damaged").to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
        error
    };
    error(SHAPE);
    let mut client = client(&recipe(Reuse::Never));
    use_it(&mut client, 0..2, 5);
    client.save(&file).unwrap();
    drop(client);
    let narrow = error(Shape { rows: 2, ..SHAPE });
    assert!(narrow.contains("records of 40 inputs and 40 targets, expected"), "{narrow}");
    let bytes = std::fs::read(&file).unwrap();
    for cut in [0, 31, 40, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..cut]).unwrap();
        assert!(error(SHAPE).contains("with its SHA-256 before it"));
    }
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&file, damaged).unwrap();
    assert!(error(SHAPE).contains("with its SHA-256 before it"));
    // One word less, and said to be whole.
    let body = &bytes[32..bytes.len() - 4];
    std::fs::write(&file, [&Digest::of(body).0[..], body].concat()).unwrap();
    assert!(error(SHAPE).contains("another number of words"));
}

#[test]
fn about_a_collection_is_held_back() {
    let mut client = client(&Recipe { passes: 1, ..recipe(Reuse::Never) });
    for round in 1..=12 {
        use_it(&mut client, 8 * round..8 * (round + 1), 5);
        client.customize(&mut || {}).unwrap().unwrap();
        // 40 records a training, and 300 are a collection.
        assert_eq!(client.held_back.len(), round.min(8));
        let Batch { inputs, .. } = batch(8 * round + 7, 5);
        assert_eq!(client.held_back.last().unwrap().inputs, inputs, "the latest is there");
    }
}

#[test]
fn a_public_model_travels_as_bytes() {
    let public = public();
    let bytes = public.encode().unwrap();
    assert_eq!(Public::decode(&bytes).unwrap(), *public);
    let error = |bytes: &[u8]| Public::decode(bytes).unwrap_err().to_string();
    assert!(error(&bytes[..3]).contains("without a header"));
    assert!(error(&bytes[..30]).contains("cut off in its header"));
    assert!(error(&bytes[..bytes.len() - 1]).contains("cut off in its parameters"));
    assert!(error(&bytes[..bytes.len() - 4]).contains("values of a public model"));
    let mut damaged = bytes.clone();
    damaged[4] = b'x';
    assert!(error(&damaged).contains("damaged"));
    let at = bytes.len() - 4;
    damaged = bytes;
    damaged[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(error(&damaged).contains("a finite number"));
}

#[test]
fn models_of_features_are_personalized_too() {
    let model = ModelSpec::mlp(2, &[], 2);
    let weights = model.build().unwrap().0.initial(1);
    let public = Arc::new(Public { version: 1, model, note: String::new(), weights });
    let shape = Shape { rows: 5, length: 1 };
    let mut client =
        Client::new(&Device::cpu(), &public, shape, &recipe(Reuse::EXACT), 10).unwrap();
    for i in 0..2 {
        let x: Vec<f32> = (0..10).map(|j| ((i + j) % 3) as f32 - 1.0).collect();
        let seen = client.predict(Data::F32(x.clone())).unwrap();
        assert_eq!(seen.len(), 5 * 2, "there are two classes only");
        client.observe(x.chunks(2).map(|x| u32::from(x[0] > 0.0)).collect()).unwrap();
    }
    let error = client.predict(Data::F32([vec![0.5], vec![f32::NAN; 9]].concat())).unwrap_err();
    assert!(error.to_string().contains("feature 1"), "{error}");
    let inputs = Data::F32(vec![0.5; 10]);
    let third = Batch { inputs, targets: vec![2; 5], predicted: Vec::new(), kept: None };
    for error in [client.learner.update(&third).err(), client.learner.score(&[third]).err()] {
        let error = error.unwrap().to_string();
        assert!(error.contains("target 0") && error.contains("below 2"), "{error}");
    }
    let round = client.customize(&mut || {}).unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device");
    client.save(&file).unwrap();
    let saved = all_of(&client);
    drop(client);
    let loaded = Client::load(&Device::cpu(), &file, shape, &recipe(Reuse::EXACT), 10).unwrap();
    assert_eq!(all_of(&loaded), saved);
    // Its only layer is its last one.
    assert_eq!((round.records, round.trained, round.work.reused), (10, 5, 3));
    let none = Shape { rows: 0, length: 1 };
    assert!(Learner::new(&Device::cpu(), &public.model, none, &Recipe::default()).is_err());
}
