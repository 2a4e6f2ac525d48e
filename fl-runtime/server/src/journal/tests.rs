use tern_protocol::coordinator::Event;

use super::rounds::{ROUNDS, TURN, UPLOADS};
use super::*;

/// Queries that are made each round find their rows by an index.
#[test]
fn no_query_of_a_round_reads_those_before() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), Durability::None, Faults::default()).unwrap();
    for query in [ROUNDS, UPLOADS, TURN] {
        let explain = format!("EXPLAIN QUERY PLAN {query}");
        let mut plan = journal.connection.prepare(&explain).unwrap();
        let steps = plan.query_map([7], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.collect::<rusqlite::Result<_>>().unwrap();
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{query}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("SCAN rounds")), "{query}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("SCAN uploads")), "{query}: {steps:?}");
    }
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Journal::open(folder.path(), Durability::Process, Faults::default());
    let event = Event::Tick.to_wire(7);
    {
        let mut journal = open().unwrap();
        journal.start(&RunId([1; 16]), b"{}", &Digest([5; 32]), b"state").unwrap();
        journal.append(&event).unwrap();
        let token = Digest([7; 32]);
        journal.enroll(Millis(1), &ClientId([3; 32]), Some(&token)).unwrap();
        journal.enroll(Millis(2), &ClientId([3; 32]), None).unwrap();
    }
    let journal = open().unwrap();
    assert_eq!(journal.get("plan").unwrap().unwrap(), b"{}");
    assert_eq!(journal.get("other").unwrap(), None);
    assert_eq!(journal.events().unwrap(), [event]);
    assert_eq!(journal.clients().unwrap(), [ClientId([3; 32])]);
    assert_eq!(journal.tokens().unwrap(), [(Digest([7; 32]), 1)].into());
    drop(journal);
    let path = folder.path().join("journal.sqlite");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("version 9"), "{error}");
}

fn open(folder: &Path) -> Result<Journal> {
    Journal::open(folder, Durability::Process, Faults::default())
}

/// A journal of a run that has begun.
fn started(folder: &Path, run: u8) -> Journal {
    let mut journal = open(folder).unwrap();
    journal.start(&RunId([run; 16]), b"{}", &Digest([5; 32]), b"state").unwrap();
    journal
}

#[test]
fn what_is_no_journal_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = || open(folder.path()).err().unwrap().to_string();
    // A log without its database is not for a new one; an empty one is of none.
    let log = path("journal.sqlite-wal");
    std::fs::write(&log, b"a log").unwrap();
    let error = refused();
    assert!(error.contains("missing, expected the one that its -wal goes with"), "{error}");
    std::fs::write(path(FILE), b"").unwrap();
    assert!(refused().contains("empty, expected"), "{}", refused());
    std::fs::write(&log, b"").unwrap();
    let (contents, found) = Journal::contents(folder.path()).unwrap();
    assert!(!contents.started() && contents.damage.is_empty() && found == Found::Missing);
    let mut journal = started(folder.path(), 1);
    journal.append(&Event::Tick.to_wire(7)).unwrap();
    drop(journal);
    // The first bytes say what it is.
    let whole = std::fs::read(path(FILE)).unwrap();
    type Change = fn(&mut Vec<u8>);
    let damages: [(&str, Change); 4] = [
        ("less than 20 bytes", |bytes| bytes.truncate(19)),
        ("another beginning", |bytes| bytes[3] ^= 1),
        ("formats [1, 2]", |bytes| bytes[18] = 1),
        ("formats [2, 1]", |bytes| bytes[19] = 1),
    ];
    for (said, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::write(path(FILE), &bytes).unwrap();
        assert!(refused().contains(said), "{}", refused());
        assert_eq!(std::fs::read(path(FILE)).unwrap(), bytes, "{said}");
    }
    std::fs::write(path(FILE), &whole).unwrap();
    open(folder.path()).unwrap();
    // What can't be read isn't missing, nor too short.
    for (name, read) in [(HEAD_FILE, "no whole record"), (FILE, "less than 20 bytes")] {
        let whole = std::fs::read(path(name)).unwrap();
        std::fs::remove_file(path(name)).unwrap();
        std::fs::create_dir(path(name)).unwrap();
        let error = refused();
        assert!(error.contains(name), "{error}");
        assert!(!error.contains("missing") && !error.contains(read), "{error}");
        std::fs::remove_dir(path(name)).unwrap();
        std::fs::write(path(name), whole).unwrap();
    }
    open(folder.path()).unwrap();
}

/// A chain covers scores; SQLite gives back a zero without its sign.
#[test]
fn a_score_of_another_value_is_another_round() {
    let link = |score: Option<f64>| {
        let (head, draw, uploads) = (vec![1], vec![2], Vec::new());
        let (training, evaluation) = ("{}".to_owned(), "{}".to_owned());
        let (round, attempt, committed) = (1, 1, 7);
        RoundRow { round, attempt, committed, head, training, evaluation, score, draw, uploads }
            .link(&Digest([0; 32]))
    };
    assert_eq!(link(Some(-0.0)), link(Some(0.0)));
    let scores = [None, Some(0.0), Some(1.0), Some(-1.0), Some(1.5)];
    let links: std::collections::BTreeSet<Digest> = scores.map(link).into();
    assert_eq!(links.len(), scores.len());
}

#[test]
fn a_head_that_is_a_write_behind_is_written_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let head = folder.path().join(HEAD_FILE);
    let mut journal = started(folder.path(), 1);
    let event = Event::Tick.to_wire(7);
    journal.append(&event).unwrap();
    let before = std::fs::read(&head).unwrap();
    journal.append(&event).unwrap();
    let after = head::read(&head).unwrap();
    assert!(journal.is_settled());
    drop(journal);
    std::fs::write(&head, before).unwrap();
    assert!(head::read(&head).unwrap() != after);
    assert!(open(folder.path()).unwrap().is_settled());
    assert_eq!(head::read(&head).unwrap(), after);
    // Without one, more than the first write is missed.
    std::fs::remove_file(&head).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("journal.head: missing, expected write 3"), "{error}");
    // Nor is that of another run its own.
    let other = tempfile::tempdir().unwrap();
    drop(started(other.path(), 2));
    std::fs::copy(other.path().join(HEAD_FILE), &head).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains(&format!("run {}", RunId([2; 16]))), "{error}");
    // Nor that of as many writes which were others.
    let twin = tempfile::tempdir().unwrap();
    let mut journal = started(twin.path(), 1);
    for now in [8, 9] {
        journal.append(&Event::Tick.to_wire(now)).unwrap();
    }
    drop(journal);
    std::fs::copy(twin.path().join(HEAD_FILE), &head).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("journal.head: write 3"), "{error}");
    assert!(error.contains("of another history"), "{error}");
}

#[test]
fn a_start_that_ended_before_its_head_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    drop(started(folder.path(), 1));
    std::fs::remove_file(folder.path().join(HEAD_FILE)).unwrap();
    let journal = open(folder.path()).unwrap();
    assert!(journal.started() && journal.is_settled());
}

#[test]
fn a_write_that_fails_is_not_there_or_known_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let left = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    drop(started(folder.path(), 1));
    let faults = Faults::counting(left.clone());
    let mut journal = Journal::open(folder.path(), Durability::Process, faults).unwrap();
    let event = Event::Tick.to_wire(7);
    let fail = |at| left.store(at, std::sync::atomic::Ordering::Relaxed);
    fail(1);
    let error = journal.append(&event).unwrap_err().to_string();
    assert!(error.contains("a fault was asked for"), "{error}");
    assert!(journal.events().unwrap().is_empty() && journal.is_settled());
    // Written, and its head not.
    fail(2);
    assert!(journal.append(&event).is_err());
    assert!(journal.events().unwrap().len() == 1 && !journal.is_settled());
    journal.append(&event).unwrap();
    assert!(journal.events().unwrap().len() == 2 && journal.is_settled());
    drop(journal);
    open(folder.path()).unwrap();
}
