//! Whole rounds: clients, gateways, leaders and aggregators over a real database and object store,
//! of which some end in the middle. Each model has the bits that one machine makes of the updates
//! that were counted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::layout::{ModelKind, TensorSpec};
use tern_protocol::plan::Encoding;
use tern_protocol::update::Codec;
use tern_protocol::wire::instruction::What;
use tern_protocol::{ClientId, Digest, Refusal, RunPlan, Turn, wire};
use tern_server::federation::{self, audit_of};
use tern_server::http::Backend;
use tern_server::storage::Ledger as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::place::Place;
use crate::{Database, Gateway, Objects, PgLedger, aggregator, leader};

/// Far more than it takes; then something hangs.
const PATIENCE: Duration = Duration::from_secs(90);

/// A leader or an aggregator.
pub struct Role {
    stop: watch::Sender<bool>,
    task: JoinHandle<tern_protocol::Result<()>>,
}

impl Role {
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }
}

pub struct Fleet {
    pub place: Place,
    pub plan: RunPlan,
    initial: Vec<f32>,
    folder: tempfile::TempDir,
    spools: usize,
}

impl Fleet {
    pub async fn new(change: impl FnOnce(&mut RunPlan)) -> Option<Self> {
        let mut place = Place::new().await?;
        if let Ok(endpoint) = std::env::var("TERN_TEST_S3") {
            place.options.objects = format!("s3://tern/{}", place.options.schema);
            place.options.endpoint = Some(endpoint);
        }
        let weights = TensorSpec { name: "w".into(), shape: vec![300] };
        let mut plan = RunPlan::new("weights", ModelKind::Tensors(vec![weights]), 3);
        plan.cohort.gather_ms = 1_000;
        plan.cohort.deadline_ms = 60_000;
        change(&mut plan);
        let initial = vec![0.25; plan.check().unwrap().elements()];
        let folder = tempfile::tempdir().unwrap();
        Some(Fleet { place, plan, initial, folder, spools: 0 })
    }

    fn spool(&mut self) -> PathBuf {
        self.spools += 1;
        let folder = self.folder.path().join(self.spools.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    async fn database(&self) -> Database {
        self.place.database().await
    }

    pub async fn leader(&mut self) -> Role {
        let (database, spool) = (self.database().await, self.spool());
        let (plan, initial) = (self.plan.clone(), self.initial.clone());
        let (stop, stopped) = watch::channel(false);
        let options = federation::Options::default().keep_uploads(true);
        let task = tokio::spawn(async move {
            leader::run(&database, &spool, &plan, &initial, options, stopped).await
        });
        Role { stop, task }
    }

    pub async fn aggregator(&mut self) -> Role {
        let (database, spool) = (self.database().await, self.spool());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { aggregator::run(&database, &spool, stopped).await });
        Role { stop, task }
    }

    pub async fn gateway(&mut self) -> Arc<Gateway> {
        let spool = self.spool();
        Gateway::open(&self.database().await, &spool).await.unwrap()
    }

    /// Every model of the run made anew by one fold over what was counted.
    pub async fn check(&mut self, rounds: usize) {
        let (database, spool) = (self.database().await, self.spool());
        let objects = Objects::open(&database, &spool).unwrap();
        let initial = self.initial.clone();
        let audits = tokio::task::spawn_blocking(move || {
            let ledger = PgLedger::reading(&database);
            assert!(ledger.events().unwrap().is_empty());
            audit_of(&ledger, objects, &initial, &federation::Options::default()).unwrap()
        });
        let audits = audits.await.unwrap();
        assert_eq!(audits.len(), rounds);
        for audit in &audits {
            assert!(audit.holds(), "{audit:?}");
        }
        let models: std::collections::BTreeSet<Digest> = audits.iter().map(|a| a.made).collect();
        assert_eq!(models.len(), rounds, "each round has a model of its own");
    }
}

/// What a client sends of an attempt: it follows from both.
pub fn body(plan: &RunPlan, client: u32, turn: Turn) -> Vec<u8> {
    let layout = plan.check().unwrap();
    let value = |at: usize| {
        let mixed = (at as u32 * 31 + client * 1009 + turn.round * 97 + turn.attempt * 13) % 193;
        mixed as f32 * 1e-3 - 0.09
    };
    let flat: Vec<f32> = (0..layout.elements()).map(value).collect();
    match plan.updates.uplink {
        Encoding::Full => Codec::full(&flat),
        Encoding::Half => Codec::half(&flat),
        Encoding::Ternary => {
            let codec = Codec::new(&tern_engine::Device::cpu(), &layout).unwrap();
            let scales = tern_protocol::update::Scales::Own(plan.updates.ternary);
            let rest = vec![0.0; flat.len()];
            codec.ternary(&flat, &rest, scales, [turn.round, client, 7]).unwrap().0
        }
    }
}

/// What a client says of an update of an attempt.
pub fn finish(number: u32, turn: Turn, body: &[u8]) -> wire::Finish {
    wire::Finish {
        round: turn.round,
        attempt: turn.attempt,
        digest: Digest::of(body).0.to_vec(),
        samples: 5 + number % 100,
        metrics: BTreeMap::from([("loss".to_owned(), f64::from(number))]),
        ..Default::default()
    }
}

/// Sends a client's update of an attempt by two pieces.
fn send(gateway: &Gateway, plan: &RunPlan, number: u32, turn: Turn) -> Result<wire::Ack, Refusal> {
    let (client, body) = (ClientId::numbered(number as usize), body(plan, number, turn));
    let finish = finish(number, turn, &body);
    let mut incoming = gateway.incoming(&client, turn)?;
    let half = body.len() / 2;
    if incoming.is_empty() {
        incoming.append(0, &body[..half])?;
        incoming.append(half as u64, &body[half..])?;
    }
    drop(incoming);
    gateway.finish(&client, finish)
}

/// A client that does as it is told, through one gateway after the other, and sends twice now and
/// then. It runs on a thread that may wait.
fn take_part(gateways: &[Arc<Gateway>], plan: &RunPlan, number: u32) -> usize {
    let client = ClientId::numbered(number as usize);
    let (start, mut at, mut sent) = (Instant::now(), number as usize, 0);
    let mut next = || {
        at += 1;
        gateways[at % gateways.len()].clone()
    };
    while let Err(refusal) = next().enroll(client, None) {
        assert!(matches!(refusal, Refusal::Storage(_)), "{refusal}");
    }
    while start.elapsed() < PATIENCE {
        let gateway = next();
        let Ok(told) = gateway.poll(&client, 5 + number) else { continue };
        let turn = Turn::new(told.round, told.attempt);
        match told.what {
            Some(What::Finished(_)) => return sent,
            Some(What::Train(_)) => {
                let mut is_there = false;
                for _ in 0..1 + number % 2 {
                    // Pieces of one upload go to one gateway, the whole of it to any.
                    match send(&next(), plan, number, turn) {
                        Ok(ack) => {
                            assert_eq!(ack.repeated, is_there, "counted twice, or not at all");
                            sent += usize::from(!ack.repeated);
                            is_there = true;
                        }
                        Err(refusal) => assert!(
                            !matches!(refusal, Refusal::Conflict(_) | Refusal::Hash),
                            "{refusal}"
                        ),
                    }
                }
            }
            _ => std::thread::sleep(Duration::from_millis(30)),
        }
    }
    panic!("client {number} is still told what to do");
}

async fn all(fleet: &Fleet, gateways: &[Arc<Gateway>], clients: u32) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..clients {
        let (gateways, plan) = (gateways.to_vec(), fleet.plan.clone());
        tasks.spawn_blocking(move || take_part(&gateways, &plan, number));
    }
    tasks.join_all().await.into_iter().sum()
}

async fn runs(encoding: Encoding, downlink: Encoding) {
    let Some(mut fleet) = Fleet::new(|plan| {
        (plan.cohort.size, plan.cohort.minimum) = (8, 6);
        (plan.updates.uplink, plan.updates.downlink) = (encoding, downlink);
    })
    .await
    else {
        return;
    };
    let leaders = [fleet.leader().await, fleet.leader().await];
    let aggregators = [fleet.aggregator().await, fleet.aggregator().await];
    let gateways = [fleet.gateway().await, fleet.gateway().await];
    let counted = all(&fleet, &gateways, 8).await;
    // A busy machine may be late with one: six are enough for a round.
    assert!((6 * 3..=8 * 3).contains(&counted), "{counted} updates were taken");
    for role in leaders.into_iter().chain(aggregators) {
        role.stop().await;
    }
    fleet.check(3).await;
    let page = gateways[0].clone();
    let status = tokio::task::spawn_blocking(move || page.status().unwrap()).await.unwrap();
    assert!(status.finished && status.enrolled == 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_through_two_gateways_has_the_bits_of_one_machine() {
    runs(Encoding::Full, Encoding::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_has_one_with_ternary_updates() {
    runs(Encoding::Ternary, Encoding::Ternary).await;
}

/// Leaders and aggregators that hang and come back, in turn, while clients go on.
#[tokio::test(flavor = "multi_thread")]
async fn roles_come_and_go() {
    let Some(mut fleet) = Fleet::new(|plan| {
        (plan.cohort.size, plan.cohort.minimum, plan.rounds) = (70, 60, 6);
    })
    .await
    else {
        return;
    };
    let mut leader = fleet.leader().await;
    let mut aggregator = fleet.aggregator().await;
    let gateways = [fleet.gateway().await, fleet.gateway().await];
    let (of, plan) = (gateways.to_vec(), fleet.plan.clone());
    let clients = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..70 {
            let (gateways, plan) = (of.clone(), plan.clone());
            tasks.spawn_blocking(move || take_part(&gateways, &plan, number));
        }
        tasks.join_all().await.into_iter().sum::<usize>()
    });
    while !clients.is_finished() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let next = fleet.leader().await;
        std::mem::replace(&mut leader, next).stop().await;
        let next = fleet.aggregator().await;
        std::mem::replace(&mut aggregator, next).stop().await;
    }
    assert!(clients.await.unwrap() >= 6 * 60);
    leader.stop().await;
    aggregator.stop().await;
    fleet.check(6).await;
}

/// A run of one round at which four clients of four are asked, on objects in a folder.
async fn one_round() -> Option<(Fleet, Role, Arc<Gateway>)> {
    let change = |plan: &mut RunPlan| {
        (plan.cohort.size, plan.cohort.minimum, plan.rounds) = (4, 3, 1);
        // More than lies with members.
        let weights = TensorSpec { name: "w".into(), shape: vec![3_000] };
        plan.model = ModelKind::Tensors(vec![weights]);
    };
    let mut fleet = Fleet::new(change).await?;
    let objects = fleet.folder.path().join("objects");
    fleet.place.options.objects = format!("file://{}", objects.display());
    let leader = fleet.leader().await;
    let gateway = fleet.gateway().await;
    let asked = gateway.clone();
    tokio::task::spawn_blocking(move || {
        let clients: Vec<ClientId> = (0..4).map(ClientId::numbered).collect();
        clients.iter().for_each(|client| asked.enroll(*client, None).unwrap());
        until("all are asked", || {
            // All of them ask: a round starts once they are there.
            let told: Vec<_> =
                clients.iter().map(|client| asked.poll(client, 9).unwrap().what).collect();
            told.iter().all(|what| matches!(what, Some(What::Train(_))))
        });
    })
    .await
    .unwrap();
    Some((fleet, leader, gateway))
}

pub fn until(what: &str, there: impl Fn() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whose updates the first round counted.
async fn counted(fleet: &Fleet) -> Vec<ClientId> {
    let database = fleet.database().await;
    let counted = move || PgLedger::reading(&database).counted(1).unwrap();
    let counted = tokio::task::spawn_blocking(counted).await.unwrap();
    counted.into_iter().map(|upload| upload.client).collect()
}

const FIRST: Turn = Turn { round: 1, attempt: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn what_all_gateways_sent_is_told_by_each() {
    let Some((mut fleet, leader, gateway)) = one_round().await else { return };
    let aggregator = fleet.aggregator().await;
    let (plan, gateways) = (fleet.plan.clone(), [gateway, fleet.gateway().await]);
    let pool = fleet.place.pool.clone();
    let noted = move |round: i64| {
        let found =
            sqlx_core::query_scalar::query_scalar("SELECT bytes FROM sent WHERE round = $1");
        let found = found.bind(round).fetch_optional(&pool);
        tokio::runtime::Handle::current().block_on(found).unwrap().unwrap_or(0)
    };
    let (gateways, told) = tokio::task::spawn_blocking(move || {
        let fetch = |gateway: &Gateway| {
            let client = ClientId::numbered(0);
            let told = gateway.poll(&client, 9).unwrap().what;
            let model = match told {
                Some(What::Train(train)) => train.model.unwrap().digest,
                Some(What::Finished(over)) => over.model,
                other => panic!("{other:?}"),
            };
            let model = Digest::from_slice(&model).unwrap();
            let length = gateway.length(&client, &model).unwrap().unwrap();
            gateway.piece(&model, 0, length as usize).unwrap().len() as i64
        };
        let sent: i64 = gateways.iter().map(|gateway| fetch(gateway)).sum();
        assert!(sent >= 2 * 4 * 3_000);
        until("what was sent is noted", || noted(1) == sent);
        for number in 0..4 {
            send(&gateways[0], &plan, number, FIRST).unwrap();
        }
        for gateway in &gateways {
            until("the run is over", || gateway.status().unwrap().finished);
        }
        // What is sent later is not of this round.
        let later = fetch(&gateways[1]);
        until("the model of the end is noted", || noted(2) == later);
        assert_eq!(noted(1), sent);
        (gateways, Some(sent as u64))
    })
    .await
    .unwrap();
    for gateway in gateways {
        let rounds = tokio::task::spawn_blocking(move || gateway.rounds(0).unwrap()).await.unwrap();
        assert_eq!(rounds.iter().map(|round| round.sent).collect::<Vec<_>>(), [told]);
    }
    leader.stop().await;
    aggregator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_the_store_lost_is_left_out() {
    let Some((mut fleet, leader, gateway)) = one_round().await else { return };
    let aggregator = fleet.aggregator().await;
    let (plan, objects) = (fleet.plan.clone(), fleet.folder.path().join("objects"));
    let sent = tokio::task::spawn_blocking(move || {
        for number in 0..3 {
            send(&gateway, &plan, number, FIRST).unwrap();
        }
        let digest = Digest::of(&body(&plan, 1, FIRST));
        std::fs::remove_file(objects.join(format!("updates/1-1/{digest}"))).unwrap();
        send(&gateway, &plan, 3, FIRST).unwrap();
        until("the run is over", || gateway.status().unwrap().finished);
    });
    sent.await.unwrap();
    leader.stop().await;
    aggregator.stop().await;
    let mut left: Vec<ClientId> = [0, 2, 3].map(ClientId::numbered).to_vec();
    left.sort_unstable();
    assert_eq!(counted(&fleet).await, left);
    fleet.check(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_that_is_none_is_made_anew() {
    let Some((mut fleet, leader, gateway)) = one_round().await else { return };
    let plan = fleet.plan.clone();
    let of = gateway.clone();
    let send = move || {
        for number in 0..4 {
            send(&of, &plan, number, FIRST).unwrap();
        }
    };
    tokio::task::spawn_blocking(send).await.unwrap();
    // An aggregator that says it has a sum, and hasn't; then one that is right.
    let liar = fleet.database().await;
    let start = Instant::now();
    let claim = loop {
        assert!(start.elapsed() < PATIENCE);
        match liar.claim().await.unwrap() {
            Some(claim) => break claim,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let made_up = crate::parts::Folded::Sum(Digest([1; 32]));
    assert!(liar.finish_part(&claim, &made_up).await.unwrap());
    let aggregator = fleet.aggregator().await;
    let over = move || until("the run is over", || gateway.status().unwrap().finished);
    tokio::task::spawn_blocking(over).await.unwrap();
    leader.stop().await;
    aggregator.stop().await;
    assert_eq!(counted(&fleet).await.len(), 4);
    fleet.check(1).await;
}
