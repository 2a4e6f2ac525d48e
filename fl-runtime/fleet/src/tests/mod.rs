//! The database of a fleet, against a real PostgreSQL: who is in an attempt, who leads, who adds up
//! which part.

mod leads;
mod place;
mod rates;
mod rounds;
mod schema;
mod seeds;

use std::collections::BTreeMap;

use place::{Place, taken};
use tern_protocol::{ClientId, Turn};

use crate::Outcome::{self, Closed, Conflict, Counted, Repeated};

const TURN: Turn = Turn { round: 1, attempt: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_counted_once_whichever_gateway_it_comes_to() {
    let Some(place) = Place::new().await else { return };
    place.open(TURN).await;
    let gateways = [place.database().await, place.database().await];
    let first = taken(TURN, 1, 7);
    assert_eq!(gateways[0].accept(TURN, std::slice::from_ref(&first)).await.unwrap(), [Counted]);
    // The same again, another of the client, and one of somebody else.
    let batch = [first.clone(), taken(TURN, 1, 8), taken(TURN, 2, 7)];
    let outcomes = gateways[1].accept(TURN, &batch).await.unwrap();
    assert_eq!(outcomes, [Repeated, Conflict, Counted]);
    // Two of a client in one batch: one of them is in.
    let batch = [taken(TURN, 3, 1), taken(TURN, 3, 1), taken(TURN, 3, 2)];
    assert_eq!(gateways[0].accept(TURN, &batch).await.unwrap(), [Counted, Repeated, Conflict]);
    assert_eq!(
        gateways[0].member(TURN, &ClientId([1; 32])).await.unwrap(),
        Some(first.finish.clone())
    );
    place.close(TURN).await;
    // What is in it is known still; nothing else comes in.
    let batch = [first, taken(TURN, 1, 8), taken(TURN, 4, 1)];
    assert_eq!(gateways[1].accept(TURN, &batch).await.unwrap(), [Repeated, Conflict, Closed]);
    // An attempt that never was takes nothing.
    let later = Turn::new(1, 2);
    assert_eq!(gateways[1].accept(later, &[taken(later, 1, 7)]).await.unwrap(), [Closed]);
    assert_eq!(place.members(TURN).await, 3);
    // Small bodies are with them, large ones not.
    let large = crate::Taken { body: None, ..taken(later, 5, 1) };
    place.open(later).await;
    gateways[0].accept(later, &[large, taken(later, 6, 9)]).await.unwrap();
    let clients = [5, 6, 7].map(|client| ClientId([client; 32]));
    let bodies = gateways[1].bodies(later, &clients).await.unwrap();
    assert_eq!(bodies.into_iter().collect::<Vec<_>>(), [(clients[1], vec![9; 100].into())]);
}

/// However many members an attempt has, in a table without statistics.
#[tokio::test(flavor = "multi_thread")]
async fn few_updates_are_found_by_few_reads() {
    let Some(place) = Place::new().await else { return };
    place.open(TURN).await;
    let database = place.database().await;
    let update = |i: usize| place::of(TURN, ClientId::numbered(i), 5);
    let all: Vec<_> = (0..5_000).map(update).collect();
    assert_eq!(database.accept(TURN, &all).await.unwrap(), vec![Counted; 5_000]);
    let before = place.reads("member").await;
    let mut asked = 0;
    let begun = std::time::Instant::now();
    // The database tells its counts late.
    while place.reads("member").await < before + 50 {
        for i in 0..50 {
            let (client, again) = (ClientId::numbered(97 * i), update(97 * i));
            assert_eq!(database.bodies(TURN, &[client]).await.unwrap().len(), 1);
            assert_eq!(database.accept(TURN, &[again]).await.unwrap(), [Repeated]);
            asked += 2;
        }
        assert!(begun.elapsed().as_secs() < 60, "no reads are counted");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let reads = place.reads("member").await - before;
    assert!(reads <= 4 * asked, "{reads} rows are read for {asked} updates of 5000");
}

/// Clients that send again and again, other bodies now and then, through gateways at once, while
/// the attempt is closed in the middle: each is in it once or not at all, as it was told.
#[tokio::test(flavor = "multi_thread")]
async fn what_gateways_said_holds_after_an_attempt_is_closed() {
    let Some(place) = Place::new().await else { return };
    for seed in 0..20u32 {
        let turn = Turn::new(1 + seed, 1);
        place.open(turn).await;
        let mut tasks = tokio::task::JoinSet::new();
        for gateway in 0..4u32 {
            let database = place.database().await;
            tasks.spawn(async move {
                let mut said: BTreeMap<(u8, u8), Vec<Outcome>> = BTreeMap::new();
                for batch in 0..30u32 {
                    let number =
                        |i: u32| (seed * 7919 + gateway * 104_729 + batch * 31 + i * 17) % 251;
                    let batch: Vec<_> = (0..8)
                        .map(|i| taken(turn, (number(i) % 60) as u8, (number(i) % 7 / 6) as u8))
                        .collect();
                    let outcomes = database.accept(turn, &batch).await.unwrap();
                    for (taken, outcome) in batch.iter().zip(outcomes) {
                        said.entry((taken.client.0[0], taken.digest.0[0]))
                            .or_default()
                            .push(outcome);
                    }
                }
                said
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(seed) * 4)).await;
        place.close(turn).await;
        let there = place.bodies(turn).await;
        let mut counted: BTreeMap<(u8, u8), usize> = BTreeMap::new();
        while let Some(said) = tasks.join_next().await {
            for ((client, body), outcomes) in said.unwrap() {
                let is_there = there.get(&client) == Some(&body);
                for outcome in outcomes {
                    match outcome {
                        Counted => *counted.entry((client, body)).or_default() += 1,
                        Repeated => assert!(is_there, "{turn}: {client} was told it is in"),
                        Conflict => assert!(there.contains_key(&client) && !is_there),
                        Closed => assert!(!there.contains_key(&client), "{turn}: {client}"),
                    }
                }
            }
        }
        let once: BTreeMap<(u8, u8), usize> = there.into_iter().map(|member| (member, 1)).collect();
        assert_eq!(counted, once, "seed {seed}");
    }
}

/// A million uploads of a thousand clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_duplicates_are_counted_once() {
    let Some(place) = Place::new().await else { return };
    place.open(TURN).await;
    let mut tasks = tokio::task::JoinSet::new();
    for gateway in 0..4u32 {
        let database = place.database().await;
        tasks.spawn(async move {
            let (mut counted, mut repeated) = (0usize, 0usize);
            for batch in 0..500u32 {
                let client =
                    |i: u32| ClientId::numbered(((batch * 37 + gateway * 251 + i) % 1000) as usize);
                let batch: Vec<_> = (0..500).map(|i| place::of(TURN, client(i), 5)).collect();
                for outcome in database.accept(TURN, &batch).await.unwrap() {
                    match outcome {
                        Counted => counted += 1,
                        Repeated => repeated += 1,
                        other => panic!("{other:?}"),
                    }
                }
            }
            (counted, repeated)
        });
    }
    let (mut counted, mut repeated) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let done = done.unwrap();
        (counted, repeated) = (counted + done.0, repeated + done.1);
    }
    assert_eq!((counted, repeated), (1_000, 999_000));
    assert_eq!(place.members(TURN).await, 1_000);
}
