use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tern_engine::nn::ModelSpec;
use tern_engine::{Device, Optimizer, RowData};
use tern_protocol::TaskSpec;
use tern_protocol::layout::ModelKind;
use tern_protocol::metrics::Metrics;
use tern_protocol::plan::{Encoding, Secure, Selection};
use tern_protocol::trainer::{EngineTrainer, Job, LocalData, Trained};

use super::*;

const SIZES: [usize; 4] = [6, 9, 4, 12];

/// Points in a plane, cut by a line.
fn points() -> (Vec<f32>, Vec<u32>, Vec<Vec<usize>>) {
    let count: usize = SIZES.iter().sum();
    let x: Vec<f32> = (0..2 * count).map(|i| (i * 37 % 80) as f32 / 40.0 - 1.0).collect();
    let labels = x.chunks(2).map(|p| u32::from(p[0] > p[1])).collect();
    let mut end = 0;
    let parts = SIZES.map(|size| {
        end += size;
        (end - size..end).collect()
    });
    (x, labels, parts.into())
}

fn clients(device: &Device) -> Vec<Client<EngineTrainer>> {
    let (x, labels, parts) = points();
    let client = |(number, part): (usize, &Vec<usize>)| {
        let (first, last) = (part[0], part[part.len() - 1]);
        let (x, labels) = (&x[2 * first..=2 * last + 1], &labels[first..=last]);
        let rows = RowData::upload(device, x, 2, labels, 2).unwrap();
        Client::numbered(number, EngineTrainer::new(device, LocalData::Rows(rows)))
    };
    parts.iter().enumerate().map(client).collect()
}

fn plan() -> RunPlan {
    let mut plan = RunPlan::new("local", ModelKind::Layers(ModelSpec::mlp(2, &[8], 2)), 4);
    (plan.cohort.size, plan.cohort.minimum) = (3, 2);
    (plan.training.epochs, plan.training.learning_rate, plan.seed) = (2, 0.5, 5);
    plan
}

fn run_plan<T: Trainer>(
    plan: &RunPlan,
    clients: &mut [Client<T>],
) -> Result<(Outcome, Vec<Round>)> {
    let folder = tempfile::tempdir().unwrap();
    let mut rounds = Vec::new();
    let outcome =
        run(plan, None, clients, Options::new(&Device::cpu(), folder.path()), |round, model| {
            rounds.push(round.clone());
            assert_eq!((round.committed.round as usize, model.len()), (rounds.len(), 256));
        })?;
    assert_eq!(outcome.rounds as usize, rounds.len());
    Ok((outcome, rounds))
}

fn secure(plan: &mut RunPlan) {
    let mut secure = Secure::default();
    (secure.corrupt, secure.dropout, secure.limit) = (0.0, 0.34, 4.0);
    // Sums of two are enough among clients of one process.
    secure.honest = 2;
    plan.secure = Some(secure);
}

#[test]
fn a_secure_sum_is_the_sum() {
    let device = Device::cpu();
    let mut plan = plan();
    let (clear, clear_rounds) = run_plan(&plan, &mut clients(&device)).unwrap();
    secure(&mut plan);
    let (masked, masked_rounds) = run_plan(&plan, &mut clients(&device)).unwrap();
    for (clear, masked) in clear.model.iter().zip(&masked.model) {
        // The fixed point of masked words is coarser.
        assert!((clear - masked).abs() < 1e-5, "{clear} {masked}");
    }
    // The means of what was measured are known, too.
    for (clear, masked) in clear_rounds.iter().zip(&masked_rounds) {
        let [clear, masked] = [clear, masked].map(|round| &round.committed.training);
        assert_eq!(masked.keys().collect::<Vec<_>>(), ["loss"]);
        assert!((clear["loss"] - masked["loss"]).abs() < 1e-5, "{clear:?} {masked:?}");
    }
    let [clear, masked] = [clear_rounds, masked_rounds].map(|rounds| rounds[0].traffic);
    // Ten words of a metric from each of three clients.
    assert_eq!((clear.downloaded, clear.uploaded + 3 * 40), (masked.downloaded, masked.uploaded));
    assert!(
        masked.messages_up > 2 * clear.messages_up
            && masked.messages_down > 2 * clear.messages_down,
        "keys and shares"
    );
}

#[test]
fn ternary_codes_are_added_in_secret() {
    let mut plan = plan();
    plan.rounds = 30;
    secure(&mut plan);
    plan.updates.uplink = Encoding::Ternary;
    plan.cohort.selection = Selection::BySamples;
    let (_, rounds) = run_plan(&plan, &mut clients(&Device::cpu())).unwrap();
    let loss = |at: usize| rounds[at].committed.training["loss"];
    assert!(loss(29) < 0.7 * loss(0), "{} {}", loss(0), loss(29));
    // Lanes of three bits for sums of three codes, and nothing of the size of floats.
    assert!(rounds[0].traffic.uploaded < 3 * 256);
}

/// A trainer that fails where it is told to.
struct Moody {
    inner: EngineTrainer,
    fails: bool,
    empty: bool,
}

impl Trainer for Moody {
    fn samples(&self) -> u32 {
        if self.empty { 0 } else { self.inner.samples() }
    }
    fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained> {
        match self.fails {
            true => Err(Error::trainer("line 3 is no number")),
            false => self.inner.train(task, job),
        }
    }
    fn evaluate(&mut self, task: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics)> {
        self.inner.evaluate(task, model)
    }
}

fn moody(fails: &[usize], empty: &[usize]) -> Vec<Client<Moody>> {
    let moody = |(number, client): (usize, Client<EngineTrainer>)| {
        let [fails, empty] = [fails, empty].map(|which| which.contains(&number));
        Client { identity: client.identity, trainer: Moody { inner: client.trainer, fails, empty } }
    };
    clients(&Device::cpu()).into_iter().enumerate().map(moody).collect()
}

#[test]
fn a_client_that_fails_sits_out() {
    for masked in [false, true] {
        let mut plan = plan();
        plan.cohort.size = 4;
        if masked {
            secure(&mut plan);
        }
        let mut clients = moody(&[1], &[]);
        let (_, rounds) = run_plan(&plan, &mut clients).unwrap();
        for round in &rounds {
            let [(absent, reason)] = &round.absent[..] else { panic!("{:?}", round.absent) };
            assert_eq!(*absent, clients[1].id());
            assert!(reason.contains("line 3"), "{reason}");
            assert_eq!((round.counted.len(), round.committed.attempt), (3, 1));
        }
    }
}

#[test]
fn a_run_without_enough_clients_ends_with_an_error() {
    let error = |clients: &mut [Client<Moody>]| run_plan(&plan(), clients).unwrap_err().to_string();
    let failed = error(&mut moody(&[0, 1, 2, 3], &[]));
    assert!(failed.contains("round 1") && failed.contains("line 3"), "{failed}");
    let empty = error(&mut moody(&[], &[0, 2, 3]));
    assert!(empty.contains("clients with data is 1"), "{empty}");
    // Three have data: the run goes on without the fourth.
    assert!(run_plan(&plan(), &mut moody(&[], &[2])).is_ok());
    let mut twice = moody(&[], &[]);
    twice[1].identity = twice[0].identity.clone();
    assert!(error(&mut twice).contains("key of two clients"));
}

#[test]
fn a_folder_holds_one_run() {
    let (device, folder) = (Device::cpu(), tempfile::tempdir().unwrap());
    let options = || Options::new(&device, folder.path());
    let initial = vec![0.0; 256];
    let mut plan = plan();
    plan.rounds = 1;
    plan.training.learning_rate = 0.0;
    let outcome = run(&plan, Some(&initial), &mut clients(&device), options(), |_, _| ()).unwrap();
    assert_eq!(outcome.model, initial, "starts where it is told to");
    let again = run(&plan, None, &mut clients(&device), options(), |_, _| ());
    assert!(again.unwrap_err().to_string().contains("holds no run yet"));
    // What its clients went on from is nowhere.
    let again = run(&plan, None, &mut clients(&device), options().resumable(true), |_, _| ());
    assert!(again.unwrap_err().to_string().contains("or a resumable one"));
}

/// A trainer whose process ends once so many jobs of all are done.
struct Mortal {
    inner: EngineTrainer,
    left: Rc<Cell<usize>>,
}

impl Trainer for Mortal {
    fn samples(&self) -> u32 {
        self.inner.samples()
    }
    fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained> {
        self.left.set(self.left.get().checked_sub(1).expect("the process ends"));
        self.inner.train(task, job)
    }
    fn evaluate(&mut self, task: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics)> {
        self.inner.evaluate(task, model)
    }
}

#[test]
fn a_run_goes_on_after_its_process_has_ended() {
    type Change = fn(&mut RunPlan);
    let changes: [(bool, Change); 4] = [
        (true, |_| ()),
        (true, |plan| {
            plan.updates.uplink = Encoding::Ternary;
            plan.updates.downlink = Encoding::Ternary;
        }),
        (true, |plan| {
            plan.training.optimizer = Optimizer::adam();
            plan.training.keep_optimizer = true;
            plan.evaluation.on_clients = true;
        }),
        // The attempt that was open is made again, by another seed.
        (false, secure),
    ];
    for (number, (same, change)) in changes.into_iter().enumerate() {
        let mut plan = plan();
        change(&mut plan);
        let (whole, _) = run_plan(&plan, &mut clients(&Device::cpu())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut rounds = Vec::new();
        let mut going_on = |plan: &RunPlan, jobs: usize| {
            let left = Rc::new(Cell::new(jobs));
            let mortal = |client: Client<EngineTrainer>| Client {
                identity: client.identity,
                trainer: Mortal { inner: client.trainer, left: left.clone() },
            };
            let mut clients: Vec<_> = clients(&Device::cpu()).into_iter().map(mortal).collect();
            let options = Options::new(&Device::cpu(), folder.path()).resumable(true);
            let seen = |round: &Round, _: &[f32]| rounds.push(round.committed.round);
            catch_unwind(AssertUnwindSafe(|| run(plan, None, &mut clients, options, seen)))
        };
        // In the middle of rounds and at their ends; then it is over, and takes two more.
        let mut shorter = plan.clone();
        shorter.rounds = 2;
        for jobs in [1, 3, 0] {
            assert!(going_on(&shorter, jobs).is_err(), "change {number}, {jobs} jobs");
        }
        assert_eq!(going_on(&shorter, usize::MAX).unwrap().unwrap().rounds, 2);
        assert!(going_on(&plan, 2).is_err());
        let outcome = going_on(&plan, usize::MAX).unwrap().unwrap();
        assert_eq!(outcome.rounds, 4);
        assert_eq!(rounds, [1, 2, 3, 4], "change {number}");
        assert_eq!(outcome == whole, same, "change {number}");
        assert!(outcome.model.iter().all(|x| x.is_finite()));
    }
}
