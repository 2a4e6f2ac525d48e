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
