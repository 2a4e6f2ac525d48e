//! A server that is killed again and again, and one whose disk is damaged.

#![allow(clippy::print_stdout, reason = "a nightly test says what it did")]

use super::*;

/// `kill -9`s of the server, each at another moment of its work, from before it listens to rounds
/// later; `TERN_KILLS` says how many.
const KILLS: u32 = 200;

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// More rounds than anybody waits for.
const ENDLESS: Kind = Kind { rounds: 1_000_000, ..CLEAR };

#[test]
#[ignore = "takes minutes: run nightly"]
fn a_server_killed_again_and_again_keeps_every_bit() {
    let kills = std::env::var("TERN_KILLS").ok().and_then(|text| text.parse().ok());
    let kills = kills.unwrap_or(KILLS);
    let place = set_up(port(), &ENDLESS);
    let clients: Vec<Running> = (0..ENDLESS.clients)
        .map(|i| place.start("client", &format!("client{i}.toml"), &format!("client{i}.log")))
        .collect();
    let mut committed = 0;
    for kill in 0..kills {
        let server = place.start("server", "server.toml", "server.log");
        // One in four before it did much, the others once there is another round; moments that
        // follow no pattern of the rounds'.
        if kill % 4 > 0 {
            place.wait_for_round(committed + 1);
        }
        std::thread::sleep(Duration::from_millis(u64::from(kill * 7_919 % 601)));
        server.kill();
        let rounds = place.rows().last().map_or(0, |row| row.round);
        assert!(rounds >= committed, "round {committed} was there, and {rounds} is the last one");
        committed = rounds;
    }
    let server = place.start("server", "server.toml", "server.log");
    place.wait_for_round(committed + 2);
    server.kill();
    drop(clients);
    let config = place.path("server.toml");
    let verified = output(&["verify", "--config", config.to_str().unwrap()]);
    let last = verified.lines().last().unwrap_or_default();
    println!("{kills} kills: {last}");
    let rounds = last.strip_suffix(" rounds, every bit the same");
    let rounds: u32 = rounds.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(rounds >= committed + 2, "{verified}");
    let log = std::fs::read_to_string(place.path("server.log")).unwrap();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_damaged_run_is_named_and_repaired() {
    let kind = Kind { rounds: 4, ..ENDLESS };
    let place = run(&kind, &[]);
    let config = place.path("server.toml");
    let config = config.to_str().unwrap();
    let tern = |arguments: &[&str]| {
        let output = tern(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let model = std::fs::read(place.path("run/model.safetensors")).unwrap();
    let (whole, said) = tern(&["repair", "--config", config]);
    assert!(whole && said.contains("are whole"), "{said}");

    std::fs::remove_file(place.path("run/journal.head")).unwrap();
    let (started, said) = tern(&["server", "--config", config, "--plain", "--linger", "0"]);
    assert!(!started && said.contains("journal.head: missing, expected write"), "{said}");
    assert_eq!(std::fs::read(place.path("run/model.safetensors")).unwrap(), model);
    let (done, said) = tern(&["repair", "--config", config]);
    assert!(!done && said.contains("can be had back: all") && said.contains("--apply"), "{said}");
    assert!(!place.path("run/damaged-1").exists());
    let (done, said) = tern(&["repair", "--config", config, "--apply"]);
    assert!(done && said.contains("damaged-1"), "{said}");
    let verified = output(&["verify", "--config", config]);
    assert!(verified.contains("4 rounds, every bit the same"), "{verified}");
    let (started, said) = tern(&["server", "--config", config, "--plain", "--linger", "0"]);
    assert!(started, "{said}");
}
