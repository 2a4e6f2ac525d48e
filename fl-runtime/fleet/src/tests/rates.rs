//! What gateways, aggregators and rounds do a second, on the database and the store at hand: tables to
//! be read, and bits that are checked.
//!
//! `.ci/fleet rates` runs all of it in a release build.

#![allow(clippy::print_stdout, reason = "rates are there to be read")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use prost::Message as _;
use sqlx_core::query::query;
use tern_protocol::auth::{Audience, Credentials};
use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::plan::Encoding;
use tern_protocol::wire::instruction::What;
use tern_protocol::{ClientId, Digest, StartId, Turn, wire};
use tern_server::http::{self, Backend as _, Board, Limits, Server};

use super::rounds::{Fleet, Role, body, finish, until};
use crate::Gateway;

const TURN: Turn = Turn { round: 1, attempt: 1 };
const LONGEST: Duration = Duration::from_secs(900);
/// Requests at a time.
const THREADS: usize = 64;
/// Parameters of a character LSTM: 80 characters in 8 numbers, two layers of 256 (LEAF's Shakespeare).
const CHAR_LSTM: usize = 818_402;

/// A number of the environment's.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn key(number: usize) -> SigningKey {
    SigningKey::from_bytes(&Digest::of(&number.to_le_bytes()).0)
}

/// A run of one round at which so many clients are asked.
struct Crowd {
    fleet: Fleet,
    leader: Role,
    doors: Vec<Arc<Gateway>>,
    clients: Vec<ClientId>,
    /// Bodies differ from it in their first number.
    base: Vec<u8>,
}

impl Crowd {
    async fn new(clients: usize, elements: usize, uplink: Encoding) -> Option<Self> {
        let mut fleet = Fleet::new(|plan| {
            let weights = TensorSpec { name: "w".into(), shape: vec![elements] };
            plan.model = ModelKind::Tensors(vec![weights]);
            (plan.cohort.size, plan.cohort.minimum) = (clients as u32, clients as u32);
            (plan.rounds, plan.cohort.deadline_ms) = (1, 3_600_000);
            plan.updates.uplink = uplink;
        })
        .await?;
        let clients: Vec<ClientId> =
            (0..clients).map(|number| ClientId(key(number).verifying_key().to_bytes())).collect();
        let keys: Vec<Vec<u8>> = clients.iter().map(|client| client.0.to_vec()).collect();
        for statement in [
            "INSERT INTO client (client, enrolled) SELECT *, 0 FROM unnest($1::bytea[])",
            "INSERT INTO presence (client, samples, seen)
             SELECT *, 9, clock_timestamp() FROM unnest($1::bytea[])",
        ] {
            query(statement).bind(&keys).execute(&fleet.place.pool).await.unwrap();
        }
        let leader = fleet.leader().await;
        let doors = vec![fleet.gateway().await, fleet.gateway().await];
        let (door, client) = (doors[0].clone(), clients[0]);
        let asked = move || {
            until("the cohort is asked", || {
                matches!(door.poll(&client, 9).unwrap().what, Some(What::Train(_)))
            });
        };
        tokio::task::spawn_blocking(asked).await.unwrap();
        let base = body(&fleet.plan, 0, TURN);
        Some(Crowd { fleet, leader, doors, clients, base })
    }

    fn body(&self, number: usize) -> Vec<u8> {
        let mut body = self.base.clone();
        let first = f32::from_le_bytes(body[..4].try_into().unwrap());
        let other = first * (1.0 + number as f32 * 1e-6);
        body[..4].copy_from_slice(&other.to_le_bytes());
        body
    }

    /// All updates to the gateways, without HTTP.
    async fn hand_in(self: Arc<Self>) -> Times {
        let crowd = self.clone();
        offer(self.clients.len(), None, move |_| {
            let crowd = crowd.clone();
            move |number: usize| {
                let (client, body) = (crowd.clients[number], crowd.body(number));
                let door = &crowd.doors[number % crowd.doors.len()];
                let mut incoming = door.incoming(&client, TURN).unwrap();
                incoming.append(0, &body).unwrap();
                drop(incoming);
                let ack = door.finish(&client, finish(number as u32, TURN, &body)).unwrap();
                assert!(!ack.repeated);
            }
        })
        .await
    }

    /// All updates by signed requests, so many a second or as many as are taken.
    async fn send(self: Arc<Self>, pace: Option<f64>) -> Times {
        let mut addresses = Vec::new();
        for door in &self.doors {
            let door = door.clone();
            let mut limits = Limits::default();
            (limits.requests_per_address, limits.connections_per_address) = (1e6, 4096);
            let make = move || {
                let options = http::Options::default().limits(limits);
                Server::over(door, Board::new(0), options)
            };
            let server = tokio::task::spawn_blocking(make).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            addresses.push(listener.local_addr().unwrap());
            tokio::spawn(server.serve(listener, std::future::pending()));
        }
        let run = self.doors[0].task().run;
        let now = tern_host::clock::now();
        let signed = |number: usize, target: &str, body: &[u8]| {
            let host = addresses[number % addresses.len()].to_string();
            let audience = Audience { host, run: Some(run), start: Some(StartId(run.0)) };
            let nonce =
                std::array::from_fn(|at| (number >> (8 * (at % 4))) as u8 ^ target.len() as u8);
            let signed =
                Credentials::sign(&key(number), audience, ("POST", target, body), now, nonce);
            let mut text =
                format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in signed.headers() {
                text += &format!("{name}: {value}\r\n");
            }
            [text.as_bytes(), b"\r\n", body].concat()
        };
        let requests: Vec<Vec<u8>> = (0..self.clients.len())
            .map(|number| {
                let body = self.body(number);
                let finish =
                    wire::Finish { body: body.clone(), ..finish(number as u32, TURN, &body) };
                signed(number, "/v1/finish", &finish.encode_to_vec())
            })
            .collect();
        let (requests, count) = (Arc::new(requests), self.clients.len());
        offer(count, pace, move |thread| {
            // Clients of a thread come to one gateway.
            let stream = TcpStream::connect(addresses[thread % addresses.len()]).unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut stream, requests) = (BufReader::new(stream), requests.clone());
            move |number: usize| post(&mut stream, &requests[number])
        })
        .await
    }

    /// From the last update to the model, with so many aggregators; the bits are checked.
    async fn close(self: Arc<Self>, aggregators: usize, begun: Instant) -> Duration {
        let mut crowd = Arc::into_inner(self).unwrap();
        let mut roles = Vec::new();
        for _ in 0..aggregators {
            roles.push(crowd.fleet.aggregator().await);
        }
        let door = crowd.doors[0].clone();
        let over = move || {
            while !door.status().unwrap().finished {
                assert!(begun.elapsed() < LONGEST, "the round is not committed");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        tokio::task::spawn_blocking(over).await.unwrap();
        let took = begun.elapsed();
        crowd.leader.stop().await;
        for role in roles {
            role.stop().await;
        }
        crowd.fleet.check(1).await;
        took
    }
}

/// A request, which is taken.
fn post(stream: &mut BufReader<TcpStream>, request: &[u8]) {
    stream.get_mut().write_all(request).unwrap();
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).unwrap();
    let status = line.clone();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).unwrap();
    assert!(status.contains(" 200 "), "{status}{}", String::from_utf8_lossy(&answer));
}

/// How long updates took, and all of them.
struct Times {
    sorted: Vec<Duration>,
    took: Duration,
}

impl Times {
    fn quantile(&self, of: f64) -> Duration {
        self.sorted[((self.sorted.len() - 1) as f64 * of) as usize]
    }

    fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.took.as_secs_f64()
    }

    fn print(&self, what: &str) {
        let rate = self.rate();
        let (median, late) = (self.quantile(0.5), self.quantile(0.99));
        println!("| {what} | {rate:.0} a second, median {median:.1?}, p99 {late:.1?} |");
    }
}

/// Has so many updates sent by threads, each with what `begin` makes for it. At a pace the time of an
/// update counts from when it was due.
async fn offer<F: FnMut(usize) + Send + 'static>(
    count: usize,
    pace: Option<f64>,
    begin: impl Fn(usize) -> F,
) -> Times {
    let (begun, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for thread in 0..THREADS {
        let mut send = begin(thread);
        tasks.spawn_blocking(move || {
            let mut times = Vec::new();
            for number in (thread..count).step_by(THREADS) {
                let mut from = Instant::now();
                if let Some(pace) = pace {
                    let due = begun + Duration::from_secs_f64(number as f64 / pace);
                    std::thread::sleep(due.saturating_duration_since(from));
                    from = due;
                }
                send(number);
                times.push(from.elapsed());
            }
            times
        });
    }
    let mut sorted: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    sorted.sort_unstable();
    Times { sorted, took: begun.elapsed() }
}

/// Seconds of processor time that this process took, where Linux says so.
fn processor() -> f64 {
    // Hundredths of a second, in user and in kernel mode, behind the name in parentheses.
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures what else the machine does, too"]
async fn rates_of_gateways() {
    let count = number("TERN_CLIENTS", 20_000);
    let Some(crowd) = Crowd::new(count, 1_000, Encoding::Ternary).await else { return };
    let crowd = Arc::new(crowd);
    crowd.clone().hand_in().await.print("updates of 1,000 parameters, two gateways, without HTTP");
    crowd.close(1, Instant::now()).await;
    let crowd = Arc::new(Crowd::new(count, 1_000, Encoding::Ternary).await.unwrap());
    let times = crowd.clone().send(None).await;
    times.print("the same, signed, over HTTP");
    crowd.close(1, Instant::now()).await;
    let pace = times.rate() / 2.0;
    let crowd = Arc::new(Crowd::new(count, 1_000, Encoding::Ternary).await.unwrap());
    crowd.clone().send(Some(pace)).await.print("the same at half of that pace");
    crowd.close(1, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures what else the machine does, too"]
async fn rates_of_an_aggregator() {
    let (count, elements) = (number("TERN_CLIENTS", 192), 1_000_000);
    for (uplink, name) in [(Encoding::Full, "full precision"), (Encoding::Ternary, "ternary")] {
        let Some(crowd) = Crowd::new(count, elements, uplink).await else { return };
        let crowd = Arc::new(crowd);
        let megabytes = (count * crowd.base.len()) as f64 / 1e6;
        crowd.clone().hand_in().await.print(&format!("updates of a million parameters, {name}"));
        let (begun, before) = (Instant::now(), processor());
        let took = crowd.close(1, begun).await.as_secs_f64();
        let busy = processor() - before;
        println!(
            "| an aggregator, {name}: {megabytes:.0} MB added up, to the model | {:.0} MB/s, {:.0} MB \
             for a second of a core |",
            megabytes / took,
            megabytes / busy
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures what else the machine does, too"]
async fn rates_of_rounds() {
    for (count, elements, name) in [
        (number("TERN_CLIENTS", 10_000), CHAR_LSTM, "a character LSTM"),
        (10 * number("TERN_CLIENTS", 10_000), 1_000, "1,000 parameters"),
    ] {
        let Some(crowd) = Crowd::new(count, elements, Encoding::Ternary).await else { return };
        let crowd = Arc::new(crowd);
        let what = format!("{count} clients, {name}, ternary");
        crowd.clone().hand_in().await.print(&format!("{what}: updates, without HTTP"));
        let took = crowd.close(2, Instant::now()).await;
        println!("| {what}: from the last update to the model, two aggregators | {took:.1?} |");
    }
}
