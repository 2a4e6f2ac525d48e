//! Fleets of real processes on a real database and object store, killed in turn (`kill -9`): two
//! gateways, two leaders and two aggregators, each kind three times.

use super::{CLEAR, Kind, PATIENCE, Place, Running, SECURE, output, set_up, tern};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const ROLES: [&str; 3] = ["gateway", "leader", "aggregator"];

pub struct Fleet {
    pub place: Place,
    pub ports: [u16; 2],
    /// Two of each role, in order of the roles.
    pub running: Vec<Option<Running>>,
    /// Where processes send their spans.
    pub collector: Option<String>,
}

impl Fleet {
    /// `None`, and a word, where there is no database. Where `TERN_TEST_FLEET` is set there has to be
    /// one.
    pub fn new(kind: &Kind) -> Option<Self> {
        let mut fleet = Self::idle(kind)?;
        (0..6).for_each(|at| fleet.start(at));
        Some(fleet)
    }

    /// Of no processes yet; `None` as of `new`.
    pub fn idle(kind: &Kind) -> Option<Self> {
        let Ok(database) = std::env::var("TERN_TEST_DATABASE") else {
            let required = std::env::var_os("TERN_TEST_FLEET").is_some();
            assert!(!required, "TERN_TEST_DATABASE is not set, expected a database's address");
            eprintln!("left out: TERN_TEST_DATABASE names no database (.ci/services starts one)");
            return None;
        };
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ports = [port(), port()];
        let place = set_up(ports[0], kind);
        for client in (1..kind.clients).step_by(2) {
            let config = place.path(&format!("client{client}.toml"));
            let text = std::fs::read_to_string(&config).unwrap();
            let other = format!("localhost:{}", ports[1]);
            let text = text.replace(&format!("localhost:{}", ports[0]), &other);
            std::fs::write(&config, text).unwrap();
        }
        let schema = format!("processes_{}_{}", std::process::id(), ports[0]);
        let objects = match std::env::var("TERN_TEST_S3") {
            Ok(endpoint) => {
                format!("objects = \"s3://tern/{schema}\"\nendpoint = \"{endpoint}\"\n")
            }
            Err(_) => format!("objects = \"file://{}\"\n", place.path("objects").display()),
        };
        let config = std::fs::read_to_string(place.path("server.toml")).unwrap();
        let fleet = format!(
            "\n[fleet]\ndatabase = \"{database}\"\nschema = \"{schema}\"\nlease_seconds = 2.0\n{objects}"
        );
        std::fs::write(place.path("server.toml"), config + &fleet).unwrap();
        let path = place.path("server.toml").display().to_string();
        output(&["fleet", "init", "--config", &path]);
        let running = (0..6).map(|_| None).collect();
        Some(Fleet { place, ports, running, collector: None })
    }

    pub fn start(&mut self, at: usize) {
        self.start_by(at, "server.toml");
    }

    /// Starts a process by a configuration of its own.
    pub fn start_by(&mut self, at: usize, config: &str) {
        let role = ROLES[at / 2];
        let log = self.place.path(&format!("{role}{}.log", at % 2));
        let listen = format!("127.0.0.1:{}", self.ports[at % 2]);
        let mut command = tern(&["server", "--role", role, "--listen", &listen, "--config"]);
        command.arg(self.place.path(config));
        if let Some(collector) = &self.collector {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        }
        self.running[at] = Some(Running::start(command, log));
    }

    /// `kill -9`, and a new process after a moment.
    pub fn kill(&mut self, at: usize) {
        self.running[at].take().unwrap().kill();
        std::thread::sleep(Duration::from_millis(300));
        self.start(at);
    }

    /// Asks all to stop, which they do.
    pub fn stop(&mut self) {
        for (at, running) in self.running.iter_mut().enumerate() {
            let Some(mut running) = running.take() else { continue };
            running.signal("TERM");
            running.ended_well(ROLES[at / 2]);
        }
    }

    pub fn status(&self) -> serde_json::Value {
        let path = self.place.path("server.toml").display().to_string();
        serde_json::from_str(&output(&["fleet", "status", "--json", "--config", &path])).unwrap()
    }
}

/// A run to its end, while every role is killed three times.
fn run(kind: &Kind) -> Option<Fleet> {
    let mut fleet = Fleet::new(kind)?;
    let start = |place: &Place, i: usize| {
        place.start("client", &format!("client{i}.toml"), &format!("client{i}.log"))
    };
    let mut clients: Vec<Running> = (0..kind.clients).map(|i| start(&fleet.place, i)).collect();
    let (began, mut kills) = (Instant::now(), 0);
    // One after the other, so that of each role one is there; a round's worth of time between.
    while kills < 18 {
        std::thread::sleep(Duration::from_millis(700));
        fleet.kill(kills % 6);
        kills += 1;
        assert!(began.elapsed() < PATIENCE);
    }
    for (i, client) in clients.iter_mut().enumerate() {
        client.ended_well(&format!("client {i}"));
    }
    let status = fleet.status();
    assert_eq!(status["rounds"], kind.rounds, "{status}");
    assert_eq!(status["clients"], kind.clients, "{status}");
    // Clients have one model.
    let model = fleet.place.model("client0/model.safetensors");
    for client in 1..kind.clients {
        assert_eq!(fleet.place.model(&format!("client{client}/model.safetensors")), model);
    }
    fleet.stop();
    Some(fleet)
}

#[test]
fn a_fleet_survives_the_death_of_its_processes() {
    // About as many as two cores do while all are killed: most kills are in the run.
    let kind = Kind { rounds: 60, ..CLEAR };
    let Some(fleet) = run(&kind) else { return };
    // The counted updates, added up by one process one by one, and the models of the run.
    let config = fleet.place.path("server.toml");
    let verified = output(&["verify", "--config", config.to_str().unwrap()]);
    assert!(verified.contains("60 rounds, every bit the same"), "{verified}");
}

#[test]
fn a_secure_run_of_a_fleet_survives_the_death_of_its_processes() {
    run(&Kind { rounds: 25, ..SECURE });
}
