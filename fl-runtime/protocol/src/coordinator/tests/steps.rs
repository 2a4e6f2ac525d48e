//! What the server takes of each step of a secure session, and how often.

use super::secure::{ALL, Session};
use super::*;
use crate::participant::{Action, Input, declined};
use crate::plan::{Encoding, Selection};

impl Session {
    /// What a client answers to its instruction, to be handled as often as one likes.
    fn answer(&mut self, number: usize) -> Event {
        let client = *self.participants[number].client();
        let instruction = self.coordinator.instruction(&client);
        let mut actions =
            self.participants[number].handle(Input::Instruction(instruction)).unwrap();
        match actions.pop() {
            Some(Action::Send(message)) => Event::Message { client, message },
            other => panic!("{other:?}"),
        }
    }

    fn refuses(&mut self, event: Event) -> &'static str {
        let before = format!("{:?}", self.coordinator);
        let refusal = self.coordinator.handle(Millis(1), event).unwrap_err();
        assert_eq!(format!("{:?}", self.coordinator), before, "{refusal}");
        refusal.name()
    }
}

#[test]
fn an_answer_that_comes_twice_is_taken_once() {
    let mut session = Session::new(&[8; 5], 2);
    session.begin(&ALL);
    for phase in ["advertise", "share", "check", "collect", "confirm", "unmask"] {
        assert_eq!(session.coordinator.phase(), phase);
        if phase == "collect" {
            session.pass(&ALL);
            continue;
        }
        let turn = session.coordinator.turn();
        let mine = session.answer(0);
        session.coordinator.handle(Millis(1), mine.clone()).unwrap();
        assert_eq!(session.refuses(mine), "repeated", "{phase}");
        // Who has answered doesn't decline, and who declined doesn't answer.
        let own = *session.participants[0].client();
        assert_eq!(session.refuses(says_no(own, turn)), "conflict", "{phase}");
        assert_eq!(session.refuses(says_no(id(77), turn)), "not_selected", "{phase}");
        if phase == "check" {
            let (late, client) = (session.answer(1), *session.participants[1].client());
            session.coordinator.handle(Millis(1), says_no(client, turn)).unwrap();
            assert_eq!(session.refuses(says_no(client, turn)), "repeated");
            assert_eq!(session.refuses(late), "conflict");
        }
        session.pass(&ALL[1..]);
    }
    assert_eq!(session.coordinator.phase(), "combine");
}

fn says_no(client: ClientId, turn: Turn) -> Event {
    let message = declined(turn, "no");
    Event::Message { client, message }
}

#[test]
fn an_attempt_that_fails_says_who_answered() {
    let mut session = Session::new(&[8; 5], 2);
    session.begin(&ALL);
    session.pass(&[0]);
    let declines = *session.participants[1].client();
    session.coordinator.handle(Millis(1), says_no(declines, FIRST)).unwrap();
    let effects = session.wait();
    let [Effect::Failed(failed)] = &effects[..] else { panic!("{effects:?}") };
    assert!(failed.reason.contains("1 answered, 1 declined and 3 were silent"), "{failed:?}");
    let expected = |number: usize| match number {
        0 => Progress::Answered,
        1 => Progress::Declined,
        _ => Progress::Asked,
    };
    for number in ALL {
        let member = (*session.participants[number].client(), expected(number));
        assert!(failed.members.contains(&member), "{number}: {failed:?}");
    }
    assert_eq!(failed.members.len(), 5);
}

#[test]
fn an_update_that_is_lost_after_shares_were_asked_for_ends_its_round() {
    for phase in ["unmask", "combine"] {
        let mut session = Session::new(&[8; 5], 3);
        session.until(&ALL, phase);
        let client = *session.participants[3].client();
        let lost = Event::Lost { client, turn: FIRST };
        let effects = session.coordinator.handle(Millis(2), lost).unwrap();
        let [Effect::Failed(failed)] = &effects[..] else { panic!("{effects:?}") };
        assert!(failed.reason.contains("is damaged; shares were revealed"), "{failed:?}");
        assert_eq!(session.coordinator.turn(), Turn::new(2, 1), "{phase}");
        assert_eq!(session.coordinator.known.sums().len(), 1);
    }
    // Before that another attempt follows.
    let mut session = Session::new(&[8; 5], 3);
    session.until(&ALL, "confirm");
    let client = *session.participants[3].client();
    let lost = Event::Lost { client, turn: FIRST };
    session.coordinator.handle(Millis(2), lost).unwrap();
    assert_eq!(session.coordinator.turn(), Turn::new(1, 2));
    assert!(session.coordinator.known.sums().is_empty());
}

#[test]
fn a_set_that_one_of_it_is_out_of_is_barred() {
    let mut session = Session::new(&[8; 5], 3);
    session.until(&ALL, "unmask");
    session.wait();
    assert!(!session.coordinator.is_barred());
    let out = |session: &mut Session, client: ClientId| {
        let exclusion = Exclusion { turn: FIRST, reason: "lied".into() };
        session.coordinator.excluded.insert(client, exclusion);
        session.coordinator.is_barred()
    };
    assert!(!out(&mut session, id(77)), "a client of no sum");
    let client = *session.participants[2].client();
    assert!(out(&mut session, client));
}

#[test]
fn a_set_meets_with_so_many_others_that_it_is_enough() {
    let mut session = Session::among(&[8; 5], 9, (0.0, 0.34));
    // Three of three: of five there would have to be four.
    session.until(&ALL[..3], "unmask");
    session.wait();
    assert_eq!(session.coordinator.turn(), Turn::new(2, 1));
    session.begin(&ALL);
    assert_eq!(session.coordinator.cohort().len(), 4, "{:?}", session.coordinator.cohort());
    session.wait();
    session.until(&ALL, "combine");
    assert_eq!(session.coordinator.turn().attempt, 2);
    assert_eq!(session.counted(), session.ids(&ALL[..3]));
}

#[test]
fn clients_scores_of_a_secure_round_are_those_of_its_sum() {
    let mut session = Session::new(&[8; 5], 2);
    session.coordinator.plan.evaluation.scores = Scores::Clients;
    session.until(&ALL, "combine");
    let mut head = Head::initial(Digest([7; 32]), Vec::new());
    head.training = Metrics::from([("loss".to_string(), 0.75)]);
    let effects = session.coordinator.handle(Millis(1), Event::Aggregated(head)).unwrap();
    let [Effect::Committed(record), ..] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(record.score.map(|score| score.value), Some(0.75));
}

#[test]
fn a_member_makes_one_vector_by_one_model() {
    let mut session = Session::new(&[8; 5], 2);
    session.until(&ALL, "collect");
    let asked = session.coordinator.instruction(session.participants[0].client());
    let mut ask = |change: fn(&mut wire::Train)| {
        let mut asked = asked.clone();
        if let Some(What::Train(train)) = &mut asked.what {
            change(train);
        }
        session.participants[0].handle(Input::Instruction(asked)).unwrap()
    };
    // Asked again, before the model is here.
    for _ in 0..2 {
        assert!(matches!(ask(|_| ())[..], [Action::Fetch(_)]));
    }
    let other: [fn(&mut wire::Train); 2] = [
        |train| train.model.as_mut().unwrap().digest = vec![9; 32],
        |train| train.scales = vec![0.5; 2],
    ];
    for change in other {
        let actions = ask(change);
        let [Action::Send(wire::Message { body: Some(body), .. })] = &actions[..] else {
            panic!("{actions:?}")
        };
        let wire::message::Body::Declined(declined) = body else { panic!("{body:?}") };
        let changed = declined.reason.contains("another model or scales");
        assert!(changed || declined.reason.contains("no part in the session"), "{declined:?}");
    }
}

#[test]
fn sums_differ_by_as_many_as_a_client_asks_for_beside_the_corrupt() {
    let all: Vec<usize> = (0..10).collect();
    let mut session = Session::among(&[8; 10], 9, (0.2, 0.2));
    session.require(1);
    session.until(&all, "combine");
    session.commit(0.5);
    // Two less, as many as may be corrupt.
    session.until(&all[..8], "confirm");
    session.pass(&all[..8]);
    assert!(session.reasons[0].contains("differs by 2, expected 3"), "{:?}", session.reasons);
    assert_eq!(session.coordinator.turn(), Turn::new(2, 2));
    session.until(&all, "combine");
    assert_eq!(session.counted(), session.ids(&all));
    session.commit(0.25);
    // Three less are taken, but for those that the session must have.
    session.require(0);
    session.until(&all[..8], "combine");
}

#[test]
fn samples_are_no_weights_of_a_ternary_sum() {
    let samples = [8, 9, 1 << 20, 10, 11];
    let mut session = Session::with(&samples, 2, (0.0, 0.4), |plan| {
        plan.updates.uplink = Encoding::Ternary;
        plan.cohort.selection = Selection::BySamples;
    });
    session.until(&ALL, "combine");
    assert_eq!(session.counted().len(), 5);
    assert!(session.reasons.is_empty(), "{:?}", session.reasons);
}
