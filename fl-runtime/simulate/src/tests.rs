use tern_engine::nn::ModelSpec;
use tern_engine::ops::aggregate::Aggregator;
use tern_engine::{
    Device, DeviceOptions, Element, Kind as DeviceKind, Optimizer, Pass, RowData, Select, Vector,
};
use tern_protocol::Total;
use tern_protocol::layout::ModelKind;
use tern_protocol::metrics;
use tern_protocol::plan::{
    Encoding, Goal, RateDecay, Secure, StrategySpec, TernaryMethod, UpdateKind,
};
use tern_protocol::trainer::LocalData;
use tern_shaders::kernels::random::{pcg4d, uniform};

use super::*;

mod saved;

/// The CPU, and software Vulkan where there is one.
fn devices() -> Vec<Device> {
    let options =
        DeviceOptions::new(Select::Kind(DeviceKind::Software)).portable(true).checked(true);
    let software = pollster::block_on(Device::open(&options));
    [Device::cpu()].into_iter().chain(software).collect()
}

/// Points in a square, whose class is the quadrant.
fn points(n: usize) -> (Vec<f32>, Vec<u32>) {
    let x: Vec<f32> =
        (0..2 * n as u32).map(|i| 2.0 * uniform(pcg4d([i, 1, 2, 3])[0]) - 1.0).collect();
    let class = |p: &[f32]| u32::from(p[0] > 0.0) + 2 * u32::from(p[1] > 0.0);
    let labels = x.chunks(2).map(class).collect();
    (x, labels)
}

/// Clients with 5, 16, 27, … rows.
fn parts(clients: usize) -> Vec<Vec<usize>> {
    let mut end = 0;
    let part = |client: usize| {
        end += 5 + 11 * client;
        (end - 5 - 11 * client..end).collect()
    };
    (0..clients).map(part).collect()
}

fn population(device: &Device, clients: usize) -> Population {
    let parts = parts(clients);
    let (x, labels) = points(parts.concat().len());
    Population::rows(device, (&x, 2), &labels, 4, &parts).unwrap()
}

/// Rows of a client, for a trainer of its own.
fn rows(device: &Device, part: &[usize]) -> LocalData {
    let (x, labels) = points(part[part.len() - 1] + 1);
    let (x, labels) = (&x[2 * part[0]..], &labels[part[0]..]);
    LocalData::Rows(RowData::upload(device, x, 2, labels, 4).unwrap())
}

fn plan(clients: u32) -> RunPlan {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[9], 4)), 3);
    plan.cohort.size = clients;
    plan.training.learning_rate = 0.2;
    plan.seed = 5;
    plan
}

fn run(plan: &RunPlan, clients: Population, options: Options) -> (Vec<RoundRecord>, Vec<f32>) {
    let mut simulation = Simulation::new(plan, clients, options).unwrap();
    let mut rounds = Vec::new();
    while let Some(round) = simulation.round().unwrap() {
        rounds.push(round);
    }
    (rounds, simulation.model().unwrap())
}

type Change = fn(&mut RunPlan);

/// Kinds of runs, and whether the arithmetic is the same in all of its steps.
const KINDS: [(&str, bool, Change); 15] = [
    ("full", true, |_| ()),
    ("half", true, |p| p.updates.uplink = Encoding::Half),
    ("thresholded", true, |p| p.updates.uplink = Encoding::Ternary),
    ("drawn", true, |p| {
        p.updates.uplink = Encoding::Ternary;
        p.updates.ternary = TernaryMethod::Drawn(2.5);
    }),
    ("gradient", true, |p| {
        p.updates.kind = UpdateKind::Gradient;
        p.strategy = StrategySpec::Average { learning_rate: 0.3 };
    }),
    ("adam", true, |p| {
        p.training.optimizer = Optimizer::adam();
        p.training.learning_rate = 0.01;
        p.strategy = StrategySpec::Adam { learning_rate: 0.02, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    }),
    ("momentum kept", true, |p| {
        let (momentum, dampening, weight_decay) = (0.9, 0.0, 0.0);
        p.training.optimizer = Optimizer::Sgd { momentum, dampening, weight_decay, nesterov: true };
        p.training.keep_optimizer = true;
        (p.training.learning_rate, p.training.steps) = (0.05, Some(3));
    }),
    ("AMSGrad kept, codes", true, |p| {
        let (beta1, beta2, epsilon) = (0.9, 0.999, 1e-8);
        p.training.optimizer =
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay: 0.0, amsgrad: true };
        p.training.keep_optimizer = true;
        p.training.learning_rate = 0.01;
        p.updates.uplink = Encoding::Ternary;
    }),
    ("falling rate", true, |p| {
        p.training.decay = Some(RateDecay::Every { factor: 0.3, rounds: 1 });
    }),
    ("proximal", true, |p| (p.training.proximal, p.training.epochs) = (Some(0.1), 2)),
    ("downlink", true, |p| p.updates.downlink = Encoding::Ternary),
    ("limited", true, |p| p.updates.max_norm = Some(0.05)),
    ("limited half", true, |p| {
        (p.updates.max_norm, p.updates.uplink) = (Some(0.05), Encoding::Half);
    }),
    ("limited codes", true, |p| {
        (p.updates.max_norm, p.updates.uplink) = (Some(0.05), Encoding::Ternary);
        p.updates.ternary = TernaryMethod::Drawn(2.5);
    }),
    // The server clips by a norm in double precision.
    ("clipped", false, |p| (p.training.clip_update, p.updates.bound) = (Some(0.05), 0.02)),
];

mod network {
    use std::collections::VecDeque;

    use tern_host::files::Durability;
    use tern_protocol::participant::{Action, Input, Participant, SavedState};
    use tern_protocol::trainer::{EngineTrainer, Trainer};
    use tern_server::federation::{self, Federation};
    use tern_server::local::{self, Client};

    use super::*;
    use ed25519_dalek::SigningKey;

    fn key(number: usize) -> SigningKey {
        SigningKey::from_bytes(&[number as u8 + 1; 32])
    }

    fn name(number: usize) -> ClientId {
        ClientId(key(number).verifying_key().to_bytes())
    }

    /// A client with its engine and no network between it and the server.
    struct Member {
        participant: Participant,
        trainer: EngineTrainer,
    }

    impl Member {
        /// Asks once and does all that comes of it; false once the run is over.
        fn turn(&mut self, server: &mut Federation, now: Millis) -> bool {
            let client = *self.participant.client();
            let task = self.participant.task().clone();
            let instruction = server.poll(now, &client, self.trainer.samples()).unwrap();
            let mut inputs = VecDeque::from([Input::Instruction(instruction)]);
            while let Some(input) = inputs.pop_front() {
                for action in self.participant.handle(input).unwrap() {
                    inputs.extend(match action {
                        Action::Fetch(digest) => {
                            let bytes = server.blob(&digest).unwrap();
                            Some(Input::Fetched { digest, bytes })
                        }
                        Action::Train(job) => {
                            Some(Input::Trained(self.trainer.train(&task, &job).unwrap()))
                        }
                        Action::Upload => {
                            let pending = self.participant.kept().pending.clone().unwrap();
                            let turn = pending.turn;
                            server.upload_append(&client, turn, 0, &pending.body).unwrap();
                            server.upload_finish(now, &client, pending.finish()).unwrap();
                            Some(Input::Delivered)
                        }
                        Action::Stop(_) => return false,
                        Action::Save | Action::Wait => None,
                        Action::Send(message) => panic!("{message:?}"),
                        Action::Evaluate(_) => panic!("nobody asked for an evaluation"),
                    });
                }
            }
            true
        }
    }

    /// The clients' model after a run by a server and its clients.
    fn model_of(plan: &RunPlan, device: &Device, clients: usize) -> Vec<f32> {
        let folder = tempfile::tempdir().unwrap();
        let options =
            federation::Options::default().durability(Durability::None).run(RunId([0; 16]));
        let options = options.simulated(plan.seed);
        let initial = plan.check().unwrap().parameters().initial(plan.seed);
        let mut server = Federation::open(folder.path(), plan, &initial, options).unwrap();
        let parts = parts(clients);
        let mut members: Vec<Member> = parts
            .iter()
            .enumerate()
            .map(|(number, part)| {
                let key = key(number);
                server.enroll(Millis(1), name(number), None).unwrap();
                let task = server.task().clone();
                Member {
                    participant: Participant::new(&key, task, device, SavedState::default())
                        .unwrap(),
                    trainer: EngineTrainer::new(device, rows(device, part)),
                }
            })
            .collect();
        for step in 1..200 {
            let now = Millis(100 * step);
            let going: Vec<bool> = members.iter_mut().map(|m| m.turn(&mut server, now)).collect();
            server.tick(now).unwrap();
            if !going.contains(&true) {
                let public = server.coordinator().head().public;
                return server.model(&public).unwrap();
            }
        }
        panic!("the run doesn't end: {:?}", server.status());
    }

    #[test]
    fn a_simulation_gives_the_model_of_a_run_with_a_server() {
        for device in devices() {
            for (name, exact, change) in KINDS {
                let mut plan = plan(4);
                change(&mut plan);
                let expected = model_of(&plan, &device, 4);
                let clients = population(&device, 4).named(&[0, 1, 2, 3].map(self::name)).unwrap();
                let (rounds, found) = run(&plan, clients, Options::new(&device));
                assert_eq!(rounds.len(), 3);
                let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                let error = error.fold(0f32, f32::max);
                let what = format!("{name} on {}: {error}", device.name());
                assert!(error <= if exact { 0.0 } else { 1e-6 }, "{what}");
            }
        }
    }

    /// Only the protocol is another one: cohorts, updates and sums are those of a simulation.
    #[test]
    fn clients_in_one_process_give_the_bits_of_a_simulation() {
        let device = Device::cpu();
        for encoding in [Encoding::Full, Encoding::Ternary] {
            let mut plan = plan(3);
            (plan.cohort.minimum, plan.rounds) = (2, 4);
            (plan.updates.uplink, plan.updates.downlink) = (encoding, encoding);
            let client = |(number, part): (usize, &Vec<usize>)| {
                Client::numbered(number, EngineTrainer::new(&device, rows(&device, part)))
            };
            let mut clients: Vec<_> = parts(4).iter().enumerate().map(client).collect();
            let names: Vec<_> = clients.iter().map(Client::id).collect();
            let folder = tempfile::tempdir().unwrap();
            let options = local::Options::new(&device, folder.path());
            let mut rounds = Vec::new();
            let outcome = local::run(&plan, None, &mut clients, options, |round, _| {
                rounds.push(round.clone());
            });
            let outcome = outcome.unwrap();

            let population = population(&device, 4).named(&names).unwrap();
            let mut simulation = Simulation::new(&plan, population, Options::new(&device)).unwrap();
            let mut cohorts = std::collections::BTreeSet::new();
            let mut downlink = Downlink::new(&plan).unwrap();
            for round in &rounds {
                let record = simulation.round().unwrap().unwrap();
                let counted: Vec<_> = round.counted.iter().map(|upload| upload.client).collect();
                assert_eq!(counted, record.uploads.keys().copied().collect::<Vec<_>>());
                let bytes: u64 = record.uploads.values().map(|upload| upload.bytes).sum();
                assert_eq!(round.traffic.uploaded, bytes);
                let fetched = downlink.round(counted.iter().copied().collect());
                assert_eq!(round.traffic.downloaded, fetched, "{encoding:?}");
                cohorts.insert(counted);
            }
            assert_eq!(simulation.model().unwrap(), outcome.model, "{encoding:?}");
            assert!(cohorts.len() > 1, "the same clients in every round");
        }
    }
}

#[test]
fn the_sum_of_updates_is_the_servers_bit_for_bit() {
    for device in devices() {
        let plan = plan(4);
        let layout = plan.check().unwrap();
        let clients = population(&device, 4);
        let recorder = Recorder::new(&plan.model).unwrap();
        let mut slots =
            Slots::new(&device, &plan, &layout, &recorder, clients.data(), 4, 1 << 30).unwrap();
        let n = layout.elements();
        let initial = layout.parameters().initial(1);
        let model = Vector::upload(&device, &tern_engine::Data::F32(initial)).unwrap();
        let task = |client: usize| Task {
            seed: client as u32,
            part: clients.part(client).clone(),
            steps: 3 * client as u32,
            done: 0,
        };
        let measured = slots.train(1, &model, &[0, 1, 2, 3].map(task)).unwrap();
        assert_eq!(measured[0].norm, 0.0, "no steps, no update");
        assert!(measured[1..].iter().all(|m| m.norm > 0.0 && m.loss.is_some()));
        let weights = [7, 100_003, 0, 12];
        let mut aggregator = Aggregator::new(&device, n, plan.fraction_bits()).unwrap();
        slots.add_to(&mut aggregator, &weights).unwrap();
        let mean = Vector::zeros(&device, Element::F32, n).unwrap();
        let mut pass = Pass::new(&device);
        aggregator.finish(&mut pass, &mean).unwrap();
        pass.run().unwrap();
        let mut total = Total::new(n, plan.fraction_bits());
        for (slot, weight) in weights.into_iter().enumerate().rev() {
            total.begin(weight);
            total.add(0, &slots.update(slot).unwrap().read().unwrap().floats().unwrap(), weight);
        }
        assert_eq!(aggregator.weight(), total.weight());
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let (found, expected) = (mean.read().unwrap().floats().unwrap(), total.mean());
        assert!(expected.iter().any(|x| *x != 0.0));
        assert_eq!(bits(found), bits(expected), "{}", device.name());
    }
}

#[test]
fn groups_and_memory_change_no_bit() {
    let device = Device::cpu();
    for (name, _, change) in KINDS {
        let mut plan = plan(5);
        change(&mut plan);
        let options = Options::new(&device);
        let (rounds, expected) = run(&plan, population(&device, 8), options.clone());
        // One slot, and one residual on the device.
        let folder = tempfile::tempdir().unwrap();
        let little = Options { memory: 1, state_memory: 1, spill: folder.path().into(), ..options };
        let mut simulation = Simulation::new(&plan, population(&device, 8), little).unwrap();
        assert_eq!(simulation.slots(), 1);
        for round in &rounds {
            let found = simulation.round().unwrap().unwrap();
            assert_eq!(found.uploads.keys().len(), 5);
            assert!(found.uploads.keys().eq(round.uploads.keys()), "{name}: another cohort");
        }
        assert!(simulation.round().unwrap().is_none());
        assert!(simulation.model().unwrap() == expected, "{name}");
        let kept = plan.updates.uplink == Encoding::Ternary || plan.training.keep_optimizer;
        assert_eq!(simulation.spilled() > 3, kept, "{name}");
        drop(simulation);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn two_simulations_share_a_spill_folder() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::cpu();
    let mut plan = plan(4);
    plan.updates.uplink = Encoding::Ternary;
    let simulations = [1, 2].map(|_| {
        let options =
            Options { state_memory: 1, spill: folder.path().into(), ..Options::new(&device) };
        let mut simulation = Simulation::new(&plan, population(&device, 4), options).unwrap();
        while simulation.round().unwrap().is_some() {}
        assert!(simulation.spilled() > 2);
        simulation
    });
    let [one, two] = simulations.map(|simulation| simulation.model().unwrap());
    assert_eq!(one, two);
}

#[test]
fn a_simulation_goes_on_from_a_model() {
    let device = Device::cpu();
    let mut plan = plan(3);
    plan.rounds = 4;
    let (rounds, expected) = run(&plan, population(&device, 6), Options::new(&device));
    let mut first = Simulation::new(&plan, population(&device, 6), Options::new(&device)).unwrap();
    let met = [first.round(), first.round()].map(|round| round.unwrap().unwrap());
    let options =
        Options { initial: Some(first.model().unwrap()), done: 2, ..Options::new(&device) };
    let (left, found) = run(&plan, population(&device, 6), options);
    let cohorts = |of: &[RoundRecord]| -> Vec<Vec<ClientId>> {
        of.iter().map(|round| round.uploads.keys().copied().collect()).collect()
    };
    assert_eq!([cohorts(&met), cohorts(&left)].concat(), cohorts(&rounds));
    assert_eq!(found, expected);
    let over = Options { initial: Some(found), done: 4, ..Options::new(&device) };
    assert!(run(&plan, population(&device, 6), over).0.is_empty());
}

#[test]
fn rounds_are_measured_and_the_best_model_is_kept() {
    for device in devices() {
        let mut plan = plan(3);
        plan.rounds = 30;
        plan.evaluation.on_clients = true;
        plan.evaluation.metric = "accuracy".into();
        plan.evaluation.goal = Goal::Maximize;
        plan.evaluation.patience = Some(3);
        let (x, labels) = points(600);
        let held_out = RowData::upload(&device, &x, 2, &labels, 4).unwrap();
        let options =
            Options { held_out: Some(LocalData::Rows(held_out)), ..Options::new(&device) };
        let mut simulation = Simulation::new(&plan, population(&device, 6), options).unwrap();
        let (mut best, mut at) = (0.0, 0);
        let mut kept = Vec::new();
        let mut done = 0;
        while let Some(round) = simulation.round().unwrap() {
            done = round.turn.round;
            let accuracy = round.head.metrics["accuracy"];
            for of in [&round.head.metrics, &round.evaluation] {
                assert!(of.contains_key("loss") && of.contains_key("top3"));
            }
            if accuracy > best {
                (best, at) = (accuracy, round.turn.round);
                kept = simulation.model().unwrap();
            }
        }
        assert!(simulation.best_model().unwrap() == kept);
        assert!(best > 0.5, "{best}");
        assert!(done == 30 || done == at + 3, "{done}, best in {at}");
    }
}

#[test]
fn clients_measure_what_they_would_alone() {
    use tern_protocol::trainer::{EngineTrainer, Trainer};
    for device in devices() {
        let mut plan = plan(4);
        plan.rounds = 1;
        plan.evaluation.on_clients = true;
        let (rounds, model) = run(&plan, population(&device, 4), Options::new(&device));
        let task = plan.task(RunId([0; 16])).unwrap();
        let parts = parts(4);
        let alone = parts.iter().map(|part| {
            EngineTrainer::new(&device, rows(&device, part)).evaluate(&task, &model).unwrap()
        });
        let alone: Vec<(u32, Metrics)> = alone.collect();
        let expected = metrics::mean(alone.iter().map(|(n, m)| (*n, m)));
        for (name, value) in &rounds[0].evaluation {
            assert!((value - expected[name]).abs() < 1e-6, "{name}: {value}");
        }
        assert_eq!(rounds[0].evaluation.len(), expected.len());
    }
}

#[test]
fn ten_thousand_clients_take_turns() {
    let device = Device::cpu();
    let (x, labels) = points(20_000);
    let parts = partition(&labels, 10_000, Partition::Iid, 1).unwrap();
    let clients = Population::rows(&device, (&x, 2), &labels, 4, &parts).unwrap();
    let mut plan = plan(300);
    plan.updates.uplink = Encoding::Ternary;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        // Room for a hundred residuals.
        state_memory: 100 * 4 * plan.check().unwrap().elements() as u64,
        spill: folder.path().into(),
        ..Options::new(&device)
    };
    let mut simulation = Simulation::new(&plan, clients, options).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while let Some(round) = simulation.round().unwrap() {
        assert_eq!(round.uploads.len(), 300);
        seen.extend(round.uploads.into_keys());
    }
    assert!(seen.len() > 850, "{}", seen.len());
    assert!(simulation.spilled() >= seen.len() - 100);
}

#[test]
fn what_cannot_be_simulated_is_named() {
    let device = Device::cpu();
    let fails = |change: Change| {
        let mut plan = plan(4);
        change(&mut plan);
        let simulation = Simulation::new(&plan, population(&device, 4), Options::new(&device));
        let result = simulation.and_then(|mut simulation| simulation.round());
        result.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let error = fails(|plan| plan.secure = Some(Secure::default()));
    assert!(error.contains("secure") || error.contains("minimum"), "{error}");
    let error = fails(|plan| plan.cohort.minimum = 9);
    assert!(error.contains("cohort.minimum"), "{error}");
    // Nobody's update of this model is a number.
    let plan = plan(4);
    let initial = Some(vec![1e30; plan.check().unwrap().elements()]);
    let options = Options { initial, ..Options::new(&device) };
    let mut simulation = Simulation::new(&plan, population(&device, 4), options).unwrap();
    let error = simulation.round().unwrap_err().to_string();
    assert!(error.contains("too few updates"), "{error}");
}
