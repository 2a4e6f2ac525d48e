//! A crowd at a fleet: two hundred clients in this process, over TLS, and two gateways, two leaders
//! and two aggregators in processes of their own, each kind of which is killed (`kill -9`) again and
//! again through ten rounds. What the clients have in the end has the bits that one process makes of
//! the counted updates: `tern verify` in the clear, and under masks the sum of what clients put in,
//! worked out here.

#![allow(clippy::print_stdout, reason = "a nightly test says what it did")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tern_engine::Device;
use tern_fl::client::{Client, Options, Outcome};
use tern_fl::config::Config;
use tern_fl::fleet::{Database, PgLedger};
use tern_fl::metrics::Metrics;
use tern_fl::server::journal::{CommittedRound, CountedUpload};
use tern_fl::server::storage::Ledger as _;
use tern_fl::trainer::{Job, Trained, Trainer, coding_key};
use tern_fl::update::Codec;
use tern_fl::{ClientId, Code, Digest, Layout, RunId, RunPlan, StrategyState, TaskSpec, Turn};
use tern_secagg::Masks;

use super::fleet::Fleet;
use super::{Kind, Place, output};

const CLIENTS: usize = 200;
const ROUNDS: u32 = 10;
/// Kills of each of the six processes.
const KILLS: usize = 3;
/// For the whole run, on a machine that does other things, too.
const LONGEST: Duration = Duration::from_secs(1_500);

const CLEAR: Kind = Kind {
    rounds: ROUNDS,
    clients: CLIENTS,
    minimum: 120,
    cohort: "deadline_ms = 60000\nstep_ms = 60000\n",
    secure: "",
};

const SECURE: Kind = Kind {
    cohort: "selection = \"by_samples\"\ndeadline_ms = 60000\nstep_ms = 60000\n",
    secure: "[run.secure]\n",
    ..CLEAR
};

/// A client whose update follows from its number and the attempt alone.
struct Steady(usize);

/// What it adds to the model.
fn change(layout: &Layout, number: usize, turn: Turn) -> Vec<f32> {
    let mixed = |at: usize| {
        let place = at as u32 * 2_654_435 + number as u32 * 40_503;
        (place + turn.round * 97 + turn.attempt * 13) % 193
    };
    let mut update: Vec<f32> =
        (0..layout.elements()).map(|at| (mixed(at) as f32 - 90.0) * 1e-4).collect();
    layout.clear_padding(&mut update);
    update
}

impl Trainer for Steady {
    fn samples(&self) -> u32 {
        20 + self.0 as u32 % 9
    }

    fn train(&mut self, task: &TaskSpec, job: &Job) -> tern_fl::Result<Trained> {
        let update = change(&Layout::of(&task.model)?, self.0, job.turn);
        let loss = 1.0 / (1.0 + self.0 as f64);
        Ok(Trained::new(update, self.samples(), Metrics::from([("loss".to_owned(), loss)])))
    }

    fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> tern_fl::Result<(u32, Metrics)> {
        Ok((self.samples(), Metrics::new()))
    }
}

/// All clients, until the run is over.
async fn take_part(folder: &Path, ports: [u16; 2]) {
    let (mut clients, device) = (tokio::task::JoinSet::new(), Device::cpu());
    for number in 0..CLIENTS {
        let options = Options::new(
            &format!("https://localhost:{}", ports[number % 2]),
            folder.join(format!("client{number}")),
        );
        let client = Client::new(options.authority(folder.join("certs/ca.pem"))).unwrap();
        let device = device.clone();
        clients.spawn(async move {
            let ended = client.run(Steady(number), &device, std::future::pending()).await;
            assert!(matches!(ended, Ok(Outcome::Finished(_))), "client {number}: {ended:?}");
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// A run to its end: two kills a round from the first on, of one process after the other.
fn run(kind: &Kind) -> Option<Fleet> {
    let mut fleet = Fleet::new(kind)?;
    let (folder, ports) = (fleet.place.path(""), fleet.ports);
    let event_loop = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (began, mut kills) = (Instant::now(), 0);
    let clients = event_loop.spawn(async move { take_part(&folder, ports).await });
    while !clients.is_finished() {
        assert!(began.elapsed() < LONGEST, "{}", fleet.status());
        std::thread::sleep(Duration::from_millis(50 + kills as u64 * 7_919 % 601));
        let round = fleet.status()["rounds"].as_u64().unwrap();
        if kills < 6 * KILLS && round >= kills as u64 / 2 {
            fleet.kill(kills % 6);
            kills += 1;
        }
    }
    event_loop.block_on(clients).unwrap();
    let (took, status) = (began.elapsed(), fleet.status());
    assert_eq!(kills, 6 * KILLS, "the run was over before all were killed");
    assert_eq!((&status["rounds"], &status["clients"]), (&ROUNDS.into(), &CLIENTS.into()));
    println!(
        "{CLIENTS} clients, {ROUNDS} rounds, {kills} kills in {took:.1?}; lease's epoch {}",
        status["lease"]["epoch"]
    );
    fleet.stop();
    Some(fleet)
}

/// What the run recorded: its rounds, and whose updates are in each.
fn recorded(place: &Place) -> (RunId, Vec<(CommittedRound, Vec<CountedUpload>)>) {
    let fleet = Config::load(&place.path("server.toml")).unwrap().fleet.unwrap();
    let event_loop = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let database = event_loop.block_on(Database::connect(&fleet)).unwrap();
    let ledger = PgLedger::reading(&database);
    let run = RunId::from_slice(&ledger.value("run").unwrap().unwrap()).unwrap();
    let rounds = ledger.rounds(0).unwrap();
    let with = |round: CommittedRound| {
        let counted = ledger.counted(round.round).unwrap();
        assert!(counted.len() >= CLEAR.minimum);
        assert!(counted.windows(2).all(|pair| pair[0].client < pair[1].client), "one twice");
        (round, counted)
    };
    let rounds: Vec<_> = rounds.into_iter().map(with).collect();
    for (round, counted) in &rounds {
        let (number, attempt) = (round.round, round.attempt);
        println!("round {number}, attempt {attempt}: {} updates, {}", counted.len(), round.model);
    }
    (run, rounds)
}

/// All clients have one model, and it is one of these.
fn check_models(place: &Place, made: &[Digest]) {
    let model = place.model("client0/model.safetensors");
    for client in 1..CLIENTS {
        assert_eq!(place.model(&format!("client{client}/model.safetensors")), model);
    }
    assert!(made.iter().any(|made| made.to_string() == model), "{model}");
}

#[test]
#[ignore = "takes minutes: run nightly"]
fn a_crowd_at_a_fleet_that_is_killed_again_and_again() {
    let Some(fleet) = run(&CLEAR) else { return };
    let (_, rounds) = recorded(&fleet.place);
    let config = fleet.place.path("server.toml");
    let verified = output(&["verify", "--config", config.to_str().unwrap()]);
    print!("{verified}");
    assert!(verified.contains(&format!("{ROUNDS} rounds, every bit the same")), "{verified}");
    let made: Vec<Digest> = rounds.iter().map(|(round, _)| round.model).collect();
    assert!(made.iter().all(|made| verified.contains(&made.to_string())));
    check_models(&fleet.place, &made);
}

#[test]
#[ignore = "takes minutes: run nightly"]
fn a_secure_crowd_at_a_fleet_that_is_killed_again_and_again() {
    let Some(fleet) = run(&SECURE) else { return };
    let (run, rounds) = recorded(&fleet.place);
    let plan = Config::load(&fleet.place.path("server.toml")).unwrap().run.unwrap();
    let made = unmasked(&plan, &run, &fleet.place, &rounds);
    for ((round, _), made) in rounds.iter().zip(&made) {
        assert_eq!(round.model, *made, "round {}", round.round);
    }
    println!("{} rounds, every bit what the clients' updates make", made.len());
    check_models(&fleet.place, &made);
}

/// The models that these updates make, of which none was ever masked.
fn unmasked(
    plan: &RunPlan,
    run: &RunId,
    place: &Place,
    rounds: &[(CommittedRound, Vec<CountedUpload>)],
) -> Vec<Digest> {
    let layout = plan.check().unwrap();
    let masking = plan.masking(&layout).unwrap().unwrap();
    let Code::Lanes(cohort) = masking.code else { panic!("{:?}", masking.code) };
    let codec = Codec::new(&Device::cpu(), &layout).unwrap();
    let strategy = plan.strategy.build(None).unwrap();
    // Each line has a key, and `client` with its number.
    let keys = std::fs::read_to_string(place.path("clients.txt")).unwrap();
    let key = |line: &str| line.split(' ').next().unwrap().parse::<ClientId>().unwrap();
    let numbers: BTreeMap<ClientId, usize> = keys.lines().map(key).zip(0..).collect();
    let mut model = layout.parameters().initial(plan.seed);
    let mut state = StrategyState::default();
    let mut scales = vec![plan.secure.as_ref().unwrap().first_scale; layout.tensors()];
    let mut residuals: BTreeMap<ClientId, Vec<f32>> = BTreeMap::new();
    let mut made = Vec::new();
    for (round, counted) in rounds {
        let turn = Turn::new(round.round, round.attempt);
        let mut sum = vec![0u32; masking.vector_words()];
        for upload in counted {
            let update = change(&layout, numbers[&upload.client], turn);
            let residual = residuals.entry(upload.client);
            let residual = residual.or_insert_with(|| vec![0.0; layout.elements()]);
            let key = coding_key(run, turn, &upload.client);
            let nothing = Masks::default();
            let coded = codec.masked_ternary(&update, residual, &scales, key, cohort, &nothing);
            let (words, left) = coded.unwrap();
            *residual = left;
            sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
        }
        let clients = counted.len() as u32;
        let mut mean = codec.unmasked_ternary(&sum, &scales, cohort, clients).unwrap();
        for (scale, tensor) in scales.iter_mut().zip(layout.parameters().iter()) {
            // Four times the root mean square, from half of the last one to twice that.
            let values = &mean[tensor.offset..][..tensor.len()];
            let squares: f64 = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            let wanted = 4.0 * (squares / values.len() as f64).sqrt();
            *scale = (wanted as f32).max(*scale / 2.0).min(*scale * 2.0);
        }
        layout.clear_padding(&mut mean);
        strategy.step(&mut model, &mean, &mut state);
        made.push(Digest::of(&Codec::full(&model)));
    }
    made
}
