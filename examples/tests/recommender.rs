//! The recommender as processes: a server and its terminals over TLS.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tern_examples::network::Place;

#[test]
fn a_short_run_on_the_bundled_customers_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_recommender"));
    command.args(["--quick", "--rounds", "10"]);
    let (shown, found) = common::run(&mut command, folder.path(), "results.json");
    assert_eq!(found["terminals"], 40, "{shown}");
    for way in found["arms"].as_array().unwrap() {
        let hit1 = way["runs"][0]["hits"]["hit1"].as_f64().unwrap();
        assert!(hit1 > 0.3, "{way}");
    }
    for part in ["popularity", "ternary delta + secure", "Their device recommends: "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn terminals_are_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("town,MAGE,PCAR,PFIRE,PBOAT\n");
    for i in 0..120 {
        let [car, fire, boat] = [i % 3 != 2, i % 3 != 0, i % 7 == 0].map(i32::from);
        writeln!(text, "t{},{},{car},{fire},{boat}", i % 4, 3 * (i % 3)).unwrap();
    }
    let (data, report) = (folder.path().join("customers.csv"), folder.path().join("report"));
    // A further terminal can't be read.
    text += "t4,0,1,x,0\n";
    std::fs::write(&data, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_recommender"));
    command
        .args(["--quick", "--network", "--rounds", "25", "--cohort", "4"])
        .arg("--data")
        .arg(&data);
    let (shown, found) = common::run(&mut command, &report, "network.json");
    for (number, way) in ["ternary delta", "ternary delta + secure"].into_iter().enumerate() {
        let line = format!("25 rounds of {way} by 5 processes");
        assert!(shown.contains(&line), "{shown}");
        // An untrained model ranks about two thirds of them first.
        let hit1 = found[number]["hits"]["hit1"].as_f64().unwrap();
        assert!(hit1 > 0.85, "{found}");
        assert_eq!(found[number]["same_bits"].as_bool(), Some(true), "{shown}");
        assert_eq!(found[number]["loss"].as_array().unwrap().len(), 25);
        assert!(shown.lines().any(|line| line.starts_with(way)));
    }
    assert!(shown.contains("popularity") && report.join("loss.svg").exists(), "{shown}");
    assert_eq!(shown.matches("the same, bit by bit").count(), 2, "{shown}");
    let refused = shown.lines().find(|line| line.starts_with("Terminal t4 does not take part. "));
    assert!(
        refused.is_some_and(|line| line.contains("customers.csv:122: PFIRE is `x`")),
        "{shown}"
    );
}

#[test]
fn a_terminal_ends_with_the_process_that_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::create(&folder.path().join("network"), 3).unwrap();
    // Nobody is there: it would ask for ever.
    std::fs::write(place.path("address"), "https://localhost:1").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_recommender"));
    command.args(["--device", "cpu", "--role", "0", "--place"]).arg(place.path(""));
    let mut terminal = command.stdin(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(terminal.try_wait().unwrap().is_none(), "it asks");
    drop(terminal.stdin.take());
    let since = Instant::now();
    while terminal.try_wait().unwrap().is_none() {
        if since.elapsed() > Duration::from_secs(60) {
            terminal.kill().unwrap();
            panic!("it goes on without the process that started it");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
