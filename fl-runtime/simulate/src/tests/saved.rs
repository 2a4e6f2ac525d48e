//! Simulations that end in the middle and go on from their folder.

use std::path::Path;
use std::sync::Arc;

use tern_protocol::{Strategy, StrategyState};

use super::*;

/// Six rounds; clients keep residuals and moments in files, but for two of them.
fn plan_of(change: Change) -> RunPlan {
    let mut plan = plan(3);
    plan.rounds = 6;
    change(&mut plan);
    plan
}

fn open(plan: &RunPlan, folder: &Path) -> Result<Simulation> {
    let device = Device::cpu();
    let options = Options::new(&device).state_memory(0).folder(folder.to_path_buf());
    Simulation::new(plan, population(&device, 5), options)
}

/// All that a run leaves.
type Left = (Vec<RoundRecord>, Vec<f32>, Vec<f32>);

fn left(rounds: Vec<RoundRecord>, simulation: &Simulation) -> Left {
    assert!(simulation.coordinator().finished());
    (rounds, simulation.model().unwrap(), simulation.best_model().unwrap())
}

fn whole(plan: &RunPlan) -> Left {
    let device = Device::cpu();
    let mut simulation =
        Simulation::new(plan, population(&device, 5), Options::new(&device)).unwrap();
    let rounds = std::iter::from_fn(|| simulation.round().unwrap()).collect();
    left(rounds, &simulation)
}

#[test]
fn an_interrupted_run_comes_to_the_bits_of_one_that_was_not() {
    for (name, _, change) in KINDS {
        let plan = plan_of(change);
        let folder = tempfile::tempdir().unwrap();
        let mut rounds = Vec::new();
        // Rounds that each process makes, and after how many of them it saves: what comes after is
        // lost with it, and made again.
        for (made, saved) in [(1, 1), (3, 2), (0, 0), (1, 0), (2, 1), (2, 2)] {
            let mut simulation = open(&plan, folder.path()).unwrap();
            rounds.truncate(simulation.rounds() as usize);
            for number in 1..=made {
                rounds.extend(simulation.round().unwrap());
                if number == saved {
                    simulation.save().unwrap();
                }
            }
        }
        let simulation = open(&plan, folder.path()).unwrap();
        assert_eq!(left(rounds, &simulation), whole(&plan), "{name}");
    }
}

#[test]
fn a_run_that_was_interrupted_while_it_trained_goes_on() {
    for (name, _, change) in [KINDS[7], KINDS[10]] {
        let plan = plan_of(change);
        let folder = tempfile::tempdir().unwrap();
        let (device, interrupt) = (Device::cpu(), tern_engine::Interrupt::new());
        let options =
            Options::new(&device).folder(folder.path().to_path_buf()).interrupt(&interrupt);
        let mut simulation = Simulation::new(&plan, population(&device, 5), options).unwrap();
        let mut rounds: Vec<RoundRecord> =
            (0..2).filter_map(|_| simulation.round().unwrap()).collect();
        let model = simulation.model().unwrap();
        interrupt.set();
        let error = simulation.round().unwrap_err();
        assert!(matches!(error, Error::Engine(tern_engine::Error::Interrupted)), "{error}");
        assert_eq!(simulation.model().unwrap(), model, "of the round before");
        simulation.save().unwrap();
        drop(simulation);
        let mut simulation = open(&plan, folder.path()).unwrap();
        assert_eq!(simulation.rounds(), 2);
        rounds.extend(std::iter::from_fn(|| simulation.round().unwrap()));
        assert_eq!(left(rounds, &simulation), whole(&plan), "{name}");
    }
}

/// Sets an interrupt while the third model is made: what follows is the measuring.
struct Asks(tern_engine::Interrupt);

impl Strategy for Asks {
    fn name(&self) -> &str {
        "asks"
    }

    fn step(&self, model: &mut [f32], direction: &[f32], state: &mut StrategyState) {
        state.steps += 1;
        model.iter_mut().zip(direction).for_each(|(x, d)| *x += d);
        if state.steps == 3 {
            self.0.set();
        }
    }
}

#[test]
fn a_run_that_was_interrupted_while_it_measured_goes_on() {
    for on_clients in [false, true] {
        for (name, _, change) in [KINDS[7], KINDS[10]] {
            let mut plan = plan_of(change);
            plan.strategy = StrategySpec::Custom("asks".into());
            plan.evaluation.on_clients = on_clients;
            let device = Device::cpu();
            let options = |interrupt: &tern_engine::Interrupt| {
                let mut options = Options::new(&device).interrupt(interrupt);
                options.strategy = Some(Arc::new(Asks(interrupt.clone())));
                options.held_out = (!on_clients).then(|| rows(&device, &parts(5)[0]));
                options
            };
            let open = |options: Options, looked_at: &tern_engine::Interrupt| {
                let options = options.interrupt(looked_at);
                Simulation::new(&plan, population(&device, 5), options).unwrap()
            };
            let [asked, unseen] = [(); 2].map(|()| tern_engine::Interrupt::new());
            let mut simulation = open(options(&asked), &unseen);
            let expected = std::iter::from_fn(|| simulation.round().unwrap()).collect();
            let expected = left(expected, &simulation);

            let folder = tempfile::tempdir().unwrap();
            let asked = tern_engine::Interrupt::new();
            let there = || options(&asked).folder(folder.path().to_path_buf());
            let mut simulation = open(there(), &asked);
            let mut rounds: Vec<RoundRecord> =
                (0..2).filter_map(|_| simulation.round().unwrap()).collect();
            let model = simulation.model().unwrap();
            let error = simulation.round().unwrap_err();
            assert!(matches!(error, Error::Engine(tern_engine::Error::Interrupted)), "{error}");
            assert_eq!(simulation.model().unwrap(), model, "of the round before");
            simulation.save().unwrap();
            drop(simulation);
            let mut simulation = open(there(), &unseen);
            assert_eq!(simulation.rounds(), 2);
            rounds.extend(std::iter::from_fn(|| simulation.round().unwrap()));
            assert_eq!(left(rounds, &simulation), expected, "{name}, {on_clients}");
        }
    }
}

#[test]
fn a_run_that_is_over_takes_more_rounds() {
    for (name, _, change) in KINDS {
        let plan = plan_of(change);
        let folder = tempfile::tempdir().unwrap();
        let mut rounds = Vec::new();
        for until in [3, 6] {
            let mut plan = plan.clone();
            plan.rounds = until;
            let mut simulation = open(&plan, folder.path()).unwrap();
            rounds.extend(std::iter::from_fn(|| simulation.round().unwrap()));
            simulation.save().unwrap();
        }
        let simulation = open(&plan, folder.path()).unwrap();
        assert_eq!(left(rounds, &simulation), whole(&plan), "{name}");
    }
}

#[test]
fn a_process_that_ends_while_it_saves_leaves_what_was_saved_before() {
    let (name, _, change) = KINDS[7];
    let plan = plan_of(change);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    let mut simulation = open(&plan, folder.path()).unwrap();
    let mut rounds: Vec<_> = (0..2).filter_map(|_| simulation.round().unwrap()).collect();
    simulation.save().unwrap();
    let copies = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("server-");
    let kept: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| *path == state || copies(path.file_name().unwrap()))
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    assert_eq!(kept.len(), 2, "one file of the server's");
    // The next save has written the clients' records, and not yet what says that they count.
    simulation.round().unwrap().unwrap();
    simulation.save().unwrap();
    drop(simulation);
    for (path, bytes) in kept {
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(folder.path().join("state.json.partial"), "{").unwrap();
    let mut simulation = open(&plan, folder.path()).unwrap();
    assert_eq!(simulation.rounds(), 2);
    rounds.extend(std::iter::from_fn(|| simulation.round().unwrap()));
    assert_eq!(left(rounds, &simulation), whole(&plan), "{name}");
    simulation.save().unwrap();
    // Lock, state, clients, server.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "nothing else is left");
}

#[test]
fn another_run_is_not_gone_on_with() {
    let (_, _, change) = KINDS[7];
    let plan = plan_of(change);
    let folder = tempfile::tempdir().unwrap();
    let error = |opened: Result<Simulation>| opened.err().expect("it is another run").to_string();
    let mut simulation = open(&plan, folder.path()).unwrap();
    simulation.round().unwrap();
    simulation.save().unwrap();
    assert!(error(open(&plan, folder.path())).contains("in use by"));
    drop(simulation);
    let changed = |change: Change| {
        let mut plan = plan.clone();
        change(&mut plan);
        error(open(&plan, folder.path()))
    };
    assert!(changed(|plan| plan.seed = 6).contains("seed: 5 and 6"));
    assert!(changed(|plan| plan.rounds = 5).contains("rounds: 6 and 5"));
    let device = Device::cpu();
    let options = || Options::new(&device).folder(folder.path().to_path_buf());
    let opened = Simulation::new(&plan, population(&device, 4), options());
    assert!(error(opened).contains("clients of the simulation"));
    let opened = Simulation::new(&plan, population(&device, 5), options().run(RunId([1; 16])));
    assert!(error(opened).contains("run is"));
    // Damaged files are named.
    let state = folder.path().join("state.json");
    let json = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, json.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
    assert!(error(open(&plan, folder.path())).contains("version 2, expected 1"));
    std::fs::write(&state, json.replacen("{", "{\"more\":1,", 1)).unwrap();
    assert!(error(open(&plan, folder.path())).contains("unknown field `more`"));
    std::fs::write(&state, &json).unwrap();
    let server = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let server = server.into_iter().find(|path| path.to_string_lossy().contains("server-"));
    let server = server.unwrap();
    let mut bytes = std::fs::read(&server).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&server, bytes).unwrap();
    assert!(error(open(&plan, folder.path())).contains("another SHA-256"));
}
