//! Attempts that fail, bodies that get lost, keys that are revoked.

use tern_protocol::coordinator::Progress;

use super::*;
use crate::journal::Journal;

#[test]
fn a_key_that_is_listed_no_more_is_refused_from_the_next_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = |admission, revoked| {
        let options = Options { admission, revoked, ..options() };
        Federation::open(folder.path(), &plan(), &initial(&plan()), options).unwrap()
    };
    let list = |numbers: &[u8]| Admission::List(numbers.iter().map(|number| id(*number)).collect());
    let mut federation = open(list(&[1, 2]), vec![]);
    for number in [1, 2] {
        federation.enroll(Millis(1), id(number), None).unwrap();
    }
    let refused = |federation: &mut Federation| {
        assert_eq!(federation.poll(Millis(2), &id(1), 10).unwrap_err().name(), "unknown");
        let again = federation.enroll(Millis(2), id(1), Some("token")).unwrap_err();
        assert_eq!((again.name(), federation.status().enrolled), ("not_admitted", 1));
        federation.poll(Millis(2), &id(2), 10).unwrap();
    };
    drop(federation);
    refused(&mut open(list(&[2]), vec![]));
    // By name, where a token or nothing at all is enough.
    refused(&mut open(Admission::Open, vec![id(1)]));
    refused(&mut open(Admission::Tokens(vec![Token::new("token", 9)]), vec![id(1)]));
    // It was registered, and is again.
    open(list(&[1, 2]), vec![]).poll(Millis(3), &id(1), 10).unwrap();
}

#[test]
fn an_update_survives_a_body_that_the_server_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    let mut member = Member::new(&mut federation, 1);
    let turn = Turn::new(1, 1);
    // The server has something else in its place; the client goes on behind it.
    federation.upload_append(&id(1), turn, 0, &[0; 300]).unwrap();
    member.turn(&mut federation, Millis(2));
    assert_eq!(federation.status().refusals["hash"], 1);
    assert!(member.participant.kept().pending.is_some());
    let cohort = federation.coordinator().cohort();
    assert!(cohort.contains(&(id(1), Progress::Asked)), "{cohort:?}");
    member.turn(&mut federation, Millis(3));
    assert_eq!(federation.coordinator().accepted().count(), 1);
}

#[test]
fn a_body_that_comes_with_its_end_takes_the_place_of_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    // What the server has of theirs isn't theirs.
    let pending = [1, 2].map(|number| {
        let mut member = Member::new(&mut federation, number);
        federation.upload_append(&id(number), Turn::new(1, 1), 0, &[0; 300]).unwrap();
        member.turn(&mut federation, Millis(2));
        member.participant.kept().pending.clone().unwrap()
    });
    let expected = pending[0].body.len() as u64;
    let mut finish = |number: usize, body: &[u8]| {
        let finish = wire::Finish { body: body.to_vec(), ..pending[number].finish() };
        let finished = federation.upload_finish(Millis(3), &id(number as u8 + 1), finish);
        (finished, federation.status().uploaded)
    };
    // It was forgotten as they went on behind it; now there is nothing.
    let length = |given| Err(Refusal::Length { given, expected });
    assert_eq!(finish(0, &[]), (length(0), 0));
    let body = &pending[0].body;
    for given in [1, body.len() - 1, body.len() + 1] {
        let mut wrong = body.clone();
        wrong.resize(given, 0);
        assert_eq!(finish(0, &wrong), (length(given as u64), 0));
    }
    assert_eq!(finish(0, &vec![0; body.len()]), (Err(Refusal::Hash), 0));
    let counted = |repeated| Ok(wire::Ack { repeated });
    assert_eq!(finish(0, body), (counted(false), expected));
    assert_eq!(finish(0, body), (counted(true), expected));
    // Pieces stay where what comes isn't whole, and make place for what is.
    let (second, turn) = (id(2), Turn::new(1, 1));
    federation.upload_append(&second, turn, 0, &[0; 300]).unwrap();
    let mut finish = |body: &[u8]| {
        let finish = wire::Finish { body: body.to_vec(), ..pending[1].finish() };
        let finished = federation.upload_finish(Millis(3), &second, finish);
        (finished, federation.upload_offset(&second, turn))
    };
    assert_eq!(finish(&pending[1].body[1..]), (length(expected - 1), Ok(300)));
    assert_eq!(finish(&[]), (length(300), Ok(300)));
    assert_eq!(finish(&pending[1].body), (counted(false), Err(Refusal::Repeated)));
    assert_eq!(federation.status().uploaded, 2 * expected);
    assert_eq!(federation.coordinator().accepted().count(), 2);
}

/// Attempts that fail by their deadlines, until this one is open; the time.
fn failing(federation: &mut Federation, attempt: u32) -> Millis {
    let mut now = Millis(1);
    while federation.coordinator().turn().attempt < attempt {
        now = federation.coordinator().deadline().unwrap_or(now.after(1_000));
        for number in 1..=4 {
            federation.poll(now, &id(number), 10).unwrap();
        }
        federation.advance(now).unwrap();
    }
    now
}

#[test]
fn attempts_that_fail_leave_nothing_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let events = || {
        let (contents, _) = Journal::contents(folder.path()).unwrap();
        assert_eq!(contents.damage, []);
        contents.events.len()
    };
    let mut federation = opened(folder.path(), options());
    assert_eq!(events(), 1);
    let now = failing(&mut federation, 5);
    assert_eq!((events(), federation.coordinator().phase()), (0, "gather"));
    let before = format!("{:?}", federation.coordinator());
    // A restart goes on with the same attempt.
    drop(federation);
    let mut federation =
        Federation::open(folder.path(), &plan(), &initial(&plan()), options()).unwrap();
    assert_eq!(format!("{:?}", federation.coordinator()), before);
    for number in 1..=4 {
        federation.poll(now, &id(number), 10).unwrap();
    }
    federation.advance(now.after(60_000)).unwrap();
    assert_eq!(federation.coordinator().turn(), Turn::new(1, 5));
    assert_eq!((events(), federation.coordinator().phase()), (1, "collect"));
}

#[test]
fn attempts_that_fail_again_and_again_wait_longer() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    for (attempt, seconds) in [(2, 0), (3, 2), (4, 4), (5, 8), (9, 60)] {
        let now = failing(&mut federation, attempt);
        let end = now.after(1_000 * seconds);
        let phase = |federation: &mut Federation, now: Millis| {
            for number in 1..=4 {
                federation.poll(now, &id(number), 10).unwrap();
            }
            federation.coordinator().phase()
        };
        phase(&mut federation, now);
        if seconds > 0 {
            assert_eq!(federation.next_attempt(), Some(end), "attempt {attempt}");
            assert_eq!(phase(&mut federation, Millis(end.0 - 1)), "gather", "attempt {attempt}");
        }
        assert_eq!(phase(&mut federation, end), "collect", "attempt {attempt}");
    }
    assert_eq!(federation.next_attempt(), None);
    assert_eq!([1, 2, u32::MAX].map(gather::pause), [0, 0, 60_000]);
}

#[test]
fn rounds_wait_for_nobody_who_does_not_come() {
    let folder = tempfile::tempdir().unwrap();
    // Asks for four; there are three, and one who registered and left.
    let (plan, mut now) = (plan(), Millis(1));
    let mut federation =
        Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    let mut members: Vec<_> = (1..=3).map(|number| Member::new(&mut federation, number)).collect();
    federation.enroll(now, id(4), None).unwrap();
    let mut turns = |federation: &mut Federation, now: Millis| {
        members.iter_mut().for_each(|member| assert!(member.turn(federation, now)));
        federation.coordinator().phase()
    };
    // The first round waits for the fourth, who might still come, and no later one does.
    assert_eq!(turns(&mut federation, now), "gather");
    now = now.after(plan.cohort.gather_ms);
    turns(&mut federation, now);
    for round in 2..=3 {
        while federation.coordinator().turn().round < round {
            turns(&mut federation, now);
            federation.tick(now).unwrap();
        }
        turns(&mut federation, now);
        assert_eq!(federation.coordinator().cohort().len(), 3, "round {round}");
    }
    let status = federation.status();
    assert_eq!((status.online, status.enrolled, status.asked), (3, 4, 4));
    assert_eq!(federation.told, None, "four are enrolled");
}

#[test]
fn a_cohort_larger_than_the_enrolled_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan();
    let mut federation =
        Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    let mut members: Vec<_> = (1..=2).map(|number| Member::new(&mut federation, number)).collect();
    let now = Millis(1).after(plan.cohort.gather_ms);
    federation.poll(Millis(1), &id(1), 3).unwrap();
    while federation.coordinator().turn().round < 2 {
        members.iter_mut().for_each(|member| assert!(member.turn(&mut federation, now)));
        federation.tick(now).unwrap();
    }
    assert_eq!((federation.told, federation.status().enrolled), (Some(2), 2));
    // Both are there at once: the next round starts without a wait.
    members.iter_mut().for_each(|member| assert!(member.turn(&mut federation, now)));
    assert_eq!(federation.coordinator().phase(), "combine");
}

#[test]
fn failed_attempts_are_shown_with_their_reasons_and_who_was_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    assert_eq!(federation.status().failed, []);
    let decline = |federation: &mut Federation, number: u8| {
        let declined = wire::Declined { reason: "on battery".repeat(100), ..Default::default() };
        let body = Some(Body::Declined(declined));
        let message = wire::Message { round: 1, attempt: 1, body };
        federation.message(Millis(2), &id(number), message).unwrap();
    };
    decline(&mut federation, 1);
    let deadline = federation.coordinator().deadline().unwrap();
    federation.advance(deadline).unwrap();
    let failed = federation.status().failed;
    let [Failed { round: 1, attempt: 1, phase: "collect", reason, missing }] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert!(reason.contains("0 answered, 1 declined and 3 were silent"), "{reason}");
    let said = |number| {
        let found = missing.iter().find(|missing| missing.client == id(number)).unwrap();
        found.reason.as_ref().map(String::len)
    };
    assert_eq!([1, 2, 3, 4].map(said), [Some(200), None, None, None]);
    // Only the last ones are kept.
    failing(&mut federation, 20);
    let attempts: Vec<_> = federation.status().failed.iter().map(|f| f.attempt).collect();
    assert_eq!(attempts, (4..20).collect::<Vec<_>>());
}

#[test]
fn a_part_that_starts_elsewhere_or_comes_after_a_refusal_to_take_part_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    let (turn, body) = (Turn::new(1, 1), Codec::full(&initial(&plan())));
    let append = |federation: &mut Federation, number: u8, offset: u64, bytes: &[u8]| {
        federation.upload_append(&id(number), turn, offset, bytes).map_err(|refusal| refusal.name())
    };
    assert_eq!(append(&mut federation, 1, 0, &body[..300]), Ok(300));
    // Before the end of what is there, and behind it.
    for offset in [0, 299, 301, u64::MAX] {
        assert_eq!(append(&mut federation, 1, offset, &body[300..]), Err("offset"), "{offset}");
    }
    assert_eq!(append(&mut federation, 1, 300, &body[300..]), Ok(body.len() as u64));
    assert_eq!(append(&mut federation, 1, body.len() as u64, &[0]), Err("length"));
    federation.upload_finish(Millis(2), &id(1), finish(&body)).unwrap();
    let path = federation.bodies.upload_name(turn, &id(1));
    assert!(std::fs::read(path).unwrap() == body);

    append(&mut federation, 2, 0, &body).unwrap();
    let declined = tern_protocol::participant::declined(turn, "no power");
    federation.message(Millis(2), &id(2), declined).unwrap();
    assert_eq!(append(&mut federation, 2, 0, &body), Err("conflict"));
    let refusal = federation.upload_finish(Millis(2), &id(2), finish(&body)).unwrap_err();
    assert_eq!(refusal.name(), "conflict");
    assert_eq!(federation.coordinator().accepted().count(), 1);
}

#[test]
fn what_an_attempt_that_failed_had_is_neither_counted_nor_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan();
    plan.rounds = 1;
    let mut federation = opened_by(&plan, folder.path(), options());
    let on_disk = || {
        let files = ["models", "uploads", "partial"].map(|name| folder.path().join(name));
        let files = files.iter().flat_map(|path| std::fs::read_dir(path).unwrap());
        files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    let (first, second) = (Turn::new(1, 1), Turn::new(1, 2));
    let body = Codec::full(&initial(&plan));
    let send = |federation: &mut Federation, number: u8, turn: Turn, now: Millis| {
        federation.upload_append(&id(number), turn, 0, &body).unwrap();
        let finish = wire::Finish { attempt: turn.attempt, ..finish(&body) };
        federation.upload_finish(now, &id(number), finish).unwrap();
    };
    send(&mut federation, 1, first, Millis(2));
    federation.upload_append(&id(2), first, 0, &body[..300]).unwrap();
    // A body that isn't what was announced goes.
    federation.upload_append(&id(3), first, 0, &body).unwrap();
    let other = wire::Finish { digest: vec![0; 32], ..finish(&body) };
    assert_eq!(federation.upload_finish(Millis(2), &id(3), other).unwrap_err().name(), "hash");
    assert_eq!(federation.bodies.used(), on_disk());
    let now = failing(&mut federation, 2);
    for number in 1..=4 {
        federation.poll(now, &id(number), 10).unwrap();
    }
    federation.advance(now).unwrap();
    assert_eq!(federation.coordinator().turn(), second);
    assert_eq!(federation.bodies.used(), on_disk());
    for number in 2..=4 {
        send(&mut federation, number, second, now);
    }
    federation.tick(now).unwrap();
    assert!(federation.coordinator().finished());
    assert_eq!(federation.bodies.used(), on_disk());
    drop(federation);
    let audits = audit(folder.path(), &initial(&plan), &options()).unwrap();
    assert!(audits[0].holds() && audits[0].updates == 3, "{audits:?}");
}
