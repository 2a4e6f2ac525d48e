use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use tern_engine::Device;
use tern_host::files::Durability;
use tern_protocol::RunId;
use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::metrics::Metrics;
use tern_protocol::participant::{Action, Input, Participant, SavedState};
use tern_protocol::plan::{Encoding, Scores, Secure, Selection, StrategySpec, UpdateKind};
use tern_protocol::trainer::{Job, Trained};
use tern_protocol::update::Codec;

use super::*;

mod admission;
mod attempts;
mod damage;
mod ended;
mod longer;
mod repair;

fn plan() -> RunPlan {
    let tensors = vec![
        TensorSpec { name: "w".into(), shape: vec![5, 20] },
        TensorSpec { name: "b".into(), shape: vec![3] },
    ];
    let mut plan = RunPlan::new("test", ModelKind::Tensors(tensors), 3);
    (plan.cohort.size, plan.cohort.minimum) = (3, 2);
    plan.cohort.over_selection = 4.0 / 3.0;
    plan
}

fn initial(plan: &RunPlan) -> Vec<f32> {
    let layout = plan.check().unwrap();
    let mut flat: Vec<f32> = (0..layout.elements()).map(|i| (i as f32 * 0.3).sin()).collect();
    layout.clear_padding(&mut flat);
    flat
}

fn options() -> Options {
    Options {
        durability: Durability::None,
        keep_uploads: true,
        run: Some(RunId([9; 16])),
        ..Options::default()
    }
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> ClientId {
    ClientId(key(number).verifying_key().to_bytes())
}

/// A client that needs no network.
struct Member {
    participant: Participant,
    kept: SavedState,
    number: u8,
}

impl Member {
    fn new(federation: &mut Federation, number: u8) -> Self {
        federation.enroll(Millis(1), id(number), None).unwrap();
        let task = federation.task().clone();
        let participant =
            Participant::new(&key(number), task, &Device::cpu(), SavedState::default());
        Member { participant: participant.unwrap(), kept: SavedState::default(), number }
    }

    fn restart(&mut self) {
        let task = self.participant.task().clone();
        self.participant =
            Participant::new(&key(self.number), task, &Device::cpu(), self.kept.clone()).unwrap();
    }

    fn samples(&self) -> u32 {
        u32::from(self.number) * 3
    }

    fn train(&self, job: &Job) -> Trained {
        let mut update: Vec<f32> = job.model.iter().map(|x| -0.1 * x).collect();
        update[0] += 0.01 * f32::from(self.number) * job.turn.round as f32;
        let loss = job.model.iter().map(|x| f64::from(x * x)).sum();
        Trained::new(update, self.samples(), Metrics::from([("loss".to_string(), loss)]))
    }

    /// One poll and all that comes of it; false once the run is over.
    fn turn(&mut self, federation: &mut Federation, now: Millis) -> bool {
        let client = id(self.number);
        let instruction = federation.poll(now, &client, self.samples()).unwrap();
        self.participant.set_samples(self.samples());
        let mut actions = VecDeque::from(self.handle(Input::Instruction(instruction)));
        while let Some(action) = actions.pop_front() {
            let told = |result: Result<wire::Ack, Refusal>| match result {
                Ok(_) => Input::Delivered,
                Err(refusal) => Input::Refused(refusal.name().into()),
            };
            let input = match action {
                Action::Fetch(digest) => {
                    let bytes = federation.blob(&digest).unwrap();
                    Input::Fetched { digest, bytes }
                }
                Action::Train(job) => Input::Trained(self.train(&job)),
                Action::Evaluate(job) => {
                    let loss = f64::from(job.model[0].abs());
                    let metrics = Metrics::from([("loss".to_string(), loss)]);
                    Input::Evaluated { samples: self.samples(), metrics }
                }
                Action::Save => {
                    self.kept = self.participant.kept().clone();
                    continue;
                }
                Action::Send(message) => told(federation.message(now, &client, message)),
                Action::Upload => told(self.upload(federation, now)),
                Action::Wait => continue,
                Action::Stop(_) => return false,
            };
            actions.extend(self.handle(input));
        }
        true
    }

    fn handle(&mut self, input: Input) -> Vec<Action> {
        self.participant.handle(input).unwrap()
    }

    fn upload(&self, federation: &mut Federation, now: Millis) -> Result<wire::Ack, Refusal> {
        let pending = self.participant.kept().pending.as_ref().unwrap();
        let client = id(self.number);
        match federation.upload_offset(&client, pending.turn) {
            Ok(mut offset) => {
                while (offset as usize) < pending.body.len() {
                    let part = &pending.body[offset as usize..];
                    let part = &part[..part.len().min(300)];
                    offset = federation.upload_append(&client, pending.turn, offset, part)?;
                }
            }
            Err(Refusal::Repeated) => {}
            Err(refusal) => return Err(refusal),
        }
        federation.upload_finish(now, &client, pending.finish())
    }
}

/// Runs to the end; `each` may do something to both sides after every turn.
fn run(
    folder: &Path,
    plan: &RunPlan,
    members: u8,
    each: impl FnMut(&mut Federation, &mut Member),
) -> Federation {
    let mut federation = Federation::open(folder, plan, &initial(plan), options()).unwrap();
    let mut members: Vec<Member> =
        (1..=members).map(|number| Member::new(&mut federation, number)).collect();
    go_on(&mut federation, &mut members, each);
    federation
}

/// Likewise, from where both sides are.
fn go_on(
    federation: &mut Federation,
    members: &mut [Member],
    mut each: impl FnMut(&mut Federation, &mut Member),
) {
    let start = federation.coordinator().now();
    for step in 1..2_000 {
        let now = start.after(step * 100);
        let mut going = false;
        for member in &mut *members {
            going |= member.turn(federation, now);
            each(federation, member);
        }
        federation.tick(now).unwrap();
        if !going {
            return;
        }
    }
    panic!("the run doesn't end: {:?}", federation.status());
}

/// Likewise from the start, as far as this.
fn go_until(
    federation: &mut Federation,
    members: &mut [Member],
    there: impl Fn(&Federation) -> bool,
) {
    let mut now = Millis(1);
    while !there(federation) {
        assert!(now < Millis(200_000), "the run doesn't come as far: {:?}", federation.status());
        now = now.after(100);
        federation.tick(now).unwrap();
        for member in &mut *members {
            if !there(federation) {
                member.turn(federation, now);
            }
        }
    }
}

fn models(folder: &Path, plan: &RunPlan) -> Vec<Digest> {
    let audits = audit(folder, &initial(plan), &options()).unwrap();
    assert_eq!(audits.len(), plan.rounds as usize);
    for audit in &audits {
        assert!(audit.holds(), "{audit:?}");
        assert!(audit.updates >= 2);
    }
    audits.iter().map(|audit| audit.recorded).collect()
}

#[test]
fn every_kind_of_run_ends_and_can_be_made_anew() {
    type Change = fn(&mut RunPlan);
    let changes: [(&str, Change); 7] = [
        ("full", |_| ()),
        ("half", |p| p.updates.uplink = Encoding::Half),
        ("ternary", |p| p.updates.uplink = Encoding::Ternary),
        ("gradient", |p| {
            p.updates.kind = UpdateKind::Gradient;
            p.strategy = StrategySpec::Average { learning_rate: 0.1 };
        }),
        ("adam", |p| {
            p.strategy =
                StrategySpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        }),
        ("yogi", |p| {
            p.strategy =
                StrategySpec::Yogi { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
            p.cohort.selection = Selection::BySamples;
        }),
        ("evaluation", |p| p.evaluation.on_clients = true),
    ];
    for (name, change) in changes {
        let mut plan = plan();
        plan.evaluation.scores = Scores::Clients;
        change(&mut plan);
        let folder = tempfile::tempdir().unwrap();
        let federation = run(folder.path(), &plan, 6, |_, _| ());
        let rounds = federation.rounds(0).unwrap();
        assert_eq!(rounds.len(), 3, "{name}");
        assert!(rounds.iter().all(|round| round.updates == 3 && round.score.is_some()));
        assert_eq!(rounds[0].evaluation.contains_key("loss"), name == "evaluation");
        let bytes = federation.counted(1).unwrap()[0].bytes;
        let full = 4 * federation.layout().elements() as u64;
        assert_eq!(bytes == full, name != "half" && name != "ternary", "{name}");
        drop(federation);
        models(folder.path(), &plan);
    }
}

#[test]
fn secure_rounds_come_to_the_same_mean() {
    let model = |change: fn(&mut RunPlan)| {
        let mut plan = plan();
        (plan.cohort.size, plan.cohort.minimum, plan.cohort.over_selection) = (4, 4, 1.0);
        plan.strategy = StrategySpec::Average { learning_rate: 0.5 };
        change(&mut plan);
        let folder = tempfile::tempdir().unwrap();
        let federation = run(folder.path(), &plan, 4, |_, _| ());
        let rounds = federation.rounds(0).unwrap();
        assert!(rounds.iter().all(|round| round.updates == 4));
        federation.model(&rounds[2].model).unwrap()
    };
    let distance =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let clear = model(|_| ());
    let secure = model(|plan| plan.secure = Some(Secure::default()));
    assert!(distance(&clear, &secure) < 1e-6);
    let ternary = model(|plan| {
        plan.updates.uplink = Encoding::Ternary;
        plan.cohort.selection = Selection::BySamples;
        let mut secure = Secure::default();
        secure.first_scale = 0.2;
        plan.secure = Some(secure);
    });
    let still = initial(&plan());
    assert!(distance(&ternary, &still) > 0.0 && distance(&ternary, &still) < 1.0);
}

#[test]
fn ternary_models_reach_clients_as_differences() {
    let mut plan = plan();
    plan.updates.downlink = Encoding::Ternary;
    let folder = tempfile::tempdir().unwrap();
    let mut fetched = 0;
    let federation = run(folder.path(), &plan, 4, |federation, _| {
        fetched += u32::from(federation.coordinator().head().difference.is_some());
    });
    assert!(fetched > 0);
    let head = federation.coordinator().head().clone();
    assert_ne!(head.model, head.public);
    let (model, public) =
        (federation.model(&head.model).unwrap(), federation.model(&head.public).unwrap());
    let distance: f32 = model.iter().zip(&public).map(|(a, b)| (a - b).powi(2)).sum();
    assert!(distance < model.iter().map(|x| x * x).sum::<f32>(), "{distance}");
    drop(federation);
    models(folder.path(), &plan);
}

#[test]
fn restarts_of_both_sides_change_no_bit() {
    for uplink in [Encoding::Full, Encoding::Ternary] {
        let mut plan = plan();
        plan.updates.uplink = uplink;
        // The same cohort, whatever happens.
        (plan.cohort.size, plan.cohort.over_selection) = (4, 1.0);
        let folder = tempfile::tempdir().unwrap();
        drop(run(folder.path(), &plan, 4, |_, _| ()));
        let expected = models(folder.path(), &plan);

        let folder = tempfile::tempdir().unwrap();
        let mut turns = 0;
        run(folder.path(), &plan, 4, |federation, member| {
            turns += 1;
            // Not a multiple of the members: it comes in every phase.
            if turns % 7 == 0 {
                let open = |at: &Path| Federation::open(at, &plan, &initial(&plan), options());
                // Its folder is let go before it is opened again.
                let elsewhere = tempfile::tempdir().unwrap();
                *federation = open(elsewhere.path()).unwrap();
                *federation = open(folder.path()).unwrap();
            }
            if turns % 3 == 0 {
                member.restart();
            }
        });
        assert_eq!(models(folder.path(), &plan), expected);
    }
}

#[test]
fn a_folder_is_one_federations() {
    let (folder, plan) = (tempfile::tempdir().unwrap(), plan());
    let open = || Federation::open(folder.path(), &plan, &initial(&plan), options());
    let first = open().unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("in use by"), "{error}");
    // The first one lost nothing by it.
    assert_eq!(first.rounds(0).unwrap(), []);
    drop(first);
    open().unwrap();
}

#[test]
fn another_plan_is_refused_by_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan();
    let flat = initial(&plan);
    Federation::open(folder.path(), &plan, &flat, options()).unwrap();
    plan.training.learning_rate = 0.5;
    let error = Federation::open(folder.path(), &plan, &flat, options()).err().unwrap();
    assert!(error.to_string().contains("training.learning_rate: 0.1 and 0.5"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert!(Federation::open(folder.path(), &plan, &flat[1..], options()).is_err());
}

/// A round with a cohort, of which nothing is in.
fn opened(folder: &Path, options: Options) -> Federation {
    opened_by(&plan(), folder, options)
}

fn opened_by(plan: &RunPlan, folder: &Path, options: Options) -> Federation {
    let mut federation = Federation::open(folder, plan, &initial(plan), options).unwrap();
    for number in 1..=4 {
        federation.enroll(Millis(1), id(number), None).unwrap();
        federation.poll(Millis(1), &id(number), 10).unwrap();
    }
    assert_eq!(federation.coordinator().phase(), "collect");
    federation
}

fn finish(body: &[u8]) -> wire::Finish {
    let digest = Digest::of(body).0.to_vec();
    wire::Finish { round: 1, attempt: 1, digest, samples: 10, ..Default::default() }
}

#[test]
fn refusals_have_their_reason_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    let turn = Turn::new(1, 1);
    let body = Codec::full(&initial(&plan()));
    let name = |result: Result<u64, Refusal>| result.unwrap_err().name();
    assert_eq!(name(federation.upload_offset(&id(9), turn)), "unknown");
    federation.enroll(Millis(1), id(9), None).unwrap();
    assert_eq!(name(federation.upload_offset(&id(9), turn)), "not_selected");
    assert_eq!(name(federation.upload_offset(&id(1), Turn::new(1, 2))), "early");
    assert_eq!(name(federation.upload_offset(&id(1), Turn::new(0, 2))), "late");
    assert_eq!(name(federation.upload_append(&id(1), turn, 4, &body)), "offset");
    let long = [&body[..], &[0]].concat();
    assert_eq!(name(federation.upload_append(&id(1), turn, 0, &long)), "length");

    let end = |federation: &mut Federation, body: &[u8], finish: wire::Finish| {
        let offset = federation.upload_offset(&id(1), turn).unwrap();
        assert_eq!(offset, 0, "a refused body is forgotten");
        federation.upload_append(&id(1), turn, 0, body).unwrap();
        federation.upload_finish(Millis(2), &id(1), finish).unwrap_err().name()
    };
    assert_eq!(end(&mut federation, &body, finish(b"other")), "hash");
    let mut infinite = body.clone();
    infinite[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert_eq!(end(&mut federation, &infinite, finish(&infinite)), "number");
    federation.upload_append(&id(1), turn, 0, &body).unwrap();
    for (samples, value, expected) in [(0, 0.0, "samples"), (5, f64::NAN, "metrics")] {
        let mut finish = finish(&body);
        finish.samples = samples;
        finish.metrics.insert("loss".into(), value);
        let refusal = federation.upload_finish(Millis(2), &id(1), finish).unwrap_err();
        assert_eq!(refusal.name(), expected);
    }
    assert_eq!(federation.coordinator().accepted().count(), 0);

    let take =
        |federation: &mut Federation, finish| federation.upload_finish(Millis(2), &id(1), finish);
    assert!(!take(&mut federation, finish(&body)).unwrap().repeated);
    assert!(take(&mut federation, finish(&body)).unwrap().repeated);
    let mut other = finish(&body);
    other.samples = 11;
    assert_eq!(take(&mut federation, other).unwrap_err().name(), "conflict");
    assert_eq!(federation.coordinator().accepted().count(), 1);
    let status = federation.status();
    for name in ["unknown", "not_selected", "hash", "number", "samples", "metrics", "conflict"] {
        assert_eq!(status.refusals[name], 1, "{name}");
    }
}

#[test]
fn too_few_updates_repeat_the_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    let body = Codec::full(&initial(&plan()));
    federation.upload_append(&id(1), Turn::new(1, 1), 0, &body).unwrap();
    federation.upload_finish(Millis(2), &id(1), finish(&body)).unwrap();
    federation.tick(Millis(700_000)).unwrap();
    assert_eq!(federation.coordinator().turn(), Turn::new(1, 2));
    assert_eq!(federation.status().phase, "gather");
    let late = federation.upload_offset(&id(2), Turn::new(1, 1)).unwrap_err();
    assert_eq!(late.name(), "late");
    // Its update is not kept, and not counted.
    let instruction = federation.poll(Millis(700_001), &id(1), 10).unwrap();
    assert_eq!(instruction.counted, None);
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_refuses_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let body = Codec::full(&initial(&plan()));
    let size = body.len() as u64;
    // Room for the model and one update and a half.
    let tight = Options { max_bytes: size * 5 / 2, ..options() };
    let mut federation = opened(folder.path(), tight);
    let turn = Turn::new(1, 1);
    federation.upload_append(&id(1), turn, 0, &body).unwrap();
    federation.upload_finish(Millis(2), &id(1), finish(&body)).unwrap();
    federation.upload_append(&id(2), turn, 0, &body[..300]).unwrap();
    let refusal = federation.upload_append(&id(2), turn, 300, &body[300..]).unwrap_err();
    assert_eq!((refusal.name(), refusal.is_temporary()), ("storage", true));
    assert!(refusal.to_string().contains("no space"), "{refusal}");
    // Space is back; the upload goes on where it was.
    drop(federation);
    let mut federation =
        Federation::open(folder.path(), &plan(), &initial(&plan()), options()).unwrap();
    assert_eq!(federation.upload_offset(&id(2), turn).unwrap(), 300);
    federation.upload_append(&id(2), turn, 300, &body[300..]).unwrap();
    federation.upload_finish(Millis(3), &id(2), finish(&body)).unwrap();
    federation.upload_append(&id(3), turn, 0, &body).unwrap();
    federation.upload_finish(Millis(3), &id(3), finish(&body)).unwrap();
    federation.tick(Millis(4)).unwrap();
    assert_eq!(federation.coordinator().turn(), Turn::new(2, 1));
}

/// Runs to the end with central evaluation.
fn evaluated(folder: &Path, plan: &RunPlan, evaluator: Arc<dyn Evaluator>) -> Federation {
    let options = Options { evaluator: Some(evaluator), ..options() };
    let mut federation = Federation::open(folder, plan, &initial(plan), options).unwrap();
    let mut members: Vec<Member> =
        (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    let mut now = Millis(0);
    while !federation.coordinator().finished() {
        now = now.after(100);
        members.iter_mut().for_each(|member| {
            member.turn(&mut federation, now);
        });
        federation.tick(now).unwrap();
    }
    federation
}

#[test]
fn what_cannot_be_measured_is_left_out() {
    struct Diverged;
    impl Evaluator for Diverged {
        fn evaluate(&self, _: u32, _: &[f32]) -> Result<Metrics> {
            let metrics = [("loss", f64::NAN), ("perplexity", f64::INFINITY), ("accuracy", 0.5)];
            Ok(metrics.map(|(name, value)| (name.to_string(), value)).into())
        }
    }
    let mut plan = plan();
    plan.rounds = 1;
    let folder = tempfile::tempdir().unwrap();
    let rounds = evaluated(folder.path(), &plan, Arc::new(Diverged)).rounds(0).unwrap();
    assert_eq!(rounds[0].central, Metrics::from([("accuracy".to_string(), 0.5)]));
    // What clients say of the metric that counts is no score instead.
    assert_eq!(rounds[0].score, None);
    plan.evaluation.metric = "accuracy".into();
    let folder = tempfile::tempdir().unwrap();
    let rounds = evaluated(folder.path(), &plan, Arc::new(Diverged)).rounds(0).unwrap();
    assert_eq!(rounds[0].score, Some(0.5));
    assert!(!serde_json::to_string(&rounds).unwrap().contains("null"));
}
