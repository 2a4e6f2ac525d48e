//! Runs of real processes over TCP and TLS on loopback, killed on the way (`kill -9`): the server
//! twice, and clients. In the clear, the final model has the bits that the recorded updates make.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[cfg(all(unix, feature = "fleet"))]
mod crowd;
#[cfg(all(unix, feature = "fleet"))]
mod cuts;
#[cfg(all(unix, feature = "fleet"))]
mod fleet;
mod kills;
#[cfg(all(unix, feature = "fleet"))]
mod traces;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tern_fl::config::Config;
use tern_fl::server::http::Row;
use tern_fl::update::Codec;
use tern_fl::{ClientId, Digest};

/// Rounds, clients, the fewest updates of a round, and options of the plan.
#[derive(Clone, Copy)]
struct Kind {
    rounds: u32,
    clients: usize,
    minimum: usize,
    cohort: &'static str,
    secure: &'static str,
}

const CLEAR: Kind =
    Kind { rounds: 8, clients: 3, minimum: 2, cohort: "deadline_ms = 3000\n", secure: "" };

/// A session of five goes on without one of them.
const SECURE: Kind = Kind {
    rounds: 7,
    clients: 5,
    minimum: 4,
    cohort: "selection = \"by_samples\"\ndeadline_ms = 3000\nstep_ms = 3000\n",
    secure: "[run.secure]\n",
};

/// Far more than it takes; then something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that doesn't outlive the test.
struct Running {
    process: Child,
    /// What it says on standard error.
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    /// Starts one whose log goes on where an earlier one's ended.
    fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Running { process: command.spawn().unwrap(), log }
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn ended_well(&mut self, what: &str) {
        let status = self.ended(what);
        let said = || std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(status.success(), "{what}: {status}\n{}", said());
    }

    fn ended(&mut self, what: &str) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{what} has not ended");
    }

    /// Asks to stop, as Ctrl-C (`INT`) or a service manager (`TERM`) does.
    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &process]).status().unwrap();
        assert!(sent.success());
    }
}

fn tern(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    command.args(arguments).env("TERN_DEVICE", "cpu").env_remove("RUST_LOG");
    command
}

fn output(arguments: &[&str]) -> String {
    let output = tern(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tern {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_start_without_a_display_says_nothing_of_it() {
    // The device is opened before the data is looked for, which isn't there.
    let mut command = tern(&["simulate", "--csv", "nowhere.csv", "--label", "class"]);
    command.env("TERN_DEVICE", "software").env_remove("XDG_RUNTIME_DIR");
    let error = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(error.contains("nowhere.csv") && !error.contains("XDG_RUNTIME_DIR"), "{error}");
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, command: &str, config: &str, log: &str) -> Running {
        let mut command = tern(&[command, "--config"]);
        command.arg(self.path(config));
        if config == "server.toml" {
            command.args(["--plain", "--linger", "3"]);
        }
        Running::start(command, self.path(log))
    }

    fn rows(&self) -> Vec<Row> {
        let text = std::fs::read_to_string(self.path("run/metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Digest of a model.
    fn model(&self, file: &str) -> String {
        let plan = Config::load(&self.path("server.toml")).unwrap().run.unwrap();
        let layout = plan.check().unwrap();
        let flat = tern_engine::load_model(&self.path(file), layout.parameters()).unwrap();
        Digest::of(&Codec::full(&flat)).to_string()
    }

    fn wait_for_round(&self, round: u32) {
        let there = || self.rows().last().is_some_and(|row| row.round >= round);
        self.wait(&format!("round {round} is not there"), "server.log", there);
    }

    /// Waits for a line of a log.
    #[cfg(unix)]
    fn wait_for_line(&self, log: &str, text: &str) {
        let there = || std::fs::read_to_string(self.path(log)).unwrap_or_default().contains(text);
        self.wait(&format!("`{text}` is not there"), log, there);
    }

    fn wait(&self, missing: &str, log: &str, there: impl Fn() -> bool) {
        let start = Instant::now();
        while !there() {
            let log = || std::fs::read_to_string(self.path(log)).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "{missing}:\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Rows of two classes that a line parts, a little different for each client, and so is the order
/// of their columns.
fn samples(client: usize) -> String {
    let in_order = |a: &str, b: &str, class: &str| match client % 2 {
        0 => format!("{a},{b},{class}\n"),
        _ => format!("{class},{b},{a}\n"),
    };
    let mut text = in_order("a", "b", "class");
    for i in 0..40 {
        let (a, b) = ((i * 7 + client) % 11, (i * 5 + 3 * client) % 13);
        let class = if a > b { "below" } else { "above" };
        text += &in_order(&a.to_string(), &b.to_string(), class);
    }
    text
}

fn set_up(port: u16, kind: &Kind) -> Place {
    let Kind { rounds, clients, minimum, cohort, secure } = kind;
    let place = Place { folder: tempfile::tempdir().unwrap() };
    let certs = place.path("certs");
    let folder = certs.to_str().unwrap();
    output(&["certs", "localhost", "127.0.0.1", "--folder", folder]);
    let mut keys = String::new();
    for client in 0..*clients {
        let folder = place.path(&format!("client{client}"));
        std::fs::create_dir(&folder).unwrap();
        let key = output(&["keys", folder.join("client.key").to_str().unwrap()]);
        key.trim().parse::<ClientId>().unwrap();
        keys += &format!("{} client {client}\n", key.trim());
        std::fs::write(folder.join("rows.csv"), samples(client)).unwrap();
        let text = format!(
            "[client]\nserver = \"https://localhost:{port}\"\nauthority = \"certs/ca.pem\"\n\
             folder = \"client{client}\"\n\
             data = {{ csv = {{ path = \"client{client}/rows.csv\" }} }}\n"
        );
        std::fs::write(place.path(&format!("client{client}.toml")), text).unwrap();
    }
    std::fs::write(place.path("clients.txt"), keys).unwrap();
    std::fs::write(place.path("own.csv"), samples(*clients)).unwrap();
    let text = format!(
        r#"
[run]
name = "lines"
rounds = {rounds}
[run.model.layers]
input = {{ features = {{ width = 2 }} }}
layers = [
    ["0", {{ linear = {{ outputs = 16, activation = "relu" }} }}],
    ["1", {{ linear = {{ outputs = 2 }} }}],
]
[run.cohort]
size = {clients}
minimum = {minimum}
gather_ms = 1000
{cohort}[run.training]
epochs = 2
batch = 8
learning_rate = 0.3
[run.updates]
uplink = "ternary"
{secure}[server]
listen = "127.0.0.1:{port}"
folder = "run"
keep_uploads = true
evaluation = {{ csv = {{ path = "own.csv" }} }}
[server.tls]
certificate = "certs/server.pem"
key = "certs/server.key"
[server.admission]
clients_file = "clients.txt"
"#
    );
    let own = place.path("own.csv");
    let schema = output(&["schema", own.to_str().unwrap(), "--label", "class"]);
    std::fs::write(place.path("server.toml"), text + &schema).unwrap();
    place
}

/// What is killed once a round is committed, and started again.
enum Victim {
    Server,
    Client(usize),
}

/// A run to its end, through these deaths.
fn run(kind: &Kind, deaths: &[(u32, Victim)]) -> Place {
    // Free now, and for the moment until the server listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = set_up(port, kind);
    let start_server = || place.start("server", "server.toml", "server.log");
    let start_client =
        |i: usize| place.start("client", &format!("client{i}.toml"), &format!("client{i}.log"));
    let mut server = start_server();
    let mut clients: Vec<Running> = (0..kind.clients).map(start_client).collect();
    for (round, victim) in deaths {
        place.wait_for_round(*round);
        match victim {
            Victim::Server => {
                server.kill();
                server = start_server();
            }
            Victim::Client(number) => {
                clients.remove(*number).kill();
                clients.insert(*number, start_client(*number));
            }
        }
    }
    for (i, client) in clients.iter_mut().enumerate() {
        client.ended_well(&format!("client {i}"));
    }
    server.ended_well("server");

    // Each round once, each with enough updates.
    let rounds: Vec<u32> = place.rows().iter().map(|row| row.round).collect();
    assert_eq!(rounds, (1..=kind.rounds).collect::<Vec<_>>());
    let counted = kind.minimum as u32..=kind.clients as u32;
    assert!(place.rows().iter().all(|row| counted.contains(&row.clients)));
    // Each model is measured by the server's own samples, which all clients' columns agree with.
    let accuracy = |row: &Row| row.metrics["accuracy"];
    assert!(accuracy(place.rows().last().unwrap()) > 0.7, "{:?}", place.rows().last());
    // Clients have the best model.
    let best = place.model("run/best.safetensors");
    for client in 0..kind.clients {
        assert_eq!(place.model(&format!("client{client}/model.safetensors")), best);
    }
    place
}

#[test]
fn a_secure_run_survives_the_death_of_its_processes() {
    use Victim::{Client, Server};
    let place = run(&SECURE, &[(1, Server), (2, Client(1)), (4, Server), (5, Client(3))]);
    let rows = place.rows();
    let loss = |row: &Row| row.metrics["loss"];
    assert!(loss(&rows[6]) < loss(&rows[0]), "what is unmasked trains the model");
    // Four bits a value hold the sum of five codes; a tensor takes 64 values or a multiple. Behind
    // them are ten words of what was measured.
    assert_eq!(rows[6].bytes_up / u64::from(rows[6].clients), 4 * 64 / 2 + 40);
}

#[test]
fn a_run_survives_the_death_of_its_processes() {
    let deaths = [(2, Victim::Server), (2, Victim::Client(0)), (5, Victim::Server)];
    let place = run(&CLEAR, &deaths);
    // The recorded updates, added up offline, and the model that the run left.
    let config = place.path("server.toml");
    let verified = output(&["verify", "--config", config.to_str().unwrap()]);
    assert!(
        verified.contains(&format!("{} rounds, every bit the same", CLEAR.rounds)),
        "{verified}"
    );
    let last = verified.lines().rfind(|line| line.starts_with("round")).unwrap();
    assert!(last.contains(&place.model("run/model.safetensors")), "{last}");
    for name in ["config.toml", "plot.svg"] {
        assert!(place.path("run").join(name).exists(), "{name}");
    }
    // A round whose recorded updates are not what its model is made of is found.
    let upload = std::fs::read_dir(place.path("run/uploads")).unwrap().next().unwrap().unwrap();
    let mut body = std::fs::read(upload.path()).unwrap();
    body[0] ^= 1;
    std::fs::write(upload.path(), body).unwrap();
    let checked = tern(&["verify", "--config", config.to_str().unwrap()]).output().unwrap();
    assert!(!checked.status.success());
}

#[cfg(unix)]
#[test]
fn processes_that_train_end_when_they_are_asked_to() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = set_up(port, &CLEAR);
    // Rounds that nobody would see the end of.
    let config = std::fs::read_to_string(place.path("server.toml")).unwrap();
    let config = config.replace("epochs = 2", "steps = 4000000000");
    let config = config.replace("deadline_ms = 3000", "deadline_ms = 3000000");
    std::fs::write(place.path("server.toml"), config).unwrap();
    let mut server = place.start("server", "server.toml", "server.log");
    let asked = [("INT", 130), ("TERM", 143), ("INT", 130)];
    let mut clients: Vec<Running> = (0..asked.len())
        .map(|i| place.start("client", &format!("client{i}.toml"), &format!("client{i}.log")))
        .collect();
    for (i, (client, (signal, status))) in clients.iter_mut().zip(asked).enumerate() {
        place.wait_for_line(&format!("client{i}.log"), "training round=1");
        client.signal(signal);
        assert_eq!(client.ended(&format!("client {i}")).code(), Some(status), "client {i}");
    }
    // To stop is all that a server is asked for.
    server.signal("TERM");
    server.ended_well("server");
}

/// `tern simulate` of the configured run by three clients, with more options.
#[cfg(unix)]
fn simulate(place: &Place, out: &str, more: &[&str]) -> Running {
    let log = place.path(&format!("{out}.log"));
    std::fs::write(&log, "").unwrap();
    let mut command = tern(&["simulate", "--config", "server.toml", "--csv", "client0/rows.csv"]);
    command.args(["--label", "class", "--clients", "3", "--save-every", "3", "--out", out]);
    command.args(more).current_dir(place.folder.path());
    Running::start(command, log)
}

#[cfg(unix)]
#[test]
fn a_simulation_goes_on_however_it_ended() {
    let place = set_up(1, &CLEAR);
    let mut simulation = simulate(&place, "parts", &["--rounds", "100000000"]);
    place.wait_for_line("parts.log", "round 2 of");
    simulation.signal("INT");
    assert_eq!(simulation.ended("simulation").code(), Some(130));
    let interrupted = place.model("parts/model.safetensors");
    let rows = || std::fs::read_to_string(place.path("parts/metrics.jsonl")).unwrap();
    let done = rows().lines().count();
    assert!(done >= 2);
    // Only who says so goes on, and only by the same plan.
    let refused = |more: &[&str], text: &str| {
        assert_eq!(simulate(&place, "parts", more).ended("simulation").code(), Some(1));
        let log = std::fs::read_to_string(place.path("parts.log")).unwrap();
        assert!(log.contains(text), "{log}");
    };
    refused(&["--rounds", "100000000"], "expected a new folder, or --resume");
    refused(&["--rounds", "100000000", "--seed", "9", "--resume"], "seed: 0 and 9");
    let simulation = simulate(&place, "parts", &["--rounds", "100000000", "--resume"]);
    place.wait_for_line("parts.log", &format!("round {} of", done + 4));
    // `kill -9`: what was saved three rounds ago at most is there.
    simulation.kill();
    let mut simulation = simulate(&place, "parts", &["--rounds", "100000000", "--resume"]);
    place.wait_for_line("parts.log", "round ");
    simulation.signal("TERM");
    assert_eq!(simulation.ended("simulation").code(), Some(143));
    let more = rows().lines().count();
    assert!(more > done);

    // As many rounds at once make the same models, and three more than those do, too.
    simulate(&place, "whole", &["--rounds", &done.to_string()]).ended_well("simulation");
    assert_eq!(place.model("whole/model.safetensors"), interrupted);
    let go_on = |rounds: usize| {
        let rounds = rounds.to_string();
        simulate(&place, "whole", &["--rounds", &rounds, "--resume"]).ended_well("simulation");
    };
    go_on(more);
    for model in ["model", "best"].map(|name| format!("{name}.safetensors")) {
        let [whole, parts] = ["whole", "parts"].map(|of| place.model(&format!("{of}/{model}")));
        assert_eq!(whole, parts, "{model}");
    }
    go_on(more + 3);
    let whole = std::fs::read_to_string(place.path("whole/metrics.jsonl")).unwrap();
    let told = |text: &str| -> Vec<serde_json::Value> {
        let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.map(|row: serde_json::Value| row["training"].clone()).take(more).collect()
    };
    assert_eq!(told(&whole), told(&rows()));
    assert_eq!(whole.lines().count(), more + 3);
}

#[test]
fn init_writes_a_configuration_with_a_token_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let token = |name: &str| {
        let path = folder.path().join(name);
        output(&["init", path.to_str().unwrap()]);
        Config::load(&path).unwrap().server.unwrap().admission.token.unwrap()
    };
    assert_ne!(token("one.toml"), token("two.toml"));
}
