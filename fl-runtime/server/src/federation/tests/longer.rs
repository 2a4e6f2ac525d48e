//! When runs are over, and what more rounds do then.

use super::*;
use tern_protocol::update::Scales;

#[test]
fn a_run_that_is_over_takes_more_rounds() {
    type Change = fn(&mut RunPlan);
    let changes: [(&str, Change); 5] = [
        ("full", |_| ()),
        ("ternary", |p| p.updates.uplink = Encoding::Ternary),
        ("adam", |p| {
            p.updates.downlink = Encoding::Ternary;
            p.strategy =
                StrategySpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        }),
        ("secure", |p| p.secure = Some(Secure::default())),
        ("secure, ternary", |p| {
            p.updates.uplink = Encoding::Ternary;
            p.cohort.selection = Selection::BySamples;
            p.secure = Some(Secure::default());
        }),
    ];
    for (name, change) in changes {
        let mut plan = plan();
        (plan.rounds, plan.cohort.size, plan.cohort.over_selection) = (6, 4, 1.0);
        plan.cohort.minimum = 4;
        change(&mut plan);
        let made = |federation: &Federation| -> Vec<_> {
            let rounds = federation.rounds(0).unwrap().into_iter();
            rounds.map(|round| (round.round, round.model, round.public, round.training)).collect()
        };
        let folder = tempfile::tempdir().unwrap();
        let expected = made(&run(folder.path(), &plan, 4, |_, _| ()));
        assert_eq!(expected.len(), 6);

        let folder = tempfile::tempdir().unwrap();
        let open = |rounds: u32| {
            let mut plan = plan.clone();
            plan.rounds = rounds;
            Federation::open(folder.path(), &plan, &initial(&plan), options())
        };
        let mut federation = open(3).unwrap();
        let mut members: Vec<Member> =
            (1..=4).map(|number| Member::new(&mut federation, number)).collect();
        go_on(&mut federation, &mut members, |_, _| ());
        assert_eq!(made(&federation), expected[..3], "{name}");
        // The clients are those of before, with the task that they were told then.
        drop(federation);
        let mut federation = open(6).unwrap();
        assert!(!federation.status().finished);
        go_on(&mut federation, &mut members, |_, _| ());
        assert_eq!(made(&federation), expected, "{name}");
        // Not fewer again, and as it is.
        drop(federation);
        let error = open(3).err().unwrap().to_string();
        assert!(error.contains("rounds: 6 and 3"), "{error}");
        assert!(open(6).unwrap().status().finished);
    }
}

#[test]
fn more_rounds_are_no_reason_to_go_on_without_a_better_model() {
    struct Worse;
    impl Evaluator for Worse {
        fn evaluate(&self, round: u32, _: &[f32]) -> Result<Metrics> {
            Ok(Metrics::from([("loss".to_string(), f64::from(round))]))
        }
    }
    let mut plan = plan();
    (plan.rounds, plan.evaluation.patience) = (20, Some(2));
    let folder = tempfile::tempdir().unwrap();
    let federation = evaluated(folder.path(), &plan, Arc::new(Worse));
    assert_eq!(federation.rounds(0).unwrap().len(), 3);
    drop(federation);
    plan.rounds = 40;
    let again = Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    assert!(again.status().finished);
}

#[test]
fn the_best_model_is_kept_and_patience_ends_the_run() {
    struct Worse;
    impl Evaluator for Worse {
        fn evaluate(&self, round: u32, _: &[f32]) -> Result<Metrics> {
            Ok(Metrics::from([("loss".to_string(), f64::from(round.abs_diff(2)))]))
        }
    }
    let mut plan = plan();
    plan.rounds = 20;
    plan.evaluation.patience = Some(3);
    let folder = tempfile::tempdir().unwrap();
    let federation = evaluated(folder.path(), &plan, Arc::new(Worse));
    let rounds = federation.rounds(0).unwrap();
    assert_eq!(rounds.len(), 5);
    assert_eq!(federation.status().best, Some((2, 0.0)));
    assert_eq!(federation.coordinator().best_model(), rounds[1].public);
    assert!(federation.blob(&rounds[1].public).is_ok());
    assert!(federation.blob(&rounds[2].public).is_err());
}

/// The fourth client sends an update as long as the bound on elements allows, others a short one.
#[test]
fn a_long_update_moves_the_model_no_further_than_another() {
    let mut plan = plan();
    (plan.rounds, plan.cohort.size, plan.cohort.over_selection) = (1, 4, 1.0);
    plan.updates.max_norm = Some(0.5);
    for uplink in [Encoding::Full, Encoding::Half, Encoding::Ternary] {
        plan.updates.uplink = uplink;
        let folder = tempfile::tempdir().unwrap();
        let mut federation = opened_by(&plan, folder.path(), options());
        let elements = plan.check().unwrap().elements();
        let (short, long) = (vec![0.01; elements], vec![-16.0; elements]);
        let codes = |update: &[f32]| {
            let codec = Codec::new(&Device::cpu(), &plan.check().unwrap()).unwrap();
            let scales = Scales::Own(plan.updates.ternary);
            codec.ternary(update, &vec![0.0; elements], scales, [1, 2, 3]).unwrap().0
        };
        for number in 1..=4 {
            let update = if number == 4 { &long } else { &short };
            let body = match uplink {
                Encoding::Full => Codec::full(update),
                Encoding::Half => Codec::half(update),
                Encoding::Ternary => codes(update),
            };
            let turn = Turn::new(1, 1);
            federation.upload_append(&id(number), turn, 0, &body).unwrap();
            federation.upload_finish(Millis(2), &id(number), finish(&body)).unwrap();
        }
        federation.tick(Millis(3)).unwrap();
        let round = &federation.rounds(0).unwrap()[0];
        let model = federation.blob(&round.public).unwrap();
        let moved = Codec::floats(&model)
            .iter()
            .zip(initial(&plan))
            .fold(0.0, |most, (now, before)| f64::from(now - before).abs().max(most));
        // All weigh alike: a quarter of 0.5 and of three short ones; without the limit 4.
        assert!(moved <= 0.15, "{uplink:?}: {moved}");
        drop(federation);
        // Who checks the run scales it down alike.
        let audits = audit(folder.path(), &initial(&plan), &options()).unwrap();
        assert!(audits[0].holds(), "{audits:?}");
    }
}
