//! Servers that know less of their clients than those do, once their journals were repaired.

use std::collections::BTreeSet;

use super::secure::{ALL, Session, first};
use super::*;

impl Session {
    pub fn ids(&self, numbers: &[usize]) -> BTreeSet<ClientId> {
        numbers.iter().map(|number| *self.participants[*number].client()).collect()
    }

    pub fn cohort(&self) -> BTreeSet<ClientId> {
        self.coordinator.cohort().into_iter().map(|(client, _)| client).collect()
    }

    pub fn counted(&self) -> BTreeSet<ClientId> {
        self.coordinator.accepted().map(|(client, _)| *client).collect()
    }

    /// The server is another one, which has begun this many rounds and knows nothing of them.
    fn forget(&mut self, rounds: u32) {
        self.coordinator = first(self.coordinator.plan().clone()).after(rounds);
    }

    /// It starts again from its snapshot.
    fn restart(&mut self) {
        let snapshot = self.coordinator.snapshot();
        let restored = Coordinator::restore(self.coordinator.plan().clone(), RUN, &snapshot);
        assert_eq!(restored.as_ref().unwrap().snapshot(), snapshot);
        self.coordinator = restored.unwrap();
    }

    /// A client says that it knows this, in the open attempt.
    fn says(
        &mut self,
        number: usize,
        summed: &BTreeSet<ClientId>,
        joined: Option<Turn>,
    ) -> Result<Vec<Effect>, Refusal> {
        let turn = self.coordinator.turn();
        let declined = wire::Declined {
            summed: summed.iter().map(|client| client.0.to_vec()).collect(),
            joined: joined.map(wire::Turn::from),
            ..Default::default()
        };
        let body = Some(wire::message::Body::Declined(declined));
        let message = wire::Message { round: turn.round, attempt: turn.attempt, body };
        let client = *self.participants[number].client();
        self.coordinator.handle(Millis(1), Event::Message { client, message })
    }
}

#[test]
fn a_server_that_forgot_a_sum_is_told_of_it_and_makes_no_other() {
    let mut session = Session::new(&[8; 5], 3);
    session.until(&ALL, "collect");
    // The fifth drops out; of the others there is a sum.
    session.pass(&ALL[..4]);
    session.wait();
    (0..2).for_each(|_| session.pass(&ALL[..4]));
    assert_eq!(session.coordinator.phase(), "combine");
    let summed = session.counted();
    assert_eq!(summed, session.ids(&ALL[..4]));
    // Its journal is lost, and what is left of it abandons the round.
    session.forget(1);
    session.until(&ALL, "confirm");
    session.pass(&ALL);
    // As many as the shares were enough of.
    let refused = session.reasons.len();
    assert!((3..=4).contains(&refused), "{:?}", session.reasons);
    assert!(session.reasons[0].contains("a set that differs by 1"), "{:?}", session.reasons);
    assert_eq!(session.coordinator.turn(), Turn::new(2, 2));
    assert_eq!(session.coordinator.known.sums(), std::slice::from_ref(&summed));
    session.restart();
    // The same four meet, and the fifth isn't summed.
    session.until(&ALL, "combine");
    assert_eq!(session.counted(), summed);
    assert_eq!(session.reasons.len(), refused, "{:?}", session.reasons);
    // Of another model nothing is known.
    session.coordinator.handle(Millis(1), head(7)).unwrap();
    assert!(session.coordinator.known.sums().is_empty());
}

#[test]
fn a_server_behind_its_clients_goes_on_after_them() {
    let mut session = Session::new(&[8; 5], 9);
    session.until(&ALL, "unmask");
    session.pass(&[0]);
    session.wait();
    session.until(&ALL, "collect");
    session.wait();
    session.until(&ALL, "share");
    assert_eq!(session.coordinator.turn(), Turn::new(2, 2));
    session.forget(0);
    session.begin(&ALL);
    session.pass(&ALL);
    assert!(session.reasons[0].contains("the last one joined"), "{:?}", session.reasons);
    assert_eq!(session.coordinator.turn(), Turn::new(2, 3));
    session.until(&ALL, "unmask");
    // Whoever revealed shares in a round joins no other attempt at it.
    session.pass(&ALL);
    session.forget(1);
    session.coordinator.turn = Turn::new(2, 8);
    session.begin(&ALL);
    session.pass(&ALL);
    assert_eq!(session.coordinator.turn(), Turn::new(3, 1));
    session.until(&ALL, "combine");
}

#[test]
fn clients_that_are_past_the_last_round_end_the_run() {
    let mut session = Session::new(&[8; 5], 2);
    for ahead in [Turn::new(2, u32::MAX), Turn::new(u32::MAX, 1)] {
        session.forget(0);
        session.begin(&ALL);
        let mut last = Vec::new();
        for number in ALL.into_iter().take(3) {
            last = session.says(number, &BTreeSet::new(), Some(ahead)).unwrap();
        }
        assert!(last.is_empty(), "{last:?}");
        let effects = session.wait();
        assert!(matches!(effects[..], [Effect::Failed(_), Effect::Finished]), "{effects:?}");
        session.restart();
        assert!(session.coordinator.finished());
    }
}

#[test]
fn a_few_liars_choose_neither_who_meets_nor_which_attempt_follows() {
    let all: Vec<usize> = (0..10).collect();
    let mut session = Session::among(&[8; 10], 9, (0.2, 0.2));
    let (far, liars) = (Turn::new(7, 7), [2, 3]);
    let victims = session.ids(&[1, 2, 3]);
    for _ in 0..2 {
        session.until(&all, "collect");
        for liar in liars {
            session.says(liar, &victims, Some(far)).unwrap();
        }
        // Of attempts a third.
        session.says(4, &BTreeSet::new(), Some(far)).unwrap();
        let turn = session.coordinator.turn();
        session.wait();
        session.restart();
        assert_eq!(session.coordinator.turn(), Turn::new(1, turn.attempt + 1));
        assert!(session.coordinator.known.sums().is_empty());
    }
    // Whoever says so takes part with nobody else, by turns.
    session.begin(&all);
    let cohort = session.cohort();
    let honest: Vec<usize> = all.iter().copied().filter(|number| !liars.contains(number)).collect();
    assert_eq!(cohort, session.ids(&honest));
    session.wait();
    // Of three one is honest.
    session.until(&all, "collect");
    let other = session.ids(&[0, 5, 6]);
    session.says(0, &other, None).unwrap();
    assert!(session.coordinator.known.sums().is_empty());
    session.says(1, &victims, None).unwrap();
    assert_eq!(session.coordinator.known.sums(), [victims]);
}

#[test]
fn words_of_sums_that_there_never_were_are_refused() {
    let mut session = Session::new(&[8; 5], 9);
    session.until(&ALL, "collect");
    let before = format!("{:?}", session.coordinator);
    let without = session.ids(&[1, 2, 3]);
    let few = session.ids(&[0, 1]);
    let mut many = session.ids(&ALL);
    many.insert(id(77));
    for members in [without, few, many] {
        let refused = session.says(0, &members, None);
        assert_eq!(refused, Err(Refusal::Malformed("members of a sum")));
    }
    // Out of order, and no keys at all.
    let keys = session.ids(&ALL);
    let summed: Vec<Vec<u8>> = keys.iter().rev().map(|client| client.0.to_vec()).collect();
    let twice = [&[summed[0].clone()], &summed[..4]].concat();
    let mut in_order = twice.clone();
    in_order.sort();
    for summed in [summed, twice, in_order, vec![vec![7; 31]; 3]] {
        let declined = wire::Declined { summed, ..Default::default() };
        let body = Some(wire::message::Body::Declined(declined));
        let message = wire::Message { round: 1, attempt: 1, body };
        let client = *session.participants[0].client();
        let refused = session.coordinator.handle(Millis(1), Event::Message { client, message });
        assert_eq!(refused.unwrap_err().name(), "malformed");
    }
    assert_eq!(format!("{:?}", session.coordinator), before);
    // What is refused for another reason isn't kept either.
    session.pass(&[0]);
    let before = format!("{:?}", session.coordinator);
    let refused = session.says(0, &keys, Some(Turn::new(9, 9)));
    assert_eq!(refused, Err(Refusal::Conflict("answer")));
    assert_eq!(format!("{:?}", session.coordinator), before);
}
