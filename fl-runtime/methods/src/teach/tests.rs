//! The points of the system, end to end on a few points of a plane.

use std::sync::atomic::{AtomicBool, Ordering};

use tern_engine::Device;
use tern_engine::nn::ModelSpec;
use tern_protocol::ClientId;
use tern_protocol::partition::{Partition, by_value, partition};
use tern_protocol::plan::LocalTraining;
use tern_protocol::{Error, Result};

use super::*;

/// Three classes by angle.
fn points(count: usize, seed: u32) -> (Vec<f32>, Vec<u32>) {
    let number = |i: u32| tern_shaders::kernels::random::pcg4d([i, seed, 1, 2]);
    let mut features = Vec::new();
    let mut labels = Vec::new();
    for i in 0..count as u32 {
        let [angle, radius, ..] = number(i);
        let turn = f64::from(angle) / f64::powi(2.0, 32);
        let radius = 0.5 + f64::from(radius) / f64::powi(2.0, 33);
        let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
        features.extend([(radius * cos) as f32, (radius * sin) as f32]);
        labels.push((3.0 * turn) as u32);
    }
    (features, labels)
}

fn recipe(seed: u32) -> Recipe {
    let mut training = LocalTraining::default();
    (training.epochs, training.learning_rate) = (40, 0.5);
    Recipe { model: ModelSpec::mlp(2, &[8], 3), classes: 3, training, seed }
}

fn parts(labels: &[u32], count: usize) -> Vec<Part> {
    usable(labels, partition(labels, count, Partition::Iid, 5).unwrap()).0
}

fn teachers(count: usize) -> Models {
    let (features, labels) = points(30 * count, 1);
    let parts = parts(&labels, count);
    let samples = Samples { features: &features, width: 2, labels: &labels };
    Models::train(&Device::cpu(), &recipe(1), &samples, &parts, &mut |_, _, _| {}).unwrap()
}

fn service(voters: impl Voters, sigma: f64, epsilon: f64) -> Service<impl Voters> {
    let aggregator = Aggregator::new(Mechanism::Gaussian { sigma }, Noise::seeded(1)).unwrap();
    let budget = Budget::in_memory(Limit { epsilon, delta: 1e-3 }).unwrap();
    Service::new(voters, aggregator, budget)
}

/// (2.1) Parts are disjoint and cover all, at random or by the device that collected them.
#[test]
fn parts_are_disjoint() {
    let (_, labels) = points(200, 1);
    let devices: Vec<u32> = (0..200).map(|i| i * i % 7).collect();
    for parts in [partition(&labels, 9, Partition::Iid, 1).unwrap(), by_value(&devices)] {
        let mut rows = parts.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..200).collect::<Vec<_>>());
    }
    let of = |part: &[usize]| part.iter().map(|row| devices[*row]).collect::<Vec<_>>();
    assert!(by_value(&devices).iter().all(|part| of(part).windows(2).all(|w| w[0] == w[1])));
}

/// (2.2) What a teacher becomes depends on its own part alone.
#[test]
fn teachers_are_trained_independently() {
    let (features, mut labels) = points(90, 1);
    let parts = parts(&labels, 3);
    let device = Device::cpu();
    let train = |labels: &[u32]| {
        let samples = Samples { features: &features, width: 2, labels };
        let mut last = (0, 0, None);
        let models = Models::train(&device, &recipe(1), &samples, &parts, &mut |d, t, l| {
            last = (d, t, l);
        });
        // 30 samples, batches of 10, 40 passes.
        assert_eq!((last.0, last.1), (120, 120));
        assert!(last.2.is_some_and(|loss| loss > 0.0));
        models.unwrap()
    };
    let before = train(&labels);
    for row in &parts[1].rows {
        labels[*row] = (labels[*row] + 1) % 3;
    }
    let after = train(&labels);
    let same = |at: usize| before.parameters(at).unwrap() == after.parameters(at).unwrap();
    assert!(same(0) && !same(1) && same(2));
    assert_ne!(before.parameters(0).unwrap(), before.parameters(2).unwrap());
}

/// (2.2, 2.8) One record in the place of another changes its own teacher and no other, also where
/// that part has one class then and no teacher at all.
#[test]
fn a_record_changes_its_own_teacher_alone() {
    let (features, mut labels) = points(40, 1);
    let dealt = partition(&labels, 5, Partition::Iid, 5).unwrap();
    // The second part has a single record of another class.
    dealt[1].iter().for_each(|row| labels[*row] = 0);
    let record = dealt[1][0];
    labels[record] = 2;
    let device = Device::cpu();
    let train = |features: &[f32], labels: &[u32]| {
        let (parts, _) = usable(labels, dealt.clone());
        let samples = Samples { features, width: 2, labels };
        let models = Models::train(&device, &recipe(1), &samples, &parts, &mut |_, _, _| {});
        let models = models.unwrap();
        let bits = |at| -> Vec<u32> {
            models.parameters(at).unwrap().into_iter().map(f32::to_bits).collect()
        };
        let all = parts.iter().enumerate().map(|(at, part)| (part.number, bits(at)));
        all.collect::<std::collections::BTreeMap<usize, Vec<u32>>>()
    };
    let before = train(&features, &labels);
    assert_eq!(before.len(), 5);
    let (mut moved, mut other) = (features.clone(), labels.clone());
    (moved[2 * record], other[record]) = (9.0, 1);
    let replaced = train(&moved, &other);
    other[record] = 0;
    let one_class = train(&moved, &other);
    assert!(replaced[&1] != before[&1] && !one_class.contains_key(&1));
    for number in [0, 2, 3, 4] {
        assert!(replaced[&number] == before[&number], "teacher {number}, replaced");
        assert!(one_class[&number] == before[&number], "teacher {number}, one class");
    }
}

/// (2.4 to 2.7) A student that sees samples and answers alone comes close to its teachers.
#[test]
fn a_student_learns_from_the_answers_it_got() {
    let device = Device::cpu();
    let mut teachers = teachers(30);
    let (test, truth) = points(500, 3);
    let votes = teachers.votes(&test).unwrap();
    assert!(votes.iter().all(|votes| votes.iter().sum::<u32>() == 30));
    let ensemble: Vec<u32> = votes.iter().map(|votes| plurality(votes) as u32).collect();
    assert!(accuracy(&ensemble, &truth) > 0.93);

    let (public, _) = points(150, 2);
    let mut service = service(&mut teachers, 2.0, 1000.0);
    // In two requests, as they were collected.
    let (first, second) = public.split_at(100);
    let mut labels = service.answer(ClientId::numbered(4), first).unwrap();
    labels.extend(service.answer(ClientId::numbered(4), second).unwrap());
    assert_eq!(service.clients()[&ClientId::numbered(4)], Tally { queries: 150, answers: 150 });
    assert_eq!((service.spent().queries, service.spent().answers), (150, 150));

    let labels: Vec<u32> = labels.into_iter().flatten().collect();
    let samples = Samples { features: &public, width: 2, labels: &labels };
    let all = [Part { number: 0, rows: (0..150).collect() }];
    let mut student =
        Models::train(&device, &recipe(9), &samples, &all, &mut |_, _, _| {}).unwrap();
    drop(service);
    // Served from here on without anybody's help.
    let served = student.predict(&test).unwrap();
    assert!(accuracy(&served[0], &truth) > 0.9, "{}", accuracy(&served[0], &truth));
    let one = student.predict(&test[..2]).unwrap();
    assert_eq!(one[0][0], served[0][0]);
}

/// (2.8) A spent budget gives no labels, however they would have come out.
#[test]
fn a_service_refuses_when_its_budget_is_spent() {
    let mut service = service(teachers(3), 10.0, 2.0);
    let most = service.budget().affordable(service.mechanism(), 10_000) as usize;
    let (rows, _) = points(most + 1, 2);
    assert!(most > 2 && most < 1000, "{most}");
    let error = service.answer(ClientId::numbered(0), &rows).unwrap_err();
    assert!(matches!(error, Error::Budget { spent: 0.0, .. }), "{error}");
    assert_eq!(service.spent().queries, 0, "all or nothing");
    service.answer(ClientId::numbered(0), &rows[2..]).unwrap();
    let error = service.answer(ClientId::numbered(1), &rows[..2]).unwrap_err().to_string();
    assert!(error.contains("budget is ε = 2.000 at δ = 1e-3"), "{error}");
    assert_eq!(service.clients().len(), 1);
}

/// (2.3) Bad requests are refused by name and cost nothing; the others' go on.
#[test]
fn one_bad_client_does_not_stop_the_others() {
    let mut service = service(teachers(3), 10.0, 50.0).with_share(4);
    let bad: [(&[f32], &str); 4] = [
        (&[], "number of features is 0"),
        (&[1.0, 2.0, 3.0], "number of features is 3, expected 2 for each"),
        (&[1.0, 2.0, 3.0, f32::NAN], "feature 1 of sample 1 is NaN"),
        (&[0.5; 10], "samples of client"),
    ];
    for (features, expected) in bad {
        let error = service.answer(ClientId::numbered(1), features).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    assert_eq!((service.spent().queries, service.clients().len()), (0, 0));
    assert_eq!(service.answer(ClientId::numbered(2), &[0.5; 8]).unwrap().len(), 4);
    assert!(service.answer(ClientId::numbered(2), &[0.5; 2]).is_err(), "it had its share");
    assert_eq!(service.answer(ClientId::numbered(3), &[0.5; 2]).unwrap().len(), 1);
}

/// (2.8) No answer leaves before its charge is on the disk.
#[test]
fn answers_are_charged_for_before_they_go_out() {
    struct Watching<'a>(&'a AtomicBool);
    impl Voters for Watching<'_> {
        fn width(&self) -> usize {
            1
        }
        fn votes(&mut self, features: &[f32]) -> Result<Vec<Vec<u32>>> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(Error::trainer("the teachers are away")),
                false => Ok(vec![vec![9, 1]; features.len()]),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.jsonl");
    let away = AtomicBool::new(true);
    let limit = Limit { epsilon: 9.0, delta: 1e-3 };
    let aggregator =
        Aggregator::new(Mechanism::Laplace { scale: 4.0 }, Noise::from_system()).unwrap();
    let budget = Budget::open(&path, limit).unwrap();
    let mut service = Service::new(Watching(&away), aggregator, budget);
    assert!(service.answer(ClientId::numbered(1), &[1.0]).is_err());
    assert_eq!(service.spent().queries, 0, "no votes, no charge");
    away.store(false, Ordering::Relaxed);
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines(), 1);
    service.answer(ClientId::numbered(1), &[1.0, 2.0]).unwrap();
    assert_eq!(lines(), 2);
    let spent = service.spent();
    drop(service);
    let again = Budget::open(&path, limit).unwrap().spent();
    assert_eq!((again.queries, again.answers, again.epsilon), (2, 2, spent.epsilon));
    assert!((again.given_votes / spent.given_votes - 1.0).abs() < 1e-12);
}

/// Votes on samples that nobody sent are told to nobody, and not charged for.
#[test]
fn votes_are_on_the_samples_that_were_sent() {
    struct Padding;
    impl Voters for Padding {
        fn width(&self) -> usize {
            1
        }
        fn votes(&mut self, _: &[f32]) -> Result<Vec<Vec<u32>>> {
            Ok(vec![vec![9, 1]; 8])
        }
    }
    let mut service = service(Padding, 2.0, 1000.0);
    let error = service.answer(ClientId::numbered(1), &[0.5; 3]).unwrap_err().to_string();
    assert!(error.contains("samples voted on is 8, expected 3"), "{error}");
    assert_eq!((service.spent().queries, service.clients().len()), (0, 0));
    assert_eq!(service.answer(ClientId::numbered(1), &[0.5; 8]).unwrap().len(), 8);
}

/// Parts that teach nothing are left out by number, and the others are taught.
#[test]
fn parts_that_teach_nothing_are_left_out() {
    let labels = [0, 1, 0, 1, 1];
    let parts = vec![vec![0, 1], vec![], vec![3, 4], vec![2, 9], vec![2, 3]];
    let (sound, left_out) = usable(&labels, parts);
    let part = |number, rows: &[usize]| Part { number, rows: rows.to_vec() };
    assert_eq!(sound, [part(0, &[0, 1]), part(4, &[2, 3])]);
    let reasons: Vec<_> = left_out.iter().map(|l| (l.part, l.reason.as_str())).collect();
    let expected =
        [(1, "no samples"), (2, "2 samples of one class"), (3, "a row that isn't there")];
    assert_eq!(reasons, expected);
    let device = Device::cpu();
    let error = |features: &[f32], parts: &[Part]| {
        let samples = Samples { features, width: 2, labels: &labels };
        let trained = Models::train(&device, &recipe(1), &samples, parts, &mut |_, _, _| {});
        trained.err().unwrap().to_string()
    };
    assert!(error(&[0.0; 10], &[part(0, &[0]), part(1, &[])]).contains("samples of part 1 is 0"));
    assert!(error(&[0.0; 10], &[part(0, &[5])]).contains("row of a part is 5"));
    assert!(error(&[0.0; 10], &[]).contains("parts to train on is 0"));
    assert!(error(&[0.0; 9], &[part(0, &[0])]).contains("number of features is 9"));
    let samples = Samples { features: &[0.0; 10], width: 2, labels: &labels };
    let other = Recipe { classes: 4, ..recipe(1) };
    let error = Models::train(&device, &other, &samples, &sound, &mut |_, _, _| {}).err().unwrap();
    assert!(error.to_string().contains("outputs of the model is 3, expected 4"), "{error}");
}
