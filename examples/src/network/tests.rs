use std::process::{Command, Stdio};

use tern_engine::nn::ModelSpec;
use tern_engine::save_model;
use tern_fl::layout::ModelKind;

use super::*;

#[test]
fn roles_are_read_or_refused() {
    assert_eq!("server".parse(), Ok(Role::Server));
    assert_eq!("12".parse(), Ok(Role::Client(12)));
    assert!("guest".parse::<Role>().is_err());
}

#[test]
fn a_place_keeps_its_clients() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::create(folder.path(), 2).unwrap();
    let who = [0, 1].map(|number| place.identity(number).unwrap());
    assert_ne!(who[0], who[1]);
    assert!(place.identity(2).unwrap_err().to_string().contains("client-2"));
    assert_eq!(place.rounds().unwrap().len(), 0);
    let again = Place::create(folder.path(), 2).unwrap_err().to_string();
    let name = folder.path().display().to_string();
    assert!(again.contains("expected a new folder") && again.contains(&name), "{again}");
    assert_eq!(place.identity(0).unwrap(), who[0], "nothing changed");
    let other = Place::create(&folder.path().join("other"), 2).unwrap();
    assert_ne!(other.run_id().unwrap(), place.run_id().unwrap());
    assert_ne!(other.identity(1).unwrap(), who[1]);
    other.take_keys(&place, 2).unwrap();
    assert_eq!([0, 1].map(|number| other.identity(number).unwrap()), who);
    assert!(other.is_called("other") && !place.is_called("other"));
    assert!(Place::create(&folder.path().join("none"), 0).is_err());
}

#[test]
fn rounds_without_a_client_are_not_complete() {
    let row = |clients| {
        serde_json::from_value(serde_json::json!({
            "round": 1, "attempt": 1, "metrics": {}, "clients": clients, "bytes_up": 1,
            "bytes_down": 1, "seconds": 1.0, "committed": 1,
            "draw": {"salt": "00".repeat(32), "candidates": 3, "drawn": 3, "largest": 1.0}
        }))
    };
    let ended = Ended { rounds: vec![row(3).unwrap(), row(2).unwrap()], failed: Vec::new() };
    assert!(!ended.complete(3));
    assert!(Ended { rounds: vec![row(3).unwrap()], ..ended }.complete(3));
}

/// The test starts itself once more, as a server that is at work and never done.
#[test]
fn a_server_at_work_ends_with_the_process_that_started_it() {
    const CHILD: &str = "TERN_TEST_SERVER_AT_WORK";
    if let Some(folder) = std::env::var_os(CHILD) {
        let place = Place { folder: folder.into() };
        place
            .serve_while(Vec::new(), None, || {
                loop {
                    std::thread::park();
                }
            })
            .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let place = Place::create(folder.path(), 1).unwrap();
    let plan = RunPlan::new("idle", ModelKind::Layers(ModelSpec::mlp(1, &[], 2)), 1);
    let layout = plan.check().unwrap();
    let (parameters, initial) = (layout.parameters(), layout.parameters().initial(0));
    place.write("plan.json", serde_json::to_string(&plan).unwrap().as_bytes()).unwrap();
    save_model(&place.path("initial.safetensors"), parameters, &initial).unwrap();
    let name = "network::tests::a_server_at_work_ends_with_the_process_that_started_it";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(CHILD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !place.path("address").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it serves");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
