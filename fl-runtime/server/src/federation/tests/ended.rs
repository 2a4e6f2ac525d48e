//! Runs whose end their clients were told, on a server that lost it.

use super::damage::{Files, files, write};
use super::*;

/// A run in memory: its plan, its files in the second round and at its end, its clients.
struct Over {
    plan: RunPlan,
    early: Files,
    whole: Files,
    members: Vec<Member>,
    best: Digest,
}

fn over(change: impl FnOnce(&mut RunPlan)) -> Over {
    let mut plan = plan();
    (plan.cohort.size, plan.cohort.over_selection) = (4, 1.0);
    plan.evaluation.scores = Scores::Clients;
    change(&mut plan);
    let folder = tempfile::tempdir().unwrap();
    let mut federation =
        Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    let mut members: Vec<Member> =
        (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    let mut early = Files::new();
    go_on(&mut federation, &mut members, |federation, _| {
        if federation.coordinator().turn().round == 2 && early.is_empty() {
            early = files(folder.path());
        }
    });
    assert!(federation.coordinator().finished() && !early.is_empty());
    let best = federation.coordinator().best_model();
    Over { plan, early, whole: files(folder.path()), members, best }
}

impl Over {
    fn open(&self, folder: &Path) -> Result<Federation> {
        Federation::open(folder, &self.plan, &initial(&self.plan), options())
    }

    /// A server that starts from these files, after a repair if it needs one, whose word is given.
    fn with(&self, found: &Files) -> (tempfile::TempDir, Federation, String) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), found);
        if let Ok(federation) = self.open(folder.path()) {
            return (folder, federation, String::new());
        }
        let (plan, initial) = (&self.plan, initial(&self.plan));
        let repair = Repair::examine(folder.path(), plan, &initial, &options()).unwrap();
        let said = repair.to_string();
        repair.apply().unwrap_or_else(|error| panic!("{said}: {error}"));
        drop(repair);
        let federation = self.open(folder.path()).unwrap_or_else(|e| panic!("{said}: {e}"));
        (folder, federation, said)
    }

    /// Starts again, as those that were told of the end.
    fn started_again(&mut self, numbers: std::ops::Range<usize>) -> Vec<Member> {
        let mut members: Vec<Member> = self.members.drain(numbers).collect();
        for member in &mut members {
            member.restart();
            assert_eq!(member.kept.ended.map(|ended| ended.model), Some(self.best));
        }
        members
    }
}

#[test]
fn older_files_end_a_run_again_that_most_clients_were_told_is_over() {
    let mut run = over(|_| ());
    let (folder, mut federation, said) = run.with(&run.early);
    assert!(said.is_empty() && !federation.coordinator().finished());
    let mut members = run.started_again(0..3);
    // One that knows nothing of it.
    let mut fresh = Member::new(&mut federation, 4);
    fresh.kept = SavedState::default();
    members.push(fresh);
    go_on(&mut federation, &mut members, |_, _| ());
    assert_eq!(federation.coordinator().best_model(), run.best);
    assert_eq!(members[3].kept.ended, members[0].kept.ended);
    assert!(federation.rounds(0).unwrap().len() < run.plan.rounds as usize);
    // The model isn't here, which is said until it is.
    let name = run.best.to_string();
    assert!(federation.trouble().is_some_and(|trouble| trouble.contains(&name)));
    assert!(federation.blob(&run.best).is_err());
    drop(federation);
    let federation = run.open(folder.path()).unwrap();
    assert!(federation.coordinator().finished());
    assert!(federation.trouble().is_some_and(|trouble| trouble.contains(&name)));
    drop(federation);
    let body = Path::new("models").join(&name);
    std::fs::write(folder.path().join(&body), &run.whole[&body]).unwrap();
    let federation = run.open(folder.path()).unwrap();
    assert_eq!((federation.trouble(), federation.blob(&run.best).is_ok()), (None, true));
}

#[test]
fn fewer_than_half_do_not_end_a_run() {
    let mut run = over(|plan| plan.cohort.minimum = 2);
    let (_folder, mut federation, _) = run.with(&run.early);
    let mut members = run.started_again(0..1);
    for number in 2..=4 {
        members.push(Member::new(&mut federation, number));
    }
    go_on(&mut federation, &mut members, |_, _| ());
    assert_eq!(federation.rounds(0).unwrap().len(), 3);
    assert_eq!(federation.coordinator().told_end(), None);
    // It stays with what it was told.
    assert_eq!(members[0].kept.ended.unwrap().model, run.best);
}

type Change = fn(&mut RunPlan);
type Harm = fn(&mut Files, &Files);

/// The journal is that of the second round.
fn older(now: &mut Files, early: &Files) {
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        now.insert(name.into(), early[Path::new(name)].clone());
    }
}

fn gone(now: &mut Files, _: &Files) {
    now.remove(Path::new("journal.sqlite"));
}

#[test]
fn no_repair_goes_on_with_a_run_that_is_over() {
    let adam = || StrategySpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    let changes: [(&str, Change); 4] = [
        ("mean", |_| ()),
        ("differences", |plan| plan.updates.downlink = Encoding::Ternary),
        ("secure", |plan| {
            plan.cohort.minimum = 4;
            plan.secure = Some(Secure::default());
        }),
        ("patience", |plan| {
            plan.evaluation.patience = Some(1);
            plan.evaluation.goal = tern_protocol::plan::Goal::Maximize;
            plan.rounds = 9;
        }),
    ];
    let mut lost = 0;
    for (name, change) in changes {
        let run = over(|plan| {
            change(plan);
            if name == "differences" {
                plan.strategy = adam();
            }
        });
        let head = {
            let (_folder, federation, _) = run.with(&run.whole);
            federation.coordinator().head().clone()
        };
        let harms: [(&str, Harm); 3] = [
            ("older", older),
            ("gone", gone),
            ("no head", |now, _| drop(now.remove(Path::new("journal.head")))),
        ];
        for (what, harm) in harms {
            let mut found = run.whole.clone();
            harm(&mut found, &run.early);
            let (_folder, federation, said) = run.with(&found);
            let what = format!("{name}, {what}: {said}");
            assert!(!said.is_empty() && federation.coordinator().finished(), "{what}");
            assert_eq!(federation.coordinator().best_model(), run.best, "{what}");
            assert!(federation.blob(&run.best).is_ok() && federation.trouble().is_none(), "{what}");
        }
        // The best model is lost, and the updates that it is made of.
        if head.public == run.best {
            continue;
        }
        let mut found = run.whole.clone();
        found.retain(|name, _| !name.starts_with("uploads"));
        found.remove(&Path::new("models").join(run.best.to_string())).unwrap();
        let (_folder, federation, said) = run.with(&found);
        assert!(said.contains("told") && said.contains("which is lost"), "{name}: {said}");
        let coordinator = federation.coordinator();
        assert!(coordinator.finished() && coordinator.best_model() == run.best, "{name}: {said}");
        assert!(federation.trouble().is_some(), "{name}");
        lost += 1;
    }
    assert_eq!(lost, 1, "runs whose last model isn't the best");
}

/// Lost rounds would be made again, were its clients not told that it is over.
#[test]
fn a_run_that_is_over_and_lost_its_last_rounds_takes_no_more() {
    let best_is_the_last: Change = |plan| plan.evaluation.patience = Some(9);
    let best_is_the_first: Change =
        |plan| plan.evaluation.goal = tern_protocol::plan::Goal::Maximize;
    for (change, harm, more_at_once) in [
        (best_is_the_last, older as Harm, true),
        (best_is_the_last, gone, true),
        (best_is_the_first, older, true),
        (best_is_the_first, older, false),
    ] {
        let mut run = over(change);
        let mut found = run.whole.clone();
        harm(&mut found, &run.early);
        let rounds = run.plan.rounds;
        if more_at_once {
            run.plan.rounds = 9;
        }
        let (folder, federation, said) = run.with(&found);
        assert!(said.contains(&format!("It is over since round {rounds}")), "{said}");
        let is_over = |federation: &Federation| {
            let coordinator = federation.coordinator();
            coordinator.finished() && coordinator.best_model() == run.best
        };
        assert!(is_over(&federation), "{said}");
        drop(federation);
        run.plan.rounds = 9;
        assert!(is_over(&run.open(folder.path()).unwrap()), "{said}");
    }
}
