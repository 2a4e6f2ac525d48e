//! A run of real processes over TCP and TLS on loopback, killed on the way (`kill -9`): the
//! server twice, a client once. The final model has the bits that the recorded updates make.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tern_fl::config::Config;
use tern_fl::server::Row;
use tern_fl::update::Codec;
use tern_fl::{ClientId, Digest};

const ROUNDS: u32 = 8;
const CLIENTS: usize = 3;
/// Far more than it takes; then something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that doesn't outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// `kill -9`.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn ended_well(&mut self, what: &str) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{what}: {status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{what} has not ended");
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

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, command: &str, config: &str, log: &str) -> Running {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path(log));
        let mut command = tern(&[command, "--config"]);
        command.arg(self.path(config)).stdin(Stdio::null()).stdout(Stdio::null());
        if config == "server.toml" {
            command.args(["--plain", "--linger", "3"]);
        }
        Running(command.stderr(log.unwrap()).spawn().unwrap())
    }

    fn rows(&self) -> Vec<Row> {
        let text = std::fs::read_to_string(self.path("run/metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn wait_for_round(&self, round: u32) {
        let start = Instant::now();
        while self.rows().last().is_none_or(|row| row.round < round) {
            let log = || std::fs::read_to_string(self.path("server.log")).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "round {round} is not there:\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Rows of two classes that a line parts, a little different for each client.
fn rows(client: usize) -> String {
    let mut text = String::from("a,b,class\n");
    for i in 0..40 {
        let (a, b) = ((i * 7 + client) % 11, (i * 5 + 3 * client) % 13);
        text += &format!("{},{},{}\n", a as f32 / 11.0, b as f32 / 13.0, u8::from(a > b));
    }
    text
}

fn set_up(port: u16) -> Place {
    let place = Place { folder: tempfile::tempdir().unwrap() };
    let certs = place.path("certs");
    let folder = certs.to_str().unwrap();
    output(&["certs", "localhost", "127.0.0.1", "--folder", folder]);
    let mut keys = String::new();
    for client in 0..CLIENTS {
        let folder = place.path(&format!("client{client}"));
        std::fs::create_dir(&folder).unwrap();
        let key = output(&["keys", folder.join("client.key").to_str().unwrap()]);
        key.trim().parse::<ClientId>().unwrap();
        keys += &format!("{} client {client}\n", key.trim());
        std::fs::write(folder.join("rows.csv"), rows(client)).unwrap();
        let text = format!(
            "[client]\nserver = \"https://localhost:{port}\"\nauthority = \"certs/ca.pem\"\n\
             folder = \"client{client}\"\n\
             data = {{ csv = {{ path = \"client{client}/rows.csv\", label = \"class\" }} }}\n"
        );
        std::fs::write(place.path(&format!("client{client}.toml")), text).unwrap();
    }
    std::fs::write(place.path("clients.txt"), keys).unwrap();
    let text = format!(
        r#"
[run]
name = "lines"
rounds = {ROUNDS}
[run.model.layers]
input = {{ features = {{ width = 2 }} }}
layers = [
    ["0", {{ linear = {{ outputs = 16, activation = "relu" }} }}],
    ["1", {{ linear = {{ outputs = 2 }} }}],
]
[run.cohort]
size = {CLIENTS}
minimum = 2
gather = 1000
deadline = 3000
[run.training]
epochs = 2
batch = 8
rate = 0.3
[run.updates]
uplink = "ternary"
[server]
listen = "127.0.0.1:{port}"
folder = "run"
keep_uploads = true
[server.tls]
certificate = "certs/server.pem"
key = "certs/server.key"
[server.admission]
clients_file = "clients.txt"
"#
    );
    std::fs::write(place.path("server.toml"), text).unwrap();
    place
}

#[test]
fn a_run_survives_the_death_of_its_processes() {
    // Free now, and for the moment until the server listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = set_up(port);
    let server = place.start("server", "server.toml", "server.log");
    let mut clients: Vec<Running> = (0..CLIENTS)
        .map(|i| place.start("client", &format!("client{i}.toml"), &format!("client{i}.log")))
        .collect();

    place.wait_for_round(2);
    server.kill();
    let server = place.start("server", "server.toml", "server.log");
    clients.remove(0).kill();
    clients.insert(0, place.start("client", "client0.toml", "client0.log"));
    place.wait_for_round(5);
    server.kill();
    let mut server = place.start("server", "server.toml", "server.log");

    for (i, client) in clients.iter_mut().enumerate() {
        client.ended_well(&format!("client {i}"));
    }
    server.ended_well("server");

    // Each round once, each with enough updates.
    let rounds: Vec<u32> = place.rows().iter().map(|row| row.round).collect();
    assert_eq!(rounds, (1..=ROUNDS).collect::<Vec<_>>());
    assert!(place.rows().iter().all(|row| (2..=CLIENTS as u32).contains(&row.clients)));
    // The offline fold of the recorded updates, and the model that the run left.
    let config = place.path("server.toml");
    let folded = output(&["fold", "--config", config.to_str().unwrap()]);
    assert!(folded.contains(&format!("{ROUNDS} rounds, every bit the same")), "{folded}");
    let last = folded.lines().rfind(|line| line.starts_with("round")).unwrap();
    let plan = Config::load(&config).unwrap().run.unwrap();
    let model = |path: &Path| {
        let layout = plan.check().unwrap();
        let flat = tern_engine::load_model(path, layout.parameters()).unwrap();
        Digest::of(&Codec::full(&flat)).to_string()
    };
    assert!(last.contains(&model(&place.path("run/model.safetensors"))), "{last}");
    // Clients have the best one.
    let best = model(&place.path("run/best.safetensors"));
    for client in 0..CLIENTS {
        assert_eq!(model(&place.path(&format!("client{client}/model.safetensors"))), best);
    }
    for name in ["config.toml", "plot.svg"] {
        assert!(place.path("run").join(name).exists(), "{name}");
    }
    // A round whose recorded updates are not what its model is made of is found.
    let upload = std::fs::read_dir(place.path("run/uploads")).unwrap().next().unwrap().unwrap();
    let mut body = std::fs::read(upload.path()).unwrap();
    body[0] ^= 1;
    std::fs::write(upload.path(), body).unwrap();
    let checked = tern(&["fold", "--config", config.to_str().unwrap()]).output().unwrap();
    assert!(!checked.status.success());
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
