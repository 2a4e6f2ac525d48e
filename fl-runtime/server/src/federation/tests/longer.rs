//! When runs are over, and what more rounds do then.

use super::*;

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
