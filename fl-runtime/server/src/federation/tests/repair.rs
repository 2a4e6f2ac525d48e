//! Having back what is left of a damaged run.

use super::damage::{Files, files, killed, open, opens, plan, write};
use super::*;

fn examine(folder: &Path, plan: &RunPlan) -> Repair {
    Repair::examine(folder, plan, &initial(plan), &options()).unwrap()
}

/// Clients of a run that goes on, by their keys; what they knew is lost, too.
fn to_its_end(federation: &mut Federation) {
    let mut members: Vec<_> = (1..=4).map(|number| Member::new(federation, number)).collect();
    go_on(federation, &mut members, |_, _| ());
    assert!(federation.coordinator().finished());
}

/// Repairs a folder that no server starts in, and goes on; what it says.
fn repaired(damaged: &Files, what: &str) -> String {
    let (folder, plan) = (tempfile::tempdir().unwrap(), plan());
    write(folder.path(), damaged);
    let repair = examine(folder.path(), &plan);
    let said = repair.to_string();
    for (name, bytes) in damaged.iter().filter(|(name, _)| !name.ends_with("lock")) {
        assert!(files(folder.path()).get(name) == Some(bytes), "{what}: {name:?} was changed");
    }
    assert!(!repair.damage.is_empty() && said.contains("damaged: "), "{what}: {said}");
    if !repair.is_possible() {
        assert!(said.contains("nothing can be had back"), "{what}: {said}");
        assert!(repair.apply().is_err(), "{what}");
        return said;
    }
    let aside = files(&repair.apply().unwrap());
    for name in ["journal.sqlite", "journal.sqlite-wal", "journal.head"].map(PathBuf::from) {
        let kept = |files: &Files| files.get(&name).cloned().unwrap_or_default();
        assert_eq!(kept(&aside), kept(damaged), "{what}: {name:?} is kept");
    }
    drop(repair);
    let mut federation = open(folder.path()).unwrap_or_else(|e| panic!("{what}: {e}\n{said}"));
    assert_eq!(federation.task().run, RunId([9; 16]), "{what}");
    let before = federation.rounds(0).unwrap();
    to_its_end(&mut federation);
    let after = federation.rounds(0).unwrap();
    assert_eq!(after[..before.len()], before, "{what}");
    assert_eq!(after.last().unwrap().round, plan.rounds, "{what}");
    drop(federation);
    let repair = examine(folder.path(), &plan);
    assert!(repair.damage.is_empty(), "{what}: {repair}");
    assert!(repair.to_string().contains("are whole") && repair.apply().is_err());
    said
}

#[test]
fn what_is_left_of_a_run_goes_on() {
    let (whole, expected) = killed();
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut count = |said: &str| {
        let ways = [
            "nothing can be had back",
            "Its head is written anew",
            "after round 2",
            "bodies are there again",
        ];
        let way = ways.into_iter().find(|way| said.contains(way)).unwrap_or("an earlier round");
        *counts.entry(way).or_default() += 1;
    };
    for (name, bytes) in &whole {
        if !name.to_string_lossy().contains("journal") && !name.starts_with("models") {
            continue;
        }
        let mut tries = vec![("gone".to_owned(), None)];
        let half = bytes[..bytes.len() / 2].to_vec();
        tries.push(("half of it".into(), Some(half)));
        for place in 0..24 {
            let bit = place * 8 * bytes.len() / 24 + place % 8;
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            tries.push((format!("bit {bit}"), Some(flipped)));
        }
        for (what, bytes) in tries {
            let mut damaged = whole.clone();
            match bytes {
                Some(bytes) => damaged.insert(name.clone(), bytes),
                None => damaged.remove(name),
            };
            let what = format!("{}: {what}", name.display());
            if !opens(&damaged, &expected, &what) {
                let said = repaired(&damaged, &what);
                // Without its tables nobody knows which updates were counted.
                let tables = name == Path::new("journal.sqlite");
                assert!(tables || !said.contains("nothing can be had back"), "{what}: {said}");
                count(&said);
            }
        }
    }
    assert!(counts["Its head is written anew"] > 0 && counts["after round 2"] > 10, "{counts:?}");
    // Models and states come again from the updates that were kept.
    assert!(counts["bodies are there again"] > 10, "{counts:?}");
    // Without those, the state of the strategy is in one file only.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &whole);
    let state = open(folder.path()).unwrap().coordinator().head().state.unwrap();
    let mut damaged = whole.clone();
    damaged.remove(&Path::new("models").join(state.to_string())).unwrap();
    damaged.retain(|name, _| !name.starts_with("uploads"));
    let said = repaired(&damaged, "no updates, no state");
    assert!(
        said.contains("nothing can be had back") && said.contains(&state.to_string()),
        "{said}"
    );
}

#[test]
fn a_run_whose_journal_is_gone_goes_on_from_its_model() {
    let (folder, mut plan) = (tempfile::tempdir().unwrap(), super::plan());
    plan.rounds = 2;
    drop(run(folder.path(), &plan, 4, |_, _| ()));
    plan.rounds = 4;
    let start = || Federation::open(folder.path(), &plan, &initial(&plan), options());
    let model = start().unwrap().coordinator().head().model;
    std::fs::remove_file(folder.path().join("journal.sqlite")).unwrap();
    let error = start().err().unwrap().to_string();
    assert!(error.contains("journal.sqlite: missing, expected the"), "{error}");
    assert!(error.contains("with round 2") && error.contains("tern repair"), "{error}");
    let repair = examine(folder.path(), &plan);
    let said = repair.to_string();
    assert!(said.contains("after round 2") && said.contains("the records of 2 rounds"), "{said}");
    repair.apply().unwrap();
    drop(repair);
    let mut federation = start().unwrap();
    assert_eq!(federation.coordinator().head().model, model);
    to_its_end(&mut federation);
    let rounds: Vec<u32> = federation.rounds(0).unwrap().iter().map(|r| r.round).collect();
    assert_eq!(rounds, [3, 4]);
    drop(federation);
    start().unwrap();
}

#[test]
fn an_attempt_that_clients_may_have_seen_is_not_made_again() {
    let (folder, plan) = (tempfile::tempdir().unwrap(), plan());
    let mut federation = open(folder.path()).unwrap();
    for number in 1..=4 {
        federation.enroll(Millis(1), id(number), None).unwrap();
    }
    let early = files(folder.path());
    let mut now = Millis(1);
    while federation.coordinator().turn().attempt < 4 {
        now = federation.coordinator().deadline().unwrap_or(now.after(10_000));
        (1..=4).for_each(|number| drop(federation.poll(now, &id(number), 10)));
        federation.advance(now).unwrap();
    }
    let seen = federation.coordinator().turn().attempt;
    drop(federation);
    // The journal is that of before; its head knows of the writes after it.
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        std::fs::write(folder.path().join(name), &early[Path::new(name)]).unwrap();
    }
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("by journal.head"), "{error}");
    examine(folder.path(), &plan).apply().unwrap();
    let federation = open(folder.path()).unwrap();
    assert!(
        federation.coordinator().turn().attempt > seen,
        "{:?}",
        federation.coordinator().turn()
    );
}

/// The files of a run that was killed in a round, with something of it in, and whose state between
/// attempts is damaged.
fn without_its_state(plan: &RunPlan, round: u32) -> (tempfile::TempDir, Turn) {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = Federation::open(folder.path(), plan, &initial(plan), options()).unwrap();
    let mut members: Vec<_> = (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    go_until(&mut federation, &mut members, |federation| {
        let open = federation.coordinator();
        open.turn().round == round && open.phase() != "gather"
    });
    let turn = federation.coordinator().turn();
    drop(federation);
    let journal = rusqlite::Connection::open(folder.path().join("journal.sqlite")).unwrap();
    journal.execute("UPDATE meta SET value = x'00' WHERE name = 'snapshot'", []).unwrap();
    (folder, turn)
}

/// What a repair says, and a server that goes on after it.
fn apply(folder: &Path, plan: &RunPlan) -> (String, Federation) {
    let repair = examine(folder, plan);
    let said = repair.to_string();
    repair.apply().unwrap();
    drop(repair);
    (said, Federation::open(folder, plan, &initial(plan), options()).unwrap())
}

#[test]
fn patience_is_counted_from_the_best_round() {
    let mut plan = super::plan();
    (plan.rounds, plan.evaluation.patience) = (6, Some(4));
    plan.evaluation.scores = Scores::Clients;
    let (folder, _) = without_its_state(&plan, 4);
    let (said, mut federation) = apply(folder.path(), &plan);
    assert!(said.contains("after round 3"), "{said}");
    // Each round was better than the last one.
    assert!(!federation.coordinator().finished(), "{said}");
    to_its_end(&mut federation);
    assert_eq!(federation.rounds(0).unwrap().len(), 6);
}

/// The best round may be the first, and the last one well within the patience.
#[test]
fn a_run_that_grew_worse_waits_as_long_as_before() {
    let mut plan = super::plan();
    (plan.rounds, plan.evaluation.patience) = (6, Some(3));
    plan.evaluation.scores = Scores::Clients;
    plan.evaluation.goal = tern_protocol::plan::Goal::Maximize;
    let (folder, _) = without_its_state(&plan, 4);
    let (said, mut federation) = apply(folder.path(), &plan);
    assert!(said.contains("after round 3") && !federation.coordinator().finished(), "{said}");
    to_its_end(&mut federation);
    assert_eq!(federation.rounds(0).unwrap().len(), 4);
}

#[test]
fn a_head_of_another_history_is_written_anew() {
    let [one, other] = [3, 4].map(|number| {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap().enroll(Millis(1), id(number), None).unwrap();
        folder
    });
    let head = |folder: &tempfile::TempDir| folder.path().join("journal.head");
    std::fs::copy(head(&other), head(&one)).unwrap();
    let error = open(one.path()).err().unwrap().to_string();
    assert!(error.contains("of another history"), "{error}");
    let (said, federation) = apply(one.path(), &plan());
    assert!(said.contains("Its head is written anew"), "{said}");
    assert!(federation.is_enrolled(&id(3)) && !federation.is_enrolled(&id(4)));
}

/// Without their model, rounds that are in the journal are lost, and what was said of them.
#[test]
fn rounds_before_which_a_repair_goes_back_are_abandoned_and_forgotten() {
    let mut plan = super::plan();
    (plan.cohort.size, plan.cohort.minimum, plan.cohort.over_selection) = (4, 4, 1.0);
    (plan.secure, plan.rounds) = (Some(Secure::default()), 6);
    // Models are the same each time.
    let (earlier, _) = without_its_state(&plan, 3);
    for (model_lost, head_lost) in [(false, false), (true, false), (true, true)] {
        let (folder, _) = without_its_state(&plan, 4);
        let path = |name: &str| folder.path().join(name);
        if model_lost {
            for name in ["models", "uploads"] {
                std::fs::remove_dir_all(path(name)).unwrap();
            }
            let models = files(&earlier.path().join("models")).into_iter();
            let models = models.map(|(name, bytes)| (Path::new("models").join(name), bytes));
            write(folder.path(), &models.collect());
        }
        if head_lost {
            std::fs::remove_file(path("journal.head")).unwrap();
        }
        std::fs::write(path("metrics.jsonl"), "of three rounds").unwrap();
        let (said, federation) = apply(folder.path(), &plan);
        let expected = match model_lost {
            false => "after round 3. Round 4 is abandoned",
            true => "after round 2. Rounds 3 to 4 are abandoned",
        };
        assert!(said.contains(expected), "{said}");
        assert_eq!(said.contains(", and so are rounds 3 to 3"), model_lost, "{said}");
        assert_eq!(path("metrics.jsonl").exists(), !model_lost, "{said}");
        assert_eq!(federation.coordinator().turn(), Turn::new(5, 1), "{said}");
    }
}

/// A round at which shares may have been revealed is never tried again.
#[test]
fn rounds_of_a_secure_run_are_abandoned_as_far_as_they_may_have_been_open() {
    let mut plan = super::plan();
    (plan.cohort.size, plan.cohort.minimum, plan.cohort.over_selection) = (4, 4, 1.0);
    plan.secure = Some(Secure::default());
    for (rounds, after) in [(5, Some(Turn::new(4, 1))), (3, None)] {
        plan.rounds = rounds;
        let (folder, turn) = without_its_state(&plan, 3);
        assert_eq!(turn.round, 3);
        let (said, mut federation) = apply(folder.path(), &plan);
        assert!(said.contains("after round 2. Round 3 is abandoned"), "{said}");
        assert!(!said.contains("records of"), "{said}");
        assert_eq!(federation.coordinator().finished(), after.is_none(), "{said}");
        let Some(after) = after else { continue };
        assert_eq!(federation.coordinator().turn(), after, "{said}");
        to_its_end(&mut federation);
        let rounds: Vec<u32> = federation.rounds(0).unwrap().iter().map(|r| r.round).collect();
        assert_eq!(rounds, [1, 2, 4, 5]);
    }
    // With no row of the second round: its model is known by the head.
    plan.rounds = 5;
    let (folder, _) = without_its_state(&plan, 3);
    let journal = rusqlite::Connection::open(folder.path().join("journal.sqlite")).unwrap();
    journal.execute("DELETE FROM rounds WHERE round = 2", []).unwrap();
    drop(journal);
    let (said, federation) = apply(folder.path(), &plan);
    assert!(said.contains("after round 2. Round 3 is abandoned"), "{said}");
    assert!(said.contains(", and the records of up to 2 rounds. 4 clients"), "{said}");
    assert_eq!(federation.coordinator().turn(), Turn::new(4, 1));
}

#[test]
fn a_model_that_is_measured_is_looked_for() {
    let (folder, mut plan) = (tempfile::tempdir().unwrap(), super::plan());
    plan.evaluation.on_clients = true;
    let mut federation =
        Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    let mut members: Vec<_> = (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    go_until(&mut federation, &mut members, |federation| {
        federation.coordinator().phase() == "evaluate"
    });
    let committed = federation.coordinator().head().clone();
    let open = federation.coordinator().kept().into_iter();
    let measured = open.filter(|model| *model != committed.model && *model != committed.public);
    let measured: Vec<Digest> = measured.collect();
    assert!(!measured.is_empty());
    drop(federation);
    assert!(examine(folder.path(), &plan).to_string().contains("are whole"));
    for model in &measured {
        std::fs::remove_file(folder.path().join("models").join(model.to_string())).unwrap();
    }
    let said = examine(folder.path(), &plan).to_string();
    assert!(measured.iter().all(|model| said.contains(&model.to_string())), "{said}");
    assert!(!said.contains("are whole"), "{said}");
}
