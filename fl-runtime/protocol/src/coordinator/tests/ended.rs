//! Servers that forgot that their run is over.

use super::*;
use crate::Ended;

const END: Ended = Ended { round: 2, model: Digest([9; 32]) };

/// A client declines and says what it was told of an end.
fn declines(c: &mut Coordinator, client: u8, ended: wire::Ended) -> Result<Vec<Effect>, Refusal> {
    let turn = c.turn();
    let declined = wire::Declined { ended: Some(ended), ..Default::default() };
    let body = Some(wire::message::Body::Declined(declined));
    let message = wire::Message { round: turn.round, attempt: turn.attempt, body };
    c.handle(Millis(1), Event::Message { client: id(client), message })
}

fn told(c: &mut Coordinator, client: u8, ended: Ended) -> Result<Vec<Effect>, Refusal> {
    declines(c, client, ended.into())
}

/// Who hasn't answered is silent; then so many clients are there.
fn silence(c: &mut Coordinator, online: u8) {
    let deadline = c.deadline().unwrap();
    c.handle(deadline, Event::Tick).unwrap();
    c.handle(deadline, start(online)).unwrap();
}

fn restarted(c: &Coordinator) -> Coordinator {
    let again = Coordinator::restore(c.plan().clone(), RUN, &c.snapshot()).unwrap();
    assert_eq!(again.snapshot(), c.snapshot());
    again
}

/// Five clients that were all drawn, of which these were told of these ends.
fn after(words: &[(u8, Ended)]) -> Coordinator {
    let mut c = coordinator(|plan| (plan.cohort.size, plan.cohort.minimum) = (5, 5));
    c.handle(Millis(1), start(5)).unwrap();
    for (client, ended) in words {
        told(&mut c, *client, *ended).unwrap();
        silence(&mut c, 5);
    }
    c
}

#[test]
fn a_run_that_most_of_its_clients_were_told_is_over_ends_with_that_model() {
    let c = after(&[(2, END), (4, END)]);
    // Two of five may lie.
    assert!(!c.finished() && c.told_end().is_none() && restarted(&c).told_end().is_none());
    // What was said is known after a restart.
    let mut again = restarted(&c);
    again.handle(Millis(1), start(5)).unwrap();
    told(&mut again, 5, END).unwrap();
    silence(&mut again, 5);
    assert!(again.finished());
    let mut c = after(&[(2, END), (4, END), (5, END)]);
    assert!(c.finished());
    assert_eq!((c.told_end(), c.turn()), (Some(END), Turn::new(2, 1)));
    for c in [c.clone(), restarted(&c)] {
        let asked = c.instruction(&id(1));
        let Some(What::Finished(finished)) = asked.what else { panic!("{asked:?}") };
        assert_eq!((asked.round, finished.model), (2, END.model.0.to_vec()));
        assert!(c.kept().contains(&END.model));
    }
    assert_eq!(c.handle(Millis(1), start(5)), Err(Refusal::Finished));
    // It has no model to go on from, whatever a longer plan says.
    let mut longer = c.plan().clone();
    longer.rounds = 9;
    let longer = Coordinator::restore(longer, RUN, &c.snapshot()).unwrap();
    assert!(longer.finished());
}

#[test]
fn the_end_that_more_than_half_were_told_is_known_by_effects_that_are_stored() {
    let mut c = coordinator(|plan| plan.cohort.size = 1);
    c.handle(Millis(1), start(1)).unwrap();
    told(&mut c, 1, END).unwrap();
    let effects = c.handle(Millis(1), start(1)).unwrap();
    let [Effect::Failed(failed), Effect::Finished] = &effects[..] else { panic!("{effects:?}") };
    assert!(failed.reason.contains("told that the run is over after round 2"), "{failed:?}");
    let standing = Standing::of(&c.snapshot());
    assert_eq!(standing, Standing { turn: Turn::new(2, 1), over: Some(END.model) });
    // At the end of the open round its attempts count on.
    let mut c = coordinator(|plan| plan.cohort.size = 1);
    c.handle(Millis(1), start(1)).unwrap();
    told(&mut c, 1, Ended { round: 1, ..END }).unwrap();
    c.handle(Millis(1), start(1)).unwrap();
    assert_eq!((c.finished(), c.turn()), (true, Turn::new(1, 3)));
    // One that ended by itself goes on if its plan has more rounds.
    let ended = coordinator(|_| ()).after(2);
    assert!(ended.finished() && restarted(&ended).finished());
    let mut longer = ended.plan().clone();
    longer.rounds = 3;
    let longer = Coordinator::restore(longer, RUN, &ended.snapshot()).unwrap();
    assert_eq!((longer.finished(), longer.turn()), (false, Turn::new(3, 1)));
}

#[test]
fn a_few_that_are_alone_for_a_while_end_no_run() {
    let mut c = coordinator(|plan| (plan.cohort.size, plan.cohort.minimum) = (5, 1));
    c.handle(Millis(1), start(5)).unwrap();
    (1..=5).for_each(|client| drop(c.handle(Millis(1), uploaded(client, FIRST)).unwrap()));
    c.handle(Millis(1), head(7)).unwrap();
    // Two of the five that are counted are there.
    for _ in 0..3 {
        c.handle(Millis(1), start(2)).unwrap();
        (1..=2).for_each(|client| drop(told(&mut c, client, END).unwrap()));
        assert_eq!((c.phase(), c.turn().round), ("gather", 2));
    }
    // With a third one they are most, unless one of them broke the protocol.
    let mut fewer = c.clone();
    c.handle(Millis(1), start(3)).unwrap();
    told(&mut c, 3, END).unwrap();
    silence(&mut c, 3);
    assert!(c.finished());
    let exclusion = Exclusion { turn: FIRST, reason: "garbage".into() };
    fewer.excluded.insert(id(2), exclusion);
    fewer.handle(Millis(1), start(2)).unwrap();
    assert!(!fewer.finished());
}

#[test]
fn words_of_different_ends_or_of_rounds_that_are_over_end_nothing() {
    let other = Ended { model: Digest([8; 32]), ..END };
    let later = Ended { round: 3, ..END };
    assert!(!after(&[(1, END), (2, END), (3, other), (4, other), (5, later)]).finished());
    // Each has one word, the last.
    assert!(!after(&[(1, END), (1, END), (1, END), (2, END)]).finished());
    assert!(!after(&[(1, END), (2, END), (2, other), (3, END)]).finished());
    // A run that was made longer is past its first end.
    let first = Ended { round: 1, ..END };
    let mut c = coordinator(|plan| (plan.cohort.size, plan.cohort.minimum) = (2, 1)).after(1);
    for _ in 0..2 {
        c.handle(Millis(1), start(2)).unwrap();
        (1..=2).for_each(|client| drop(told(&mut c, client, first).unwrap()));
        assert_eq!(c.phase(), "gather");
    }
    // Nor is it the word of who was not asked, or has answered.
    let mut c = after(&[]);
    let turn = c.turn();
    assert_eq!(told(&mut c, 7, END), Err(Refusal::NotSelected(id(7))));
    c.handle(Millis(1), uploaded(1, turn)).unwrap();
    assert_eq!(told(&mut c, 1, END), Err(Refusal::Conflict("answer")));
    let refused = declines(&mut c, 2, wire::Ended { round: 2, model: vec![9; 31] });
    assert_eq!(refused, Err(Refusal::Malformed("digest")));
    assert_eq!(c.ends, Ends::default());
}
