mod download;
mod ended;
mod malicious;

use super::*;
use crate::RunId;
use crate::layout::ModelKind;
use crate::plan::{Encoding, RunPlan};
use crate::trainer::OptimizerState;
use crate::wire::message::Body;
use tern_engine::nn::ModelSpec;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn participant(uplink: Encoding) -> Participant {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
    plan.updates.uplink = uplink;
    let task = plan.task(RunId([1; 16])).unwrap();
    Participant::new(&key(), task, &Device::cpu(), SavedState::default()).unwrap()
}

fn model() -> Vec<f32> {
    let mut flat = vec![0.0; 128];
    flat[..2].copy_from_slice(&[0.5, -1.0]);
    flat
}

fn instruction(turn: Turn, what: What) -> Input {
    Input::Instruction(wire::Instruction {
        round: turn.round,
        attempt: turn.attempt,
        what: Some(what),
        ..Default::default()
    })
}

fn train(turn: Turn) -> Input {
    let digest = Digest::of(&Codec::full(&model())).0.to_vec();
    let model = Some(wire::Model { digest, ..Default::default() });
    instruction(turn, What::Train(wire::Train { model, ..Default::default() }))
}

fn trained(step: f32) -> Input {
    let mut update = vec![0.0; 128];
    update[..2].copy_from_slice(&[step, -0.3 * step]);
    Input::Trained(Trained::new(update, 4, Metrics::new()))
}

/// From the instruction to the upload.
fn encoded(participant: &mut Participant, turn: Turn, step: f32) {
    let mut actions = participant.handle(train(turn)).unwrap();
    if let [Action::Fetch(digest)] = actions[..] {
        let bytes = Codec::full(&model());
        actions = participant.handle(Input::Fetched { digest, bytes }).unwrap();
    }
    let Some(Action::Train(job)) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(*job.model, model());
    let actions = participant.handle(trained(step)).unwrap();
    assert_eq!(actions, [Action::Save, Action::Upload]);
}

const FIRST: Turn = Turn { round: 1, attempt: 1 };
const NEXT: Turn = Turn { round: 2, attempt: 1 };

#[test]
fn a_residual_counts_only_with_its_update() {
    let mut p = participant(Encoding::Ternary);
    encoded(&mut p, FIRST, 0.2);
    let left = p.kept().pending.as_ref().unwrap().residual.clone();
    assert!(left.iter().any(|x| *x != 0.0));
    // Not told yet: the same bytes again.
    p.handle(Input::Delivered).unwrap();
    assert_eq!(p.handle(train(FIRST)).unwrap(), [Action::Upload]);
    // The round was committed without it.
    let mut other = participant(Encoding::Ternary);
    other.kept = p.kept.clone();
    let wait = || instruction(NEXT, What::Wait(wire::Wait {}));
    assert_eq!(other.handle(wait()).unwrap(), [Action::Save, Action::Wait]);
    assert_eq!(*other.kept(), SavedState::default());
    // With it.
    let Input::Instruction(mut told) = wait() else { return };
    told.counted = Some(FIRST.into());
    assert_eq!(p.handle(Input::Instruction(told)).unwrap(), [Action::Save, Action::Wait]);
    assert_eq!(*p.kept(), SavedState { residual: left, ..SavedState::default() });
}

#[test]
fn an_optimizer_goes_on_only_from_counted_updates() {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
    plan.training.optimizer = tern_engine::Optimizer::adam();
    plan.training.keep_optimizer = true;
    let task = plan.task(RunId([1; 16])).unwrap();
    let start = |kept| Participant::new(&key(), task.clone(), &Device::cpu(), kept);
    let mut p = start(SavedState::default()).unwrap();
    let job = |p: &mut Participant, turn| {
        let mut actions = p.handle(train(turn)).unwrap();
        if let [.., Action::Fetch(digest)] = actions[..] {
            let bytes = Codec::full(&model());
            actions = p.handle(Input::Fetched { digest, bytes }).unwrap();
        }
        let Some(Action::Train(job)) = actions.pop() else { panic!("{actions:?}") };
        job
    };
    assert_eq!(*job(&mut p, FIRST).optimizer, OptimizerState::default());
    let Input::Trained(mut done) = trained(0.1) else { return };
    let reached = OptimizerState { steps: 3, moments: vec![0.5; 256] };
    done.optimizer = reached.clone();
    p.handle(Input::Trained(done.clone())).unwrap();
    // Stopped and started again before the server has said what became of it.
    let mut uncounted = start(p.kept().clone()).unwrap();
    assert_eq!(*job(&mut uncounted, NEXT).optimizer, OptimizerState::default());
    let Input::Instruction(mut told) = train(NEXT) else { return };
    told.counted = Some(FIRST.into());
    p.handle(Input::Instruction(told)).unwrap();
    assert_eq!(*start(p.kept().clone()).unwrap().kept().optimizer, reached);
    assert_eq!(*job(&mut p, NEXT).optimizer, reached);
    // One of another model is neither sent nor taken up.
    done.optimizer.moments.pop();
    let actions = p.handle(Input::Trained(done)).unwrap();
    assert!(matches!(actions[..], [Action::Send(_)]), "{actions:?}");
    let moments = vec![0.0; 100];
    let foreign = Arc::new(OptimizerState { steps: 3, moments });
    let error = start(SavedState { optimizer: foreign, ..SavedState::default() })
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("moments of the optimizer"), "{error}");
}

#[test]
fn tasks_that_make_no_sense_are_refused() {
    type Change = fn(&mut TaskSpec);
    let changes: [(&str, Change); 4] = [
        ("training.batch is 0", |task| task.training.batch = 0),
        ("training.learning_rate is -1", |task| task.training.learning_rate = -1.0),
        ("updates.bound is -1", |task| task.updates.bound = -1.0),
        ("updates.bound is NaN", |task| task.updates.bound = f32::NAN),
    ];
    for (name, change) in changes {
        let mut task = participant(Encoding::Full).task().clone();
        change(&mut task);
        let new = Participant::new(&key(), task, &Device::cpu(), SavedState::default());
        let error = new.err().unwrap().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn less_secure_runs_than_asked_for_are_refused() {
    let required = RequiredSecurity { corrupt: 0.2, ..RequiredSecurity::of(4) };
    let with = |change: fn(&mut RunPlan)| {
        let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
        // Seven, of whom one may drop out and two be corrupt: sums of four.
        (plan.cohort.size, plan.cohort.minimum) = (7, 4);
        plan.secure = Some(crate::plan::Secure::default());
        change(&mut plan);
        let task = plan.task(RunId([1; 16])).unwrap();
        let new = Participant::new(&key(), task, &Device::cpu(), SavedState::default()).unwrap();
        new.requiring(required).err().map(|error| error.to_string())
    };
    assert_eq!(with(|_| ()), None);
    let refused = |change, what: &str| {
        let error = with(change).unwrap();
        assert!(error.contains(what), "{error}");
    };
    refused(|plan| plan.secure = None, "secure aggregation of the run");
    // It isn't the roster that counts.
    refused(|plan| plan.cohort.size = 6, "a session of 6 clients, whose sums may be of 3");
    refused(|plan| plan.secure.as_mut().unwrap().corrupt = 0.1, "secure.corrupt");
    refused(|plan| plan.secure.as_mut().unwrap().security = 39, "secure.security");
    refused(|plan| plan.secure.as_mut().unwrap().limit = 16.5, "secure.limit");
    refused(|plan| plan.updates.max_samples = (1 << 20) + 1, "updates.max_samples");
}

/// What a client answers to the first instruction of a secure run that it was told nothing about.
fn untold(change: fn(&mut RunPlan)) -> Body {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
    (plan.cohort.size, plan.cohort.minimum) = (5, 4);
    plan.secure = Some(crate::plan::Secure::default());
    change(&mut plan);
    let task = plan.task(RunId([1; 16])).unwrap();
    let mut p = Participant::new(&key(), task, &Device::cpu(), SavedState::default()).unwrap();
    p.set_samples(4);
    let mut actions = p.handle(instruction(FIRST, What::Advertise(wire::Advertise {}))).unwrap();
    let Some(Action::Send(wire::Message { body: Some(body), .. })) = actions.pop() else {
        panic!("{actions:?}")
    };
    body
}

#[test]
fn sums_of_few_honest_clients_are_refused_by_a_client_that_was_told_nothing() {
    assert!(matches!(untold(|_| ()), Body::Keys(_)));
    let declined = |change, why: &str| {
        let Body::Declined(declined) = untold(change) else { panic!("{why}") };
        assert!(declined.reason.contains(why), "{}", declined.reason);
    };
    // One client of the server's own would be one more than was assumed.
    declined(|plan| plan.secure.as_mut().unwrap().corrupt = 0.0, "secure.corrupt");
    // Four, of whom one is corrupt and one may drop out: sums of two.
    declined(
        |plan| {
            (plan.cohort.size, plan.cohort.minimum) = (4, 3);
            let secure = plan.secure.as_mut().unwrap();
            (secure.dropout, secure.honest) = (0.25, 2);
        },
        "a session of 4 clients, whose sums may be of 2",
    );
}

#[test]
fn sessions_of_fewer_clients_than_asked_for_are_not_joined() {
    use tern_secagg::{Advertisement, Message, server};
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
    (plan.cohort.size, plan.cohort.minimum) = (5, 3);
    plan.secure = Some(crate::plan::Secure { corrupt: 0.0, ..Default::default() });
    let run = RunId([1; 16]);
    let task = plan.task(run).unwrap();
    let masking = plan.masking(&plan.check().unwrap()).unwrap().unwrap();
    let required = RequiredSecurity { corrupt: 0.0, ..RequiredSecurity::of(4) };
    for (members, joined) in [(3, false), (4, true)] {
        let session = masking.session(&run, &Task::from(task.clone()).digest(), FIRST);
        let mut server = server::Advertising::new(session);
        let mut participants: Vec<Participant> = (0..members)
            .map(|number| {
                let key = SigningKey::from_bytes(&[number; 32]);
                let new =
                    Participant::new(&key, task.clone(), &Device::cpu(), SavedState::default());
                new.unwrap().requiring(required).unwrap()
            })
            .collect();
        for p in &mut participants {
            p.set_samples(4);
            let asked = instruction(FIRST, What::Advertise(wire::Advertise {}));
            let mut actions = p.handle(asked).unwrap();
            let Some(Action::Send(wire::Message { body: Some(Body::Keys(keys)), .. })) =
                actions.pop()
            else {
                panic!("{actions:?}")
            };
            server.advertise(Advertisement::decode(&keys.advertisement).unwrap()).unwrap();
        }
        let (_, roster) = server.close().unwrap();
        let asked = What::ShareKeys(wire::ShareKeys { roster: roster.encode() });
        let actions = participants[0].handle(instruction(FIRST, asked)).unwrap();
        let [Action::Send(wire::Message { body: Some(body), .. })] = &actions[..] else {
            panic!("{actions:?}")
        };
        match body {
            Body::Shares(_) => assert!(joined),
            Body::Declined(declined) => {
                assert!(!joined && declined.reason.contains("a session of 3 clients"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_refused_evaluation_costs_no_update() {
    let mut p = participant(Encoding::Ternary);
    encoded(&mut p, FIRST, 0.2);
    let digest = Digest::of(&Codec::full(&model())).0.to_vec();
    let model = Some(wire::Model { digest, ..Default::default() });
    let asked = instruction(FIRST, What::Evaluate(wire::Evaluate { model }));
    let actions = p.handle(asked).unwrap();
    assert!(matches!(actions[..], [Action::Evaluate(_)]), "{actions:?}");
    let evaluated = Input::Evaluated { samples: 4, metrics: Metrics::new() };
    assert!(matches!(p.handle(evaluated).unwrap()[..], [Action::Send(_)]));
    // It would be refused again.
    let refused = p.handle(Input::Refused("samples".into())).unwrap();
    assert_eq!(refused, [decline(FIRST, "samples")]);
    assert!(p.kept().pending.is_some());
}

#[test]
fn what_diverged_is_declined_with_a_word() {
    let mut p = participant(Encoding::Full);
    let digest = Digest::of(&Codec::full(&model())).0.to_vec();
    encoded(&mut p, FIRST, 0.2);
    for value in [f64::NAN, f64::INFINITY, 1e13] {
        let metrics = Metrics::from([("loss".to_string(), value)]);
        let asked = Some(wire::Model { digest: digest.clone(), ..Default::default() });
        p.handle(instruction(FIRST, What::Evaluate(wire::Evaluate { model: asked }))).unwrap();
        let evaluated = Input::Evaluated { samples: 4, metrics: metrics.clone() };
        let reason = "metrics: a number that isn't within ±1e12";
        assert_eq!(p.handle(evaluated).unwrap(), [decline(FIRST, reason)], "{value}");

        let mut p = participant(Encoding::Full);
        let actions = p.handle(train(FIRST)).unwrap();
        let [Action::Fetch(digest)] = actions[..] else { panic!("{actions:?}") };
        p.handle(Input::Fetched { digest, bytes: Codec::full(&model()) }).unwrap();
        let Input::Trained(mut diverged) = trained(0.1) else { return };
        diverged.metrics = metrics;
        assert_eq!(p.handle(Input::Trained(diverged)).unwrap(), [decline(FIRST, reason)]);
        assert!(p.kept().pending.is_none());
    }
}

#[test]
fn what_the_plan_does_not_name_is_not_sent() {
    let measured: Metrics =
        ["loss", "accuracy", "speed"].into_iter().map(|name| (name.to_string(), 0.5)).collect();
    let mut p = participant(Encoding::Full);
    let actions = p.handle(train(FIRST)).unwrap();
    let [Action::Fetch(digest)] = actions[..] else { panic!("{actions:?}") };
    p.handle(Input::Fetched { digest, bytes: Codec::full(&model()) }).unwrap();
    let Input::Trained(mut trained) = trained(0.1) else { return };
    trained.metrics = measured.clone();
    assert_eq!(p.handle(Input::Trained(trained)).unwrap(), [Action::Save, Action::Upload]);
    let sent = &p.kept().pending.as_ref().unwrap().metrics;
    assert_eq!(sent.keys().collect::<Vec<_>>(), ["accuracy", "loss"]);
    let message = evaluated(FIRST, 4, measured, &p.task().metrics);
    let Some(Body::Evaluated(wire::Evaluated { metrics, .. })) = message.body else { panic!() };
    assert_eq!(metrics.keys().collect::<Vec<_>>(), ["accuracy", "loss"]);
}

#[test]
fn the_end_of_the_run_settles_the_last_update() {
    for counted in [None, Some(FIRST)] {
        let mut p = participant(Encoding::Ternary);
        encoded(&mut p, FIRST, 0.2);
        let finished = wire::Finished { model: vec![7; 32] };
        let Input::Instruction(mut told) = instruction(FIRST, What::Finished(finished)) else {
            return;
        };
        told.counted = counted.map(wire::Turn::from);
        let actions = p.handle(Input::Instruction(told)).unwrap();
        assert_eq!(actions, [Action::Save, Action::Stop(Digest([7; 32]))]);
        assert_eq!(p.kept().residual.is_empty(), counted.is_none());
    }
}

#[test]
fn models_must_be_what_was_announced() {
    let mut p = participant(Encoding::Full);
    let actions = p.handle(train(FIRST)).unwrap();
    let [Action::Fetch(digest)] = actions[..] else { panic!("{actions:?}") };
    let bytes = Codec::full(&[0.0; 128]);
    assert_eq!(p.handle(Input::Fetched { digest, bytes }).unwrap(), [Action::Wait]);
    // What nobody asked for is ignored.
    let bytes = Codec::full(&model());
    assert_eq!(p.handle(Input::Fetched { digest, bytes }).unwrap(), [Action::Wait]);
    encoded(&mut p, FIRST, 0.1);
    // It is here now.
    let actions = p.handle(train(NEXT)).unwrap();
    assert!(matches!(actions[..], [Action::Save, Action::Train(_)]), "{actions:?}");
}

#[test]
fn updates_that_would_be_refused_are_not_sent() {
    let mut p = participant(Encoding::Full);
    encoded(&mut p, FIRST, 0.1);
    p.handle(train(NEXT)).unwrap();
    let actions = p.handle(trained(f32::NAN)).unwrap();
    let [Action::Send(wire::Message { body: Some(Body::Declined(_)), .. })] = &actions[..] else {
        panic!("{actions:?}")
    };
    // Large steps are clipped to the bound.
    p.handle(train(NEXT)).unwrap();
    p.handle(trained(1e6)).unwrap();
    let bound = p.task().updates.bound;
    let body = &p.kept().pending.as_ref().unwrap().body;
    let values = Format::new(Kind::Full, &p.layout, bound).decode(body).unwrap();
    assert_eq!(values[..2], [bound, -bound]);
    // A body that the server refuses for good is not sent again.
    assert_eq!(p.handle(Input::Refused("late".into())).unwrap(), [Action::Wait]);
    let actions = p.handle(Input::Refused("number".into())).unwrap();
    assert!(matches!(actions[..], [Action::Save, Action::Send(_)]), "{actions:?}");
    assert_eq!(p.kept().pending, None);
}

#[test]
fn an_update_counts_for_no_more_samples_than_the_server_says() {
    for (told, has, counts) in [(0, 10, 10), (7, 10, 7), (7, 3, 3), (u32::MAX, 10, 10)] {
        let mut p = participant(Encoding::Full);
        let digest = Digest::of(&Codec::full(&model())).0.to_vec();
        let asked = Some(wire::Model { digest, ..Default::default() });
        let asked = wire::Train { model: asked, max_samples: told, ..Default::default() };
        let actions = p.handle(instruction(FIRST, What::Train(asked))).unwrap();
        let [Action::Fetch(digest)] = actions[..] else { panic!("{actions:?}") };
        p.handle(Input::Fetched { digest, bytes: Codec::full(&model()) }).unwrap();
        let metrics = Metrics::from([("loss".to_string(), 0.5)]);
        p.handle(Input::Trained(Trained::new(vec![0.25; 128], has, metrics.clone()))).unwrap();
        let pending = p.kept().pending.clone().unwrap();
        assert_eq!(pending.samples, counts, "{told} {has}");
        let digest = Digest::of(&pending.body).0.to_vec();
        let (round, attempt, samples) = (1, 1, counts);
        let finish =
            wire::Finish { round, attempt, digest, samples, metrics, ..Default::default() };
        assert_eq!(pending.finish(), finish);
    }
}

#[test]
fn what_a_run_promises_is_what_its_task_says() {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
    let promised = |plan: &RunPlan| RequiredSecurity::promised(&plan.task(RunId([1; 16])).unwrap());
    assert_eq!(promised(&plan), None);
    let (corrupt, security, limit, honest) = (0.15, 50, 2.0, 4);
    plan.updates.max_samples = 1_000;
    plan.cohort.minimum = 8;
    plan.secure =
        Some(crate::plan::Secure { corrupt, security, limit, honest, ..Default::default() });
    let expected = RequiredSecurity {
        clients: honest,
        corrupt,
        security,
        share: 1.0,
        max_samples: 1_000,
        limit,
        difference: 0,
    };
    assert_eq!(promised(&plan), Some(expected));
}
