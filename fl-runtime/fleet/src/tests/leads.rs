//! Who leads, and who adds up which part.

use std::time::Duration;

use tern_protocol::coordinator::{Coordinator, Event, Head};
use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::{ClientId, Digest, RunId, RunPlan, Turn};
use tern_server::federation::Counted;
use tern_server::storage::Ledger as _;

use super::place::Place;
use crate::lease::Lease;
use crate::parts::{Folded, SIZE};
use crate::requests::{Answer, Asked};
use crate::{Database, PgLedger};

const TURN: Turn = Turn { round: 3, attempt: 2 };

fn coordinator() -> Coordinator {
    let weights = TensorSpec { name: "w".into(), shape: vec![4] };
    let plan = RunPlan::new("test", ModelKind::Tensors(vec![weights]), 2);
    Coordinator::new(plan, RunId([7; 16]), Head::initial(Digest([1; 32]), Vec::new())).unwrap()
}

/// Runs what waits off the event loop.
async fn off<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_leader_writes_nothing_once_another_leads() {
    let Some(place) = Place::new().await else { return };
    let (ann, bob) = (place.database().await, place.database().await);
    let first = Lease::take(&ann).await.unwrap().unwrap();
    assert!(Lease::take(&bob).await.unwrap().is_none());
    // It is renewed for as long as it lives.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(Lease::take(&bob).await.unwrap().is_none() && !first.is_lost());
    let epoch = first.epoch();
    let mut old = PgLedger::new(&ann, epoch);
    let state = coordinator();
    let (old, after) = off(move || {
        old.start(&RunId([7; 16]), b"{}", &Digest([1; 32]), &state.snapshot()).unwrap();
        assert!(old.events().unwrap().is_empty());
        old.append(&Event::Tick.to_wire(1), &state).unwrap();
        (old, state)
    })
    .await;
    // A process that hangs renews nothing.
    drop(first);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let second = Lease::take(&bob).await.unwrap().unwrap();
    assert_eq!(second.epoch(), epoch + 1);
    let mut new = PgLedger::new(&bob, second.epoch());
    let of = ann.clone();
    let refused = off(move || {
        let mut old = old;
        let event = Event::Tick.to_wire(2);
        let refused = |result: tern_protocol::Result<()>| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("epoch of the lease"), "{error}");
        };
        refused(old.append(&event, &after));
        refused(old.repeat(&after));
        refused(old.enroll(tern_protocol::Millis(1), &ClientId([1; 32]), None));
        refused(old.set_plan(b"other"));
        refused(of.wait(of.close(epoch, TURN)));
        refused(of.wait(of.deal(epoch, TURN, &[])));
        refused(of.wait(of.reopen(epoch, TURN, 0)));
        refused(of.wait(of.answer(epoch, &[])));
        // The new one goes on where the old one was.
        assert_eq!(new.events().unwrap(), [Event::Tick.to_wire(1)]);
        new.append(&event, &after).unwrap();
        assert_eq!(new.events().unwrap().len(), 2);
        assert!(old.clients().unwrap().is_empty());
    });
    refused.await;
    // Giving back an old lease takes nothing from the new one.
    off(move || second.release().unwrap()).await;
    assert!(Lease::take(&ann).await.unwrap().is_some());
}

/// A write of which the leader doesn't know that it was made is found before the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_in_doubt_is_never_written_over() {
    let Some(place) = Place::new().await else { return };
    let database = place.database().await;
    let lease = Lease::take(&database).await.unwrap().unwrap();
    let epoch = lease.epoch();
    off(move || {
        let (mut one, mut two) = (PgLedger::new(&database, epoch), PgLedger::new(&database, epoch));
        let state = coordinator();
        one.start(&RunId([7; 16]), b"{}", &Digest([1; 32]), &state.snapshot()).unwrap();
        assert!(two.start(&RunId([8; 16]), b"{}", &Digest([1; 32]), b"").is_err());
        assert!(one.events().unwrap().is_empty() && two.events().unwrap().is_empty());
        one.append(&Event::Tick.to_wire(1), &state).unwrap();
        let error = two.append(&Event::Tick.to_wire(2), &state).unwrap_err().to_string();
        assert!(error.contains("is not the next one"), "{error}");
        assert_eq!(two.events().unwrap().len(), 1);
        two.append(&Event::Tick.to_wire(2), &state).unwrap();
    })
    .await;
}

fn updates(count: u32) -> Vec<(ClientId, Counted)> {
    let update = |number: u32| {
        let digest = Digest::of(&number.to_le_bytes());
        (ClientId::numbered(number as usize), Counted { digest, weight: 1 + number })
    };
    (0..count).map(update).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_of_who_claimed_it_last() {
    let Some(place) = Place::new().await else { return };
    let (leader, ann, bob) =
        (place.database().await, place.database().await, place.database().await);
    let lease = Lease::take(&leader).await.unwrap().unwrap();
    let all = updates(2 * SIZE as u32 + 2);
    leader.deal(lease.epoch(), TURN, &all).await.unwrap();
    // Each part is claimed once, and all updates are in one.
    let mut claims = Vec::new();
    for database in [&ann, &bob, &ann] {
        claims.push(database.claim().await.unwrap().unwrap());
    }
    assert_eq!(ann.claim().await.unwrap(), None);
    let mut dealt: Vec<_> = claims.iter().flat_map(|claim| claim.updates.clone()).collect();
    dealt.sort_by_key(|(client, _)| *client);
    let mut expected = all.clone();
    expected.sort_by_key(|(client, _)| *client);
    assert_eq!(dealt, expected);
    assert_eq!(leader.finished(TURN).await.unwrap(), None);
    // One is kept; the others' leases end, and another takes them.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(ann.keep_claim(&claims[0]).await.unwrap());
    }
    let again = bob.claim().await.unwrap().unwrap();
    assert_eq!((again.number, &again.updates), (claims[1].number, &claims[1].updates));
    assert_ne!(again.name(), claims[1].name());
    let sum = |byte| Folded::Sum(Digest([byte; 32]));
    assert!(!ann.keep_claim(&claims[1]).await.unwrap());
    assert!(!ann.finish_part(&claims[1], &sum(1)).await.unwrap(), "a zombie's");
    assert!(bob.finish_part(&again, &sum(2)).await.unwrap());
    assert!(!bob.finish_part(&again, &sum(3)).await.unwrap(), "once");
    // Given back, it is free at once.
    let third = ann.claim().await.unwrap().unwrap();
    assert_eq!(third.number, claims[2].number);
    ann.give_back(&third).await.unwrap();
    let third = bob.claim().await.unwrap().unwrap();
    let lost = Folded::Lost(vec![ClientId::numbered(130)]);
    assert!(bob.finish_part(&third, &lost).await.unwrap());
    assert_eq!(leader.finished(TURN).await.unwrap(), None);
    assert!(ann.finish_part(&claims[0], &sum(4)).await.unwrap());
    let finished = leader.finished(TURN).await.unwrap().unwrap();
    let folded: Vec<_> = finished.iter().map(|part| part.folded.clone()).collect();
    assert_eq!(folded, [sum(4), sum(2), lost]);
    assert_eq!(finished[1].name, again.name());
    // The same updates again: what is done stays done. Others: all is dealt anew.
    leader.deal(lease.epoch(), TURN, &all).await.unwrap();
    assert!(leader.finished(TURN).await.unwrap().is_some());
    leader.reopen(lease.epoch(), TURN, 1).await.unwrap();
    assert_eq!(ann.claim().await.unwrap().unwrap().number, 1);
    leader.deal(lease.epoch(), TURN, &all[1..]).await.unwrap();
    assert_eq!(ann.claim().await.unwrap().unwrap().updates, all[1..=SIZE]);
}

/// Many that claim at once: no part goes to two, none is left.
#[tokio::test(flavor = "multi_thread")]
async fn claims_are_exclusive() {
    let Some(mut place) = Place::new().await else { return };
    place.options.lease_seconds = 60.0;
    let leader = place.database().await;
    let lease = Lease::take(&leader).await.unwrap().unwrap();
    leader.deal(lease.epoch(), TURN, &updates(100 * SIZE as u32)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let database: Database = leader.clone();
        tasks.spawn(async move {
            let mut mine = Vec::new();
            while let Some(claim) = database.claim().await.unwrap() {
                mine.push(claim.number);
            }
            mine
        });
    }
    let mut claimed: Vec<i64> = tasks.join_all().await.into_iter().flatten().collect();
    claimed.sort_unstable();
    assert_eq!(claimed, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_taken_at_one_gateway() {
    let Some(place) = Place::new().await else { return };
    let gateways = [place.database().await, place.database().await];
    let nonce = |client: u8, nonce: u8| (ClientId([client; 32]), [nonce; 16]);
    let first = gateways[0].take_nonces(&[nonce(1, 1), nonce(1, 2), nonce(1, 1)]).await.unwrap();
    assert_eq!(first, [true, true, false]);
    let second = gateways[1].take_nonces(&[nonce(1, 2), nonce(2, 2), nonce(1, 3)]).await.unwrap();
    assert_eq!(second, [false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_once_and_in_order() {
    let Some(place) = Place::new().await else { return };
    let database = place.database().await;
    let lease = Lease::take(&database).await.unwrap().unwrap();
    let asked = |token: &str| Asked::Enroll(tern_protocol::wire::Enroll { token: token.into() });
    let mut numbers = Vec::new();
    for client in [1, 2, 3] {
        let (client, asked) = (ClientId([client; 32]), asked(&format!("token {client}")));
        numbers.push(database.leave(&client, &asked).await.unwrap());
    }
    let waiting = database.asked().await.unwrap();
    let clients: Vec<u8> = waiting.iter().map(|(_, client, _)| client.0[0]).collect();
    assert_eq!((clients, &waiting[1].2), (vec![1, 2, 3], &asked("token 2")));
    let answer = Answer::new(&Ok(false), 9);
    database.answer(lease.epoch(), &[(numbers[1], answer.clone())]).await.unwrap();
    assert_eq!(database.asked().await.unwrap().len(), 2);
    let found = database.answered(&numbers).await.unwrap();
    assert_eq!(found, [(numbers[1], answer)]);
    assert!(database.answered(&numbers).await.unwrap().is_empty());
}
