//! Files that are damaged, cut or lost: a server goes on exactly where it was, or doesn't start and
//! says why.

use std::collections::BTreeMap;

use super::*;

/// What is in a folder, by names in it.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Rounds with a state of the strategy, differences and clients' scales.
pub(super) fn plan() -> RunPlan {
    let mut plan = super::plan();
    // The same cohort, whatever happens.
    (plan.cohort.size, plan.cohort.over_selection) = (4, 1.0);
    plan.updates.downlink = Encoding::Ternary;
    plan.strategy = StrategySpec::Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    plan
}

pub(super) fn open(folder: &Path) -> Result<Federation> {
    let plan = plan();
    Federation::open(folder, &plan, &initial(&plan), options())
}

/// All files of a folder, by their names in it.
pub(super) fn files(folder: &Path) -> Files {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else if !name.ends_with("journal.sqlite-shm") {
            // That one is memory that SQLite's processes share: it is made anew.
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

pub(super) fn write(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// What counts of a run.
fn state(federation: &Federation) -> String {
    let rounds = federation.rounds(0).unwrap();
    let counted: Vec<_> = rounds.iter().map(|r| federation.counted(r.round).unwrap()).collect();
    let run = federation.task().run;
    format!("{run} {:?} {rounds:?} {counted:?}", federation.coordinator())
}

/// The files of a server that was killed in the third round, with two updates in, and its state.
pub(super) fn killed() -> (Files, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = open(folder.path()).unwrap();
    let mut members: Vec<_> = (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    go_until(&mut federation, &mut members, |federation| {
        let open = federation.coordinator();
        open.turn().round == 3 && open.accepted().count() == 2
    });
    // Copied while it runs: what is only in its memory isn't among them.
    (files(folder.path()), state(&federation))
}

/// Opens a damaged folder: `true` if all is as it was, `false` if it is refused, and nothing of it
/// changed.
pub(super) fn opens(damaged: &Files, expected: &str, what: &str) -> bool {
    opens_with(damaged, expected, what, 2)
}

fn opens_with(damaged: &Files, expected: &str, what: &str, rounds: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), damaged);
    match open(folder.path()) {
        Ok(federation) => {
            // Updates of the open round are asked for again.
            if !what.starts_with("uploads/3-") {
                assert_eq!(state(&federation), expected, "{what}");
            }
            assert_eq!(federation.rounds(0).unwrap().len(), rounds, "{what}");
            true
        }
        Err(error) => {
            let (after, text) = (files(folder.path()), error.to_string());
            // A journal that is whole was opened, and its log is in it now.
            let opened = text.contains("models/");
            let spared = |name: &Path| {
                name.ends_with("lock") || opened && name.to_string_lossy().contains(".sqlite")
            };
            for (name, bytes) in damaged.iter().filter(|(name, _)| !spared(name)) {
                assert!(after.get(name) == Some(bytes), "{what}: {name:?} was changed: {error}");
            }
            assert!(text.contains("expected") || text.contains("journal"), "{what}: {text}");
            false
        }
    }
}

#[test]
fn no_damage_starts_a_new_run_or_rolls_one_back() {
    let (whole, expected) = killed();
    let wal = Path::new("journal.sqlite-wal");
    assert!(whole[wal].len() > 4_096, "writes of the open round are in the log");
    assert!(opens(&whole, &expected, "nothing"));
    let (mut right, mut refused) = (0, 0);
    let mut tried = |name: &Path, what: String, bytes: Option<Vec<u8>>| {
        let mut damaged = whole.clone();
        match bytes {
            Some(bytes) => damaged.insert(name.into(), bytes),
            None => damaged.remove(name),
        };
        let opened = opens(&damaged, &expected, &format!("{}: {what}", name.display()));
        *(if opened { &mut right } else { &mut refused }) += 1;
        opened
    };
    for (name, bytes) in &whole {
        let bits = 8 * bytes.len();
        let in_journal = name.starts_with("journal.sqlite") || name == wal;
        let places = if in_journal { 150 } else { 8 };
        for place in 0..places.min(bits) {
            // Spread over the file, and over the bits of a byte.
            let bit = (place * bits / places + place % 8).min(bits.saturating_sub(1));
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            tried(name, format!("bit {bit}"), Some(flipped));
        }
        for part in [0, 1, 2, 3] {
            let length = part * bytes.len() / 4;
            tried(name, format!("cut to {length} bytes"), Some(bytes[..length].to_vec()));
        }
        let gone = tried(name, "gone".into(), None);
        let needed = name.starts_with("models") || name.starts_with("journal.sqlite");
        assert!(!gone || !needed && name != Path::new("journal.head"), "{name:?}");
    }
    assert!(right > 100 && refused > 200, "{right} went on, {refused} were refused");
}

#[test]
fn writes_that_were_lost_are_missed() {
    let (whole, expected) = killed();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &whole);
    let mut federation = open(folder.path()).unwrap();
    federation.enroll(Millis(9_000), id(9), None).unwrap();
    let one_more = files(folder.path());
    federation.enroll(Millis(9_000), id(10), None).unwrap();
    // The head alone is older: by one write, as when the process ended between the two, by more.
    let head = PathBuf::from("journal.head");
    let with = |database: &Files, of: &Files| {
        let mut mixed = database.clone();
        mixed.insert(head.clone(), of[&head].clone());
        mixed
    };
    assert!(opens(&with(&one_more, &whole), &expected, "the head is one write behind"));
    let two_more = files(folder.path());
    assert!(!opens(&with(&two_more, &whole), &expected, "the head is two writes behind"));
    // The journal is older.
    assert!(!opens(&with(&whole, &one_more), &expected, "a write is lost"));
    drop(federation);
    // Another run's.
    let other = tempfile::tempdir().unwrap();
    let options = Options { run: Some(RunId([1; 16])), ..options() };
    let plan = plan();
    drop(Federation::open(other.path(), &plan, &initial(&plan), options).unwrap());
    assert!(!opens(&with(&whole, &files(other.path())), &expected, "another run's head"));
}

#[test]
fn a_committed_round_is_not_in_the_log_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = open(folder.path()).unwrap();
    let mut members: Vec<_> = (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    let mut now = Millis(1);
    while federation.rounds(0).unwrap().is_empty() {
        now = now.after(100);
        members.iter_mut().for_each(|member| assert!(member.turn(&mut federation, now)));
        federation.tick(now).unwrap();
    }
    let mut left = files(folder.path());
    assert_eq!(left.remove(Path::new("journal.sqlite-wal")), Some(Vec::new()));
    assert!(opens_with(&left, &state(&federation), "the log is lost", 1));
}

#[test]
fn a_damaged_update_of_a_secure_round_comes_again_or_ends_the_round() {
    let mut plan = super::plan();
    (plan.rounds, plan.cohort.size, plan.cohort.over_selection) = (2, 4, 1.0);
    (plan.cohort.minimum, plan.secure) = (4, Some(Secure::default()));
    // While vectors come in, and once all are: then it shows when shares were asked for, so that
    // the round is abandoned.
    for (count, first) in [(1, Turn::new(1, 1)), (4, Turn::new(2, 1))] {
        let folder = tempfile::tempdir().unwrap();
        let open = || Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
        let mut federation = open();
        let mut members: Vec<_> =
            (1..=4).map(|number| Member::new(&mut federation, number)).collect();
        while federation.coordinator().accepted().count() < count {
            for member in &mut members {
                if federation.coordinator().accepted().count() < count {
                    member.turn(&mut federation, Millis(10));
                }
            }
        }
        let client = *federation.coordinator().accepted().next().unwrap().0;
        damage(&federation.bodies.upload_name(Turn::new(1, 1), &client));
        drop(federation);
        let mut federation = open();
        go_on(&mut federation, &mut members, |_, _| ());
        let rounds = federation.rounds(0).unwrap();
        assert_eq!(Turn::new(rounds[0].round, rounds[0].attempt), first);
        assert!(rounds.iter().all(|round| round.updates == 4));
        assert_eq!(rounds.last().map(|round| round.round), Some(2));
    }
}

#[test]
fn a_start_that_broke_off_starts() {
    let (plan, folder) = (plan(), tempfile::tempdir().unwrap());
    let first = Codec::full(&initial(&plan));
    // Each write that may be the last one of the first start.
    for left in 1..12 {
        let faults = Arc::new(std::sync::atomic::AtomicU32::new(left));
        let options = options().faults(tern_host::files::Faults::counting(faults));
        drop(Federation::open(folder.path(), &plan, &initial(&plan), options));
        drop(open(folder.path()).unwrap());
        if left % 2 == 0 {
            std::fs::remove_dir_all(folder.path()).unwrap();
            std::fs::create_dir(folder.path()).unwrap();
        }
    }
    // But not over another run's models.
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    std::fs::create_dir(&models).unwrap();
    std::fs::write(models.join(Digest::of(&first).to_string()), &first[1..]).unwrap();
    drop(open(folder.path()).unwrap());
    for name in ["journal.sqlite", "journal.head"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    drop(open(folder.path()).unwrap());
    for name in ["journal.sqlite", "journal.head"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    std::fs::write(models.join(Digest::of(b"other").to_string()), b"other").unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("expected a folder that never held one"), "{error}");
    assert!(models.join(Digest::of(b"other").to_string()).exists(), "it was swept");
}

/// Four members' updates of the first round are in, and the server is opened again, so that it has
/// no total in memory.
fn uploaded(folder: &Path, count: usize) -> (Federation, Vec<Member>) {
    let mut federation = open(folder).unwrap();
    let mut members: Vec<_> = (1..=4).map(|number| Member::new(&mut federation, number)).collect();
    let now = Millis(10);
    while federation.coordinator().accepted().count() < count {
        for member in &mut members {
            if federation.coordinator().accepted().count() < count {
                member.turn(&mut federation, now);
            }
        }
    }
    drop(federation);
    (open(folder).unwrap(), members)
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    // A bit of an exponent: the number stays one, and within the bound.
    bytes[3] ^= 0x02;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_update_is_asked_for_again_or_left_out() {
    let expected = {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan();
        drop(run(folder.path(), &plan, 4, |_, _| ()));
        models(folder.path(), &plan)
    };
    // In the phase in which updates come in, it comes again; the run is the same.
    let folder = tempfile::tempdir().unwrap();
    let (federation, mut members) = uploaded(folder.path(), 1);
    let (client, upload) = federation.coordinator().accepted().next().unwrap();
    let (client, upload) = (*client, upload.clone());
    damage(&federation.bodies.upload_name(Turn::new(1, 1), &client));
    drop(federation);
    let federation = open(folder.path()).unwrap();
    assert_eq!(federation.coordinator().accepted().count(), 0);
    drop(federation);
    let mut federation = open(folder.path()).unwrap();
    assert_eq!(federation.coordinator().accepted().count(), 0, "it is in the journal");
    go_on(&mut federation, &mut members, |_, _| ());
    let counted = federation.counted(1).unwrap();
    assert!(counted.iter().any(|c| c.client == client && c.digest == upload.digest));
    drop(federation);
    assert_eq!(models(folder.path(), &plan()), expected);

    // Once the round is closed, it is left out, whichever way it is damaged.
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("flipped", damage),
        ("cut", |path| std::fs::write(path, b"short").unwrap()),
        ("gone", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (name, harm) in harms {
        let folder = tempfile::tempdir().unwrap();
        let (mut federation, mut members) = uploaded(folder.path(), 4);
        assert_eq!(federation.coordinator().phase(), "combine");
        let client = *federation.coordinator().accepted().next().unwrap().0;
        harm(&federation.bodies.upload_name(Turn::new(1, 1), &client));
        federation.tick(Millis(20)).unwrap();
        assert_eq!(federation.coordinator().accepted().count(), 3, "{name}");
        go_on(&mut federation, &mut members, |_, _| ());
        let counted: Vec<_> = federation.counted(1).unwrap().iter().map(|c| c.client).collect();
        assert!(counted.len() == 3 && !counted.contains(&client), "{name}");
        drop(federation);
        // What was counted and what was added up agree.
        models(folder.path(), &plan());
    }

    // Too few are left: another attempt.
    let folder = tempfile::tempdir().unwrap();
    let (mut federation, mut members) = uploaded(folder.path(), 4);
    let clients: Vec<_> = federation.coordinator().accepted().map(|(c, _)| *c).collect();
    for client in &clients[..3] {
        damage(&federation.bodies.upload_name(Turn::new(1, 1), client));
    }
    federation.tick(Millis(20)).unwrap();
    assert_eq!(federation.coordinator().turn(), Turn::new(1, 2));
    go_on(&mut federation, &mut members, |_, _| ());
    assert!(federation.coordinator().finished());
}

#[test]
fn a_damaged_model_stops_the_round_until_it_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut federation, mut members) = uploaded(folder.path(), 4);
    federation.tick(Millis(20)).unwrap();
    let kinds: [fn(&Federation) -> Digest; 2] =
        [|f| f.coordinator().head().model, |f| f.coordinator().head().state.unwrap()];
    for kind in kinds {
        let digest = kind(&federation);
        let path = federation.bodies.name(&digest);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(federation.trouble(), None);
        damage(&path);
        // Before anybody trains by it.
        let mut now = federation.coordinator().now();
        let turn = federation.coordinator().turn();
        let pass = |federation: &mut Federation, members: &mut [Member], now: &mut Millis| {
            *now = now.after(10_000);
            members.iter_mut().for_each(|member| assert!(member.turn(federation, *now)));
        };
        pass(&mut federation, &mut members, &mut now);
        let trouble = federation.trouble().unwrap().to_owned();
        assert!(trouble.contains(&digest.to_string()), "{trouble}");
        assert_eq!((federation.coordinator().turn(), federation.status().phase), (turn, "gather"));
        std::fs::write(&path, whole).unwrap();
        pass(&mut federation, &mut members, &mut now);
        assert_eq!((federation.trouble(), federation.coordinator().turn()), (None, turn));
        // And when a model is made of it.
        while federation.status().phase != "combine" {
            pass(&mut federation, &mut members, &mut now);
        }
        let whole = std::fs::read(&path).unwrap();
        damage(&path);
        let error = federation.tick(now).unwrap_err().to_string();
        assert!(federation.trouble() == Some(&error) && error.contains(&digest.to_string()));
        assert_eq!(federation.coordinator().turn(), turn);
        std::fs::write(&path, whole).unwrap();
        federation.tick(now).unwrap();
        assert_eq!(federation.trouble(), None);
    }
}

#[test]
fn a_damaged_model_is_repaired_by_its_copies() {
    // The first one by what the server is started with.
    let folder = tempfile::tempdir().unwrap();
    let plan = super::plan();
    let start = || Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    let federation = start();
    let first = federation.coordinator().head().model;
    damage(&federation.bodies.name(&first));
    drop(federation);
    let federation = start();
    assert_eq!(federation.model(&first).unwrap(), initial(&plan));
    // A later one by the file for people.
    drop(federation);
    let federation = run(folder.path(), &plan, 4, |_, _| ());
    let last = federation.coordinator().head().public;
    let (model, path) = (federation.model(&last).unwrap(), federation.bodies.name(&last));
    let parameters = federation.layout().parameters();
    tern_engine::save_model(&folder.path().join("best.safetensors"), parameters, &model).unwrap();
    damage(&path);
    assert_eq!(federation.model(&last).unwrap(), model);
    assert_eq!(Digest::of(&std::fs::read(&path).unwrap()), last);
}
