mod again;
mod dealer;
mod ended;
mod forgotten;
mod liar;
mod liars;
mod secure;
mod steps;

use super::*;
use crate::Salt;
use crate::layout::ModelKind;
use crate::metrics::Metrics;
use crate::plan::Scores;
use tern_engine::nn::ModelSpec;

const RUN: RunId = RunId([5; 16]);
const SALT: Salt = Salt([6; 32]);

fn coordinator(change: impl FnOnce(&mut RunPlan)) -> Coordinator {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 2);
    plan.cohort.size = 2;
    plan.cohort.minimum = 1;
    change(&mut plan);
    Coordinator::new(plan, RUN, Head::initial(Digest([0; 32]), Vec::new())).unwrap()
}

fn id(number: u8) -> ClientId {
    ClientId([number; 32])
}

fn start(clients: u8) -> Event {
    let online = (1..=clients).map(|n| Candidate { client: id(n), samples: 5 });
    Event::Start { online: online.collect(), salt: SALT }
}

fn uploaded(client: u8, turn: Turn) -> Event {
    claimed(client, turn, 5, f64::from(client))
}

/// An update with what its client says of it.
fn claimed(client: u8, turn: Turn, samples: u32, loss: f64) -> Event {
    let metrics = Metrics::from([("loss".to_string(), loss)]);
    let digest = Digest([client; 32]);
    let upload = Upload { digest, bytes: 8, samples, metrics, included: Vec::new() };
    Event::Uploaded { client: id(client), turn, upload }
}

fn head(number: u8) -> Event {
    Event::Aggregated(Head::initial(Digest([number; 32]), Vec::new()))
}

fn declined(client: u8, turn: Turn) -> Event {
    let body = Some(wire::message::Body::Declined(wire::Declined::default()));
    let message = wire::Message { round: turn.round, attempt: turn.attempt, body };
    Event::Message { client: id(client), message }
}

const FIRST: Turn = Turn { round: 1, attempt: 1 };

#[test]
fn a_round_goes_from_phase_to_phase() {
    let mut c = coordinator(|plan| plan.evaluation.scores = Scores::Clients);
    assert!(c.wants_cohort());
    assert!(c.handle(Millis(10), start(2)).unwrap().is_empty());
    assert!(matches!(c.instruction(&id(1)).what, Some(What::Train(_))));
    assert!(matches!(c.instruction(&id(3)).what, Some(What::Wait(_))));
    let effects = c.handle(Millis(20), uploaded(1, FIRST)).unwrap();
    assert_eq!(effects, [Effect::Add { client: id(1), weight: 5 }]);
    assert!(matches!(c.instruction(&id(1)).what, Some(What::Wait(_))));
    let effects = c.handle(Millis(30), uploaded(2, FIRST)).unwrap();
    assert_eq!(effects[1], Effect::Aggregate);
    assert!(c.combining());
    let effects = c.handle(Millis(40), head(7)).unwrap();
    let [Effect::Committed(record)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(record.training["loss"], 1.5);
    assert_eq!(record.score, Some(Score { value: 1.5, best: true }));
    assert_eq!(c.turn(), Turn::new(2, 1));
    assert_eq!(c.instruction(&id(1)).counted.map(Turn::from), Some(FIRST));
    // And again, to the end.
    let second = Turn::new(2, 1);
    c.handle(Millis(50), start(2)).unwrap();
    c.handle(Millis(50), uploaded(2, second)).unwrap();
    c.handle(Millis(50), declined(1, second)).unwrap();
    let effects = c.handle(Millis(60), head(8)).unwrap();
    assert_eq!(effects[1], Effect::Finished);
    // The second round's loss was worse.
    let Some(What::Finished(finished)) = c.instruction(&id(1)).what else { panic!("not over") };
    assert_eq!(finished.model, [7; 32]);
    assert_eq!(c.handle(Millis(70), Event::Tick), Err(Refusal::Finished));
}

#[test]
fn a_deadline_closes_with_what_is_there_or_repeats() {
    let mut c = coordinator(|plan| plan.cohort.deadline_ms = 100);
    c.handle(Millis(10), start(2)).unwrap();
    assert_eq!(c.deadline(), Some(Millis(110)));
    assert_eq!(c.handle(Millis(109), Event::Tick), Err(Refusal::NotDue));
    let effects = c.handle(Millis(110), Event::Tick).unwrap();
    let [Effect::Failed(failed)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((failed.turn, failed.phase), (FIRST, "collect"));
    assert_eq!(failed.members, [1, 2].map(|number| (id(number), Progress::Asked)));
    let reason = "0 answered, 0 declined and 2 were silent, expected at least 1 answers";
    assert_eq!(failed.reason, reason);
    let again = Turn::new(1, 2);
    assert_eq!(c.turn(), again);
    c.handle(Millis(120), start(2)).unwrap();
    let late = c.handle(Millis(125), uploaded(1, FIRST)).unwrap_err();
    assert_eq!(late, Refusal::Late { given: FIRST, open: again });
    c.handle(Millis(130), uploaded(1, again)).unwrap();
    // The clock doesn't go back.
    assert_eq!(c.handle(Millis(5), Event::Tick), Err(Refusal::NotDue));
    assert_eq!(c.now(), Millis(130));
    assert_eq!(c.handle(Millis(220), Event::Tick).unwrap(), [Effect::Aggregate]);
}

#[test]
fn the_last_answer_of_an_attempt_that_fails_is_not_added() {
    let mut c = coordinator(|plan| plan.cohort.minimum = 2);
    c.handle(Millis(1), start(2)).unwrap();
    c.handle(Millis(1), declined(1, FIRST)).unwrap();
    // By now the open attempt is another one, which has no such update.
    let effects = c.handle(Millis(2), uploaded(2, FIRST)).unwrap();
    let [Effect::Failed(failed)] = &effects[..] else { panic!("{effects:?}") };
    let members = [(id(1), Progress::Declined), (id(2), Progress::Answered)];
    assert_eq!(failed.members, members);
    assert_eq!(c.turn(), Turn::new(1, 2));
}

#[test]
fn refused_events_change_nothing() {
    let mut c = coordinator(|plan| plan.cohort.minimum = 2);
    let refused = |c: &mut Coordinator, event, name| {
        let before = c.clone();
        assert_eq!(c.handle(Millis(99), event).unwrap_err().name(), name);
        assert_eq!(format!("{c:?}"), format!("{before:?}"));
    };
    refused(&mut c, start(1), "too_few");
    refused(&mut c, uploaded(1, FIRST), "unexpected");
    refused(&mut c, head(1), "unexpected");
    let online = [id(2), id(1)].map(|client| Candidate { client, samples: 1 });
    refused(&mut c, Event::Start { online: online.to_vec(), salt: SALT }, "malformed");
    c.handle(Millis(1), start(2)).unwrap();
    refused(&mut c, start(2), "unexpected");
    refused(&mut c, uploaded(3, FIRST), "not_selected");
    refused(&mut c, uploaded(1, Turn::new(1, 2)), "early");
    refused(&mut c, declined(3, FIRST), "not_selected");
    c.handle(Millis(1), uploaded(1, FIRST)).unwrap();
    refused(&mut c, uploaded(1, FIRST), "repeated");
    refused(&mut c, declined(1, FIRST), "conflict");
    let Event::Uploaded { client, turn, mut upload } = uploaded(1, FIRST) else { return };
    upload.digest = Digest([9; 32]);
    refused(&mut c, Event::Uploaded { client, turn, upload }, "conflict");
    let message = wire::Message { round: 1, attempt: 1, body: None };
    refused(&mut c, Event::Message { client: id(1), message }, "malformed");
}

#[test]
fn clients_evaluate_before_the_round_is_committed() {
    let mut c = coordinator(|plan| {
        (plan.evaluation.on_clients, plan.evaluation.scores) = (true, Scores::Clients);
    });
    c.handle(Millis(1), start(2)).unwrap();
    c.handle(Millis(1), uploaded(1, FIRST)).unwrap();
    c.handle(Millis(1), uploaded(2, FIRST)).unwrap();
    assert!(c.handle(Millis(2), head(7)).unwrap().is_empty());
    let Some(What::Evaluate(evaluate)) = c.instruction(&id(1)).what else { panic!("no task") };
    assert_eq!(evaluate.model.unwrap().digest, [7; 32]);
    let evaluated = |samples, loss| {
        let metrics = Metrics::from([("loss".to_string(), loss)]);
        let body = Some(wire::message::Body::Evaluated(wire::Evaluated { samples, metrics }));
        wire::Message { round: 1, attempt: 1, body }
    };
    let message = evaluated(1, 4.0);
    c.handle(Millis(3), Event::Message { client: id(1), message }).unwrap();
    assert!(matches!(c.instruction(&id(1)).what, Some(What::Wait(_))));
    let message = evaluated(3, 0.0);
    let effects = c.handle(Millis(3), Event::Message { client: id(2), message }).unwrap();
    let [Effect::Committed(record)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(record.evaluation["loss"], 1.0);
    // The one who has more samples, as it says, doesn't count for more.
    assert_eq!(record.score.unwrap().value, 2.0);
}

#[test]
fn a_client_without_samples_evaluates_only() {
    let mut c = coordinator(|plan| plan.evaluation.on_clients = true);
    let samples = [(1, 5), (2, 0), (3, 5)];
    let online = samples.map(|(n, samples)| Candidate { client: id(n), samples }).to_vec();
    c.handle(Millis(1), Event::Start { online, salt: SALT }).unwrap();
    assert!(matches!(c.instruction(&id(2)).what, Some(What::Wait(_))));
    c.handle(Millis(1), uploaded(1, FIRST)).unwrap();
    c.handle(Millis(1), uploaded(3, FIRST)).unwrap();
    c.handle(Millis(2), head(7)).unwrap();
    assert!(matches!(c.instruction(&id(2)).what, Some(What::Evaluate(_))));
    for declining in [1, 3] {
        assert!(c.handle(Millis(3), declined(declining, FIRST)).unwrap().is_empty());
    }
    let metrics = Metrics::from([("loss".to_string(), 0.25)]);
    let body = Some(wire::message::Body::Evaluated(wire::Evaluated { samples: 9, metrics }));
    let message = wire::Message { round: 1, attempt: 1, body };
    let effects = c.handle(Millis(4), Event::Message { client: id(2), message }).unwrap();
    let [Effect::Committed(record)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((record.evaluation["loss"], record.uploads.len()), (0.25, 2));
}

#[test]
fn a_client_that_evaluates_not_is_not_waited_for() {
    let mut c = coordinator(|plan| plan.evaluation.on_clients = true);
    c.handle(Millis(1), start(2)).unwrap();
    c.handle(Millis(1), uploaded(1, FIRST)).unwrap();
    c.handle(Millis(1), uploaded(2, FIRST)).unwrap();
    c.handle(Millis(2), head(7)).unwrap();
    assert!(c.handle(Millis(3), declined(1, FIRST)).unwrap().is_empty());
    assert!(matches!(c.instruction(&id(1)).what, Some(What::Wait(_))), "asked again");
    assert_eq!(c.cohort(), [(id(1), Progress::Declined), (id(2), Progress::Asked)]);
    let evaluated = |samples, loss| {
        let metrics = Metrics::from([("loss".to_string(), loss)]);
        let body = Some(wire::message::Body::Evaluated(wire::Evaluated { samples, metrics }));
        Event::Message { client: id(2), message: wire::Message { round: 1, attempt: 1, body } }
    };
    for (event, name) in [
        (declined(1, FIRST), "repeated"),
        (declined(3, FIRST), "not_selected"),
        (evaluated(1, 1e13), "metrics"),
        (evaluated(1, f64::NAN), "metrics"),
    ] {
        assert_eq!(c.handle(Millis(3), event).unwrap_err().name(), name);
    }
    let effects = c.handle(Millis(4), evaluated(1, -1e12)).unwrap();
    let [Effect::Committed(record)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(record.evaluation["loss"], -1e12);
}

#[test]
fn a_round_keeps_no_more_metrics_than_the_plan_names() {
    let mut c = coordinator(|plan| {
        plan.evaluation.on_clients = true;
        plan.evaluation.metrics = ["loss", "f1"].map(String::from).into();
    });
    c.handle(Millis(1), start(2)).unwrap();
    // As many new names a round as clients care to invent.
    let named = |names: &[String]| names.iter().map(|name| (name.clone(), 0.5)).collect();
    let invented: Vec<String> = (0..31).map(|number| format!("metric {number}")).collect();
    let allowed = ["loss", "f1"].map(String::from);
    let digest = Digest([1; 32]);
    let upload = |client, metrics| {
        let upload = Upload { digest, bytes: 8, samples: 5, metrics, included: Vec::new() };
        Event::Uploaded { client: id(client), turn: FIRST, upload }
    };
    let refused = c.handle(Millis(2), upload(1, named(&invented))).unwrap_err();
    assert_eq!(refused.name(), "metrics");
    assert!(refused.to_string().contains("\"metric 0\", expected one"), "{refused}");
    let long = c.handle(Millis(2), upload(1, named(&["x".repeat(1 << 20)]))).unwrap_err();
    assert!(long.to_string().len() < 200, "{}", long.to_string().len());
    for client in [1, 2] {
        c.handle(Millis(2), upload(client, named(&allowed))).unwrap();
    }
    // The server's own evaluation is bounded, too.
    let mut head = Head::initial(Digest([7; 32]), Vec::new());
    head.metrics = named(&[&invented[..], &allowed[..1]].concat());
    c.handle(Millis(3), Event::Aggregated(head)).unwrap();
    let evaluated = |client, metrics| {
        let body = wire::message::Body::Evaluated(wire::Evaluated { samples: 5, metrics });
        let message = wire::Message { round: 1, attempt: 1, body: Some(body) };
        Event::Message { client: id(client), message }
    };
    let refused = c.handle(Millis(4), evaluated(1, named(&invented))).unwrap_err();
    assert_eq!(refused.name(), "metrics");
    c.handle(Millis(4), evaluated(1, named(&allowed))).unwrap();
    let effects = c.handle(Millis(4), evaluated(2, Metrics::new())).unwrap();
    let [Effect::Committed(record), ..] = &effects[..] else { panic!("{effects:?}") };
    let kept = [&record.training, &record.evaluation, &record.head.metrics];
    assert!(kept.iter().flat_map(|metrics| metrics.keys()).all(|name| allowed.contains(name)));
    assert_eq!(kept.map(Metrics::len), [2, 2, 1]);
}

#[test]
fn a_snapshot_is_the_state_between_rounds() {
    let mut c = coordinator(|_| ());
    let same = |c: &Coordinator| {
        let restored = Coordinator::restore(c.plan().clone(), RUN, &c.snapshot()).unwrap();
        assert_eq!(format!("{restored:?}"), format!("{c:?}"));
    };
    same(&c);
    c.handle(Millis(1), start(1)).unwrap();
    c.handle(Millis(1), uploaded(1, FIRST)).unwrap();
    c.handle(Millis(2), head(7)).unwrap();
    same(&c);
    let plan = c.plan().clone();
    assert!(Coordinator::restore(plan.clone(), RUN, b"no snapshot").is_err());
    assert!(Coordinator::restore(plan, RUN, &[]).is_err());
}

#[test]
fn events_survive_the_journal() {
    let made = |number: u8| Some(Digest([number; 32]));
    let whole = Head {
        difference: made(4),
        state: made(5),
        ..Head::initial(Digest([3; 32]), vec![0.5, 2.0])
    };
    let told = [start(3), Event::Tick, declined(1, FIRST), uploaded(2, FIRST), head(3)];
    for event in told.into_iter().chain([Event::Aggregated(whole)]) {
        let journaled = event.to_wire(5);
        assert_eq!(journaled.now, 5);
        assert_eq!(Event::from_wire(journaled).unwrap(), event);
    }
    assert!(Event::from_wire(wire::Journaled::default()).is_err());
}

#[test]
fn who_claims_many_samples_counts_for_few_more_than_others() {
    let mut c = coordinator(|plan| plan.cohort.size = 5);
    let samples = [(1, 8), (2, 10), (3, 12), (4, 10), (5, 1 << 20)];
    let online = samples.map(|(n, samples)| Candidate { client: id(n), samples });
    c.handle(Millis(10), Event::Start { online: online.to_vec(), salt: SALT }).unwrap();
    // Sixteen times the median.
    assert_eq!(c.max_samples(), Some(160));
    let Some(What::Train(train)) = c.instruction(&id(5)).what else { panic!("not asked") };
    assert_eq!(train.max_samples, 160);
    let refusal = c.handle(Millis(20), claimed(5, FIRST, 1 << 20, 0.0)).unwrap_err();
    assert_eq!(refusal, Refusal::Samples { given: 1 << 20, most: 160 });
    let effects = c.handle(Millis(20), claimed(5, FIRST, 160, 0.0)).unwrap();
    assert_eq!(effects, [Effect::Add { client: id(5), weight: 160 }]);

    // A cohort of two has the smaller one's multiple, whoever lies.
    let mut c = coordinator(|_| ());
    let online =
        samples[3..].iter().map(|(n, samples)| Candidate { client: id(*n), samples: *samples });
    c.handle(Millis(10), Event::Start { online: online.collect(), salt: SALT }).unwrap();
    assert_eq!(c.max_samples(), Some(160));
}

/// Rounds whose losses are these clients', in order; the rounds' scores.
fn scored(scores: Scores, rounds: &[[f64; 5]]) -> (Coordinator, Vec<Option<Score>>) {
    let mut c = coordinator(|plan| {
        (plan.cohort.size, plan.rounds) = (5, 20);
        (plan.evaluation.scores, plan.evaluation.patience) = (scores, Some(2));
    });
    let mut found = Vec::new();
    for losses in rounds {
        let turn = c.turn();
        c.handle(Millis(10), start(5)).unwrap();
        for (loss, client) in losses.iter().zip(1..) {
            c.handle(Millis(10), claimed(client, turn, 5, *loss)).unwrap();
        }
        let effects = c.handle(Millis(10), head(turn.round as u8)).unwrap();
        let Effect::Committed(record) = &effects[0] else { panic!("{effects:?}") };
        found.push(record.score);
    }
    (c, found)
}

#[test]
fn a_client_that_lies_about_its_loss_neither_freezes_the_best_nor_ends_the_run() {
    let rounds: Vec<[f64; 5]> = (0..5)
        .map(|round| {
            let loss = 1.0 / f64::from(round + 1);
            [loss, loss + 0.1, if round == 0 { -1e12 } else { 1e12 }, loss + 0.2, loss + 0.3]
        })
        .collect();
    let (c, scores) = scored(Scores::Clients, &rounds);
    assert!(!c.finished());
    assert_eq!(c.best().map(|best| best.round), Some(5));
    assert!(scores.iter().all(|score| score.is_some_and(|score| score.best)), "{scores:?}");
    // Without the plan's word for it, clients' losses are no scores at all.
    let (c, scores) = scored(Scores::Server, &rounds);
    assert!(!c.finished() && scores.iter().all(Option::is_none));
}

#[test]
fn a_run_goes_on_after_rounds_of_which_only_the_model_is_known() {
    let after = |rounds| coordinator(|plan| plan.rounds = 4).after(rounds);
    for rounds in 0..=3 {
        let c = after(rounds);
        assert!(c.wants_cohort() && !c.finished());
        assert_eq!(c.turn(), Turn::new(rounds + 1, 1));
    }
    for rounds in [4, 5] {
        assert!(after(rounds).finished() && after(rounds).turn() == Turn::new(rounds, 1));
    }
}

#[test]
fn an_upload_that_comes_after_the_others_closed_the_round_is_told_why_not() {
    let mut c = coordinator(|plan| plan.cohort.size = 1);
    c.handle(Millis(1), start(1)).unwrap();
    c.handle(Millis(2), uploaded(1, FIRST)).unwrap();
    assert!(c.combining());
    let Event::Uploaded { upload, .. } = uploaded(1, FIRST) else { return };
    let told = |client, upload| c.check_upload(&id(client), FIRST, upload).unwrap_err().name();
    assert_eq!(told(1, Some(&upload)), "repeated");
    assert_eq!(told(1, None), "repeated");
    let other = Upload { bytes: 9, ..upload.clone() };
    assert_eq!(told(1, Some(&other)), "conflict");
    assert_eq!((told(2, Some(&upload)), told(2, None)), ("unexpected", "unexpected"));
}

#[test]
fn what_a_round_goes_on_from_is_kept_and_nothing_else() {
    let mut c = coordinator(|plan| {
        plan.cohort.size = 1;
        plan.evaluation.on_clients = true;
    });
    assert_eq!(c.kept(), [Digest([0; 32])]);
    c.handle(Millis(1), start(1)).unwrap();
    c.handle(Millis(2), uploaded(1, FIRST)).unwrap();
    let made = |number: u8| Digest([number; 32]);
    let head = Head {
        public: made(2),
        difference: Some(made(3)),
        state: Some(made(4)),
        ..Head::initial(made(1), Vec::new())
    };
    // While it is evaluated the round may still fail: both are.
    c.handle(Millis(3), Event::Aggregated(head)).unwrap();
    assert_eq!(c.kept(), [0, 1, 2, 3, 4].map(made));
    let late = c.deadline().unwrap();
    c.handle(late, Event::Tick).unwrap();
    assert_eq!(c.kept(), [1, 2, 3, 4].map(made));
}

/// One by one or all at once: the same state, also when more come than close the attempt.
#[test]
fn uploads_taken_elsewhere_come_all_at_once() {
    let taken = |numbers: &[u8]| {
        let upload = |number: &u8| match uploaded(*number, FIRST) {
            Event::Uploaded { client, upload, .. } => (client, upload),
            _ => unreachable!(),
        };
        Event::Collected { turn: FIRST, uploads: numbers.iter().map(upload).collect() }
    };
    let open = || {
        let mut c = coordinator(|plan| {
            (plan.cohort.size, plan.cohort.over_selection) = (2, 2.0);
        });
        c.handle(Millis(1), start(4)).unwrap();
        c
    };
    let mut c = open();
    assert_eq!(c.awaited(), Some(2));
    c.handle(Millis(2), declined(4, FIRST)).unwrap();
    let effects = c.handle(Millis(3), taken(&[1])).unwrap();
    assert_eq!((effects, c.awaited()), (vec![Effect::Add { client: id(1), weight: 5 }], Some(1)));
    // None of a batch is taken that has one of somebody who declined, or out of order, or twice.
    let before = c.clone();
    let wrongs = [
        (&[2, 4][..], "conflict"),
        (&[3, 2], "malformed"),
        (&[2, 2], "malformed"),
        (&[1], "repeated"),
    ];
    for (wrong, name) in wrongs {
        assert_eq!(c.handle(Millis(4), taken(wrong)).unwrap_err().name(), name);
        assert_eq!((c.awaited(), c.accepted().count()), (before.awaited(), 1));
    }
    let effects = c.handle(Millis(4), taken(&[2, 3])).unwrap();
    assert_eq!(effects.last(), Some(&Effect::Aggregate));
    // Three, though two are enough.
    assert_eq!((c.accepted().count(), c.awaited(), c.phase()), (3, None, "combine"));
    let late = c.handle(Millis(5), taken(&[4])).unwrap_err();
    assert_eq!(late.name(), "unexpected");
    // As it comes back from a journal.
    let event = taken(&[1, 3]);
    let mut journaled = event.to_wire(7);
    assert_eq!(Event::from_wire(journaled.clone()).unwrap(), event);
    // Not with one of another attempt.
    let Some(wire::journaled::Event::Collected(collected)) = &mut journaled.event else {
        panic!("{journaled:?}")
    };
    collected.uploads[1].finish.as_mut().unwrap().attempt += 1;
    assert_eq!(Event::from_wire(journaled), Err(Refusal::Malformed("uploads")));
    // Nothing is added to a sum that there won't be.
    let mut c = coordinator(|plan| plan.cohort.minimum = 2);
    c.handle(Millis(1), start(2)).unwrap();
    c.handle(Millis(1), declined(1, FIRST)).unwrap();
    let effects = c.handle(Millis(2), taken(&[2])).unwrap();
    assert!(matches!(effects[..], [Effect::Failed(_)]), "{effects:?}");
    // Fewer than close it leave it open, and the deadline closes it.
    let mut c = open();
    c.handle(Millis(2), taken(&[3])).unwrap();
    let deadline = c.deadline().unwrap();
    c.handle(deadline, Event::Tick).unwrap();
    assert_eq!((c.accepted().count(), c.phase()), (1, "combine"));
}
