//! A process of a fleet killed (`kill -9`) before or after each message that it sends to the database
//! and the store, one after the other: each of its lives ends at the next message. A proxy in front
//! of both counts them, and kills before it passes one on, or before its answer is there.

#![allow(clippy::print_stdout, reason = "a nightly test says what it did")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::{CLEAR, Kind, PATIENCE, Running, output};

/// More rounds than anybody waits for.
const ENDLESS: Kind = Kind { rounds: 1_000_000, ..CLEAR };
/// For as long a process may send fewer messages than it should end after.
const IDLE: Duration = Duration::from_secs(8);

/// When a process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Before a message is passed on.
    Before,
    /// After that, and before its answer is.
    After,
}

/// What kills a process.
#[derive(Default)]
struct Trigger {
    messages: AtomicU32,
    /// After so many messages; 0 never.
    at: AtomicU32,
    end: Mutex<Option<End>>,
    process: AtomicU32,
}

impl Trigger {
    fn arm(&self, at: u32, end: End) {
        self.process.store(0, Ordering::SeqCst);
        self.messages.store(0, Ordering::SeqCst);
        *self.end.lock().unwrap() = Some(end);
        self.at.store(at, Ordering::SeqCst);
    }

    /// A message came; whether, and when, its process ends with it.
    fn count(&self) -> Option<End> {
        let message = self.messages.fetch_add(1, Ordering::SeqCst) + 1;
        if message != self.at.load(Ordering::SeqCst) {
            return None;
        }
        *self.end.lock().unwrap()
    }

    fn kill(&self) {
        // It was just started where it isn't known yet.
        while self.process.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let process = self.process.load(Ordering::SeqCst).to_string();
        std::process::Command::new("kill").args(["-KILL", &process]).status().unwrap();
    }
}

/// A proxy to an address, which ends with the test; its port.
fn proxy(to: &str, trigger: Arc<Trigger>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), to.to_owned());
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(&to)) else { continue };
            let (back, there) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            std::thread::spawn(move || pass(back, there, || None, || {}));
            let trigger = trigger.clone();
            std::thread::spawn(move || {
                pass(near, far, || trigger.count(), || trigger.kill());
            });
        }
    });
    port
}

/// Passes on what comes, until either side ends or the process is killed.
fn pass(mut from: TcpStream, mut to: TcpStream, end: impl Fn() -> Option<End>, kill: impl Fn()) {
    let mut buffer = [0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let end = end();
        if end == Some(End::Before) {
            kill();
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        if end == Some(End::After) {
            kill();
            break;
        }
    }
    // Either may be closed.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Lives of a process, each of which ends at the next message; then the run goes on.
fn run(at: usize, to_store: bool, points: impl Iterator<Item = u32>) {
    let Some(mut fleet) = Fleet::idle(&ENDLESS) else { return };
    let config = std::fs::read_to_string(fleet.place.path("server.toml")).unwrap();
    let config = config.replace("lease_seconds = 2.0", "lease_seconds = 0.5");
    std::fs::write(fleet.place.path("server.toml"), &config).unwrap();
    let trigger = Arc::new(Trigger::default());
    let name = if to_store { "TERN_TEST_S3" } else { "TERN_TEST_DATABASE" };
    let Ok(address) = std::env::var(name) else { return };
    // What is between `@` or `//` and the path.
    let host = address.rsplit_once("//").unwrap().1.split('/').next().unwrap();
    let host = host.rsplit('@').next().unwrap();
    let port = proxy(host, trigger.clone());
    let through = config.replace(host, &format!("127.0.0.1:{port}"));
    assert_ne!(through, config);
    std::fs::write(fleet.place.path("through.toml"), through).unwrap();
    // One of each role, and of gateways both: each has its clients.
    let others = [0, 1, 2, 4].into_iter().filter(|other| *other != at);
    others.for_each(|other| fleet.start(other));
    let start = |i: usize| {
        fleet.place.start("client", &format!("client{i}.toml"), &format!("client{i}.log"))
    };
    let clients: Vec<Running> = (0..ENDLESS.clients).map(start).collect();
    let (mut killed, mut idle) = (0, 0);
    for point in points {
        for end in [End::Before, End::After] {
            trigger.arm(point, end);
            fleet.start_by(at, "through.toml");
            let process = fleet.running[at].as_mut().unwrap();
            trigger.process.store(process.process.id(), Ordering::SeqCst);
            let began = Instant::now();
            while process.process.try_wait().unwrap().is_none() && began.elapsed() < IDLE {
                std::thread::sleep(Duration::from_millis(5));
            }
            match process.process.try_wait().unwrap() {
                // By itself it ends at none.
                Some(status) => {
                    assert_eq!(status.signal(), Some(9), "process {at}: {status}");
                    killed += 1;
                }
                None => idle += 1,
            }
            fleet.running[at].take().unwrap().kill();
        }
    }
    trigger.arm(0, End::Before);
    fleet.start(at);
    let rounds = |fleet: &Fleet| fleet.status()["rounds"].as_u64().unwrap();
    let (before, began) = (rounds(&fleet), Instant::now());
    while rounds(&fleet) < before + 2 {
        assert!(began.elapsed() < PATIENCE, "the run doesn't go on: {}", fleet.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(clients);
    fleet.stop();
    let config = fleet.place.path("server.toml");
    let verified = output(&["verify", "--config", config.to_str().unwrap()]);
    let last = verified.lines().last().unwrap_or_default();
    println!("{killed} lives of process {at} ended at a message, {idle} sent too few: {last}");
    assert!(last.ends_with("every bit the same") && killed > 0, "{verified}");
}

/// The first messages connect; what follows on them is done again and again.
fn some() -> impl Iterator<Item = u32> {
    [9, 16, 23].into_iter()
}

#[test]
fn a_leader_ends_at_statements() {
    run(2, false, some());
}

#[test]
fn an_aggregator_ends_at_statements() {
    run(4, false, some());
}

#[test]
fn a_gateway_ends_at_statements() {
    run(1, false, some());
}

#[test]
fn roles_end_at_puts() {
    for at in [1, 2, 4] {
        run(at, true, 1..2);
    }
}

#[test]
#[ignore = "takes minutes: run nightly"]
fn every_role_ends_at_every_message() {
    for (at, most) in [(1, 60), (2, 90), (4, 40)] {
        run(at, false, 1..=most);
        run(at, true, 1..=6);
    }
}
