//! Rates of a round of many clients, on the database and the store at hand: to be read, not held.
//!
//! `cargo nextest run --release -p tern-fleet --run-ignored only --no-capture rates`

use std::time::{Duration, Instant};

use sqlx_core::query::query;
use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::plan::Encoding;
use tern_protocol::wire::instruction::What;
use tern_protocol::{ClientId, Turn};
use tern_server::http::Backend as _;

use super::rounds::{Fleet, send, until};

/// A number of the environment's.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures what else the machine does, too"]
async fn rates_of_a_round() {
    let (clients, elements) = (number("TERN_CLIENTS", 10_000), number("TERN_ELEMENTS", 1_000));
    let (gateways, aggregators) = (number("TERN_GATEWAYS", 2), number("TERN_AGGREGATORS", 2));
    let Some(mut fleet) = Fleet::new(|plan| {
        let weights = TensorSpec { name: "w".into(), shape: vec![elements] };
        plan.model = ModelKind::Tensors(vec![weights]);
        (plan.cohort.size, plan.cohort.minimum) = (clients as u32, clients as u32);
        (plan.rounds, plan.cohort.deadline_ms) = (1, 3_600_000);
        plan.updates.uplink = Encoding::Ternary;
    })
    .await
    else {
        return;
    };
    let keys: Vec<Vec<u8>> =
        (0..clients).map(|number| ClientId::numbered(number).0.to_vec()).collect();
    for statement in [
        "INSERT INTO client (client, enrolled) SELECT *, 0 FROM unnest($1::bytea[])",
        "INSERT INTO presence (client, samples, seen)
         SELECT *, 9, clock_timestamp() FROM unnest($1::bytea[])",
    ] {
        query(statement).bind(&keys).execute(&fleet.place.pool).await.unwrap();
    }
    let leader = fleet.leader().await;
    let mut doors = Vec::new();
    for _ in 0..gateways {
        doors.push(fleet.gateway().await);
    }
    let plan = fleet.plan.clone();
    let door = doors[0].clone();
    let asked = move || {
        until("the cohort is asked", || {
            let told = door.poll(&ClientId::numbered(0), 9).unwrap();
            matches!(told.what, Some(What::Train(_)))
        });
    };
    tokio::task::spawn_blocking(asked).await.unwrap();
    let (begun, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    let threads = 64;
    for thread in 0..threads {
        let (door, plan) = (doors[thread % gateways].clone(), plan.clone());
        tasks.spawn_blocking(move || {
            let mut times = Vec::new();
            for number in (thread..clients).step_by(threads) {
                let begun = Instant::now();
                send(&door, &plan, number as u32, Turn::new(1, 1)).unwrap();
                times.push(begun.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let (took, closed) = (begun.elapsed(), Instant::now());
    times.sort_unstable();
    let quantile = |of: f64| times[((times.len() - 1) as f64 * of) as usize];
    let mut roles = Vec::new();
    for _ in 0..aggregators {
        roles.push(fleet.aggregator().await);
    }
    let door = doors[0].clone();
    let over = move || until("the round is committed", || door.status().unwrap().finished);
    tokio::task::spawn_blocking(over).await.unwrap();
    eprintln!(
        "{clients} updates of {elements} elements, ternary, {threads} at a time through {gateways} \
         gateways: {:.0} a second, median {:.1?}, p99 {:.1?}; from the last update to the model, with \
         {aggregators} aggregators, {:.1?}",
        clients as f64 / took.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        closed.elapsed(),
    );
    leader.stop().await;
    for role in roles {
        role.stop().await;
    }
    fleet.check(1).await;
}
