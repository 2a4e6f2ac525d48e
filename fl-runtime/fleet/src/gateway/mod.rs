//! What answers clients. It decides nothing that the database doesn't: it may end at any moment, and
//! any other gateway goes on for it.

mod backend;
pub(crate) mod follower;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tern_protocol::coordinator::Coordinator;
use tern_protocol::layout::Layout;
use tern_protocol::plan::Task;
use tern_protocol::{ClientId, Error, Result, RunPlan, Turn};
use tern_server::federation::{Folding, Processes};
use tern_server::storage::Bodies as _;
use tokio::sync::watch;

use crate::answers::Answers;
use crate::batch::{Batches, missing};
use crate::members::{Outcome, Taken};
use crate::presence::Noted;
use crate::wakes::{Wakes, heard};
use crate::{Database, Objects};
use follower::Follower;

/// Answers clients over HTTP, as a [`Backend`](tern_server::http::Backend).
pub struct Gateway {
    database: Database,
    objects: Arc<Objects>,
    plan: RunPlan,
    task: Task,
    layout: Layout,
    folding: Folding,
    follower: RwLock<Follower>,
    changed: watch::Sender<u64>,
    /// Clients that are registered, as far as this gateway knows, and the number of the last.
    clients: RwLock<(HashSet<ClientId>, i64)>,
    members: Batches<(Turn, Taken), Outcome>,
    nonces: Batches<(ClientId, [u8; 16]), bool>,
    answers: Answers,
    noted: Arc<Noted>,
    processes: Mutex<Processes>,
    /// Why the database isn't followed now.
    trouble: Mutex<Option<String>>,
    presence_seconds: f64,
}

impl Gateway {
    /// Answers the clients of the run in a database, once there is one; `spool` is a folder of this
    /// process alone. It follows the run in the background until it is dropped.
    ///
    /// # Errors
    /// The database's and the store's.
    pub async fn open(database: &Database, spool: &Path) -> Result<Arc<Self>> {
        let wakes = Wakes::listen(database);
        let mut decided = wakes.decided;
        let (run, plan) = loop {
            match database.run().await? {
                Some(found) => break found,
                None => {
                    tracing::info!("waits for a leader to start the run");
                    heard(&mut decided, Duration::from_secs(1)).await;
                }
            }
        };
        let objects = Objects::open(database, spool)?;
        let follower = Follower::begin(database, run, &plan).await?;
        let (clients, last) = database.registered(0).await?;
        let gateway = Arc::new(Gateway {
            task: plan.task(run)?.into(),
            layout: plan.check()?,
            folding: Folding::new(&plan)?,
            changed: watch::Sender::new(follower.sequence as u64),
            follower: RwLock::new(follower),
            clients: RwLock::new((clients.into_iter().collect(), last)),
            members: accepting(database),
            nonces: nonces(database),
            answers: Answers::new(database, wakes.answered),
            noted: Noted::new(database),
            processes: Mutex::default(),
            trouble: Mutex::default(),
            presence_seconds: 60.0,
            database: database.clone(),
            objects,
            plan,
        });
        tokio::spawn(follow_on(Arc::downgrade(&gateway), decided));
        Ok(gateway)
    }

    fn follower(&self) -> RwLockReadGuard<'_, Follower> {
        self.follower.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the coordinator as this gateway has it.
    fn look<T>(&self, at: impl FnOnce(&Coordinator) -> T) -> T {
        at(&self.follower().coordinator)
    }

    /// Handles what was decided meanwhile.
    async fn follow(&self) -> Result<()> {
        let (base, sequence) = self.follower().at();
        let news = self.database.news(base, sequence).await?;
        let (changed, ended) = {
            let mut follower = self.follower.write().unwrap_or_else(PoisonError::into_inner);
            // Another call may have been first.
            if follower.at() != (base, sequence) {
                return Ok(());
            }
            let changed = follower.follow(news)?;
            self.changed.send_if_modified(|version| {
                let before = std::mem::replace(version, follower.sequence as u64);
                before != *version
            });
            let kept = || (follower.coordinator.kept(), follower.coordinator.turn());
            (changed, (follower.at().0 != base).then(kept))
        };
        if changed {
            let after = self.clients.read().unwrap_or_else(PoisonError::into_inner).1;
            let (new, last) = self.database.registered(after).await?;
            let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
            clients.0.extend(new);
            clients.1 = last.max(clients.1);
        }
        if let Some((kept, open)) = ended {
            self.objects.sweep(&kept, open, &|_| false)?;
        }
        Ok(())
    }

    /// Follows at least up to a write, as long as a lease lasts at most.
    async fn follow_to(&self, sequence: i64) {
        let enough = async {
            while self.follower().sequence < sequence {
                if self.follow().await.is_err() || self.follower().sequence < sequence {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        // What was decided is then found by the next who asks.
        let _ = tokio::time::timeout(self.database.options().lease(), enough).await;
    }

    fn note_trouble(&self, error: Option<&Error>) {
        let reason = error.map(|error| error.to_string());
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Follows the run until the gateway is gone.
async fn follow_on(gateway: std::sync::Weak<Gateway>, mut decided: watch::Receiver<u64>) {
    loop {
        heard(&mut decided, Duration::from_secs(1)).await;
        let Some(gateway) = gateway.upgrade() else { return };
        let followed = gateway.follow().await;
        if let Err(error) = &followed {
            tracing::warn!(%error, "the run is not followed, trying again");
        }
        gateway.note_trouble(followed.as_ref().err());
    }
}

/// Decides about updates in batches, one transaction for each attempt among them.
fn accepting(database: &Database) -> Batches<(Turn, Taken), Outcome> {
    let of = database.clone();
    Batches::new(database.handle(), move |asked: Vec<(Turn, Taken)>| {
        let of = of.clone();
        async move {
            let mut outcomes = vec![None; asked.len()];
            let mut turns: Vec<Turn> = asked.iter().map(|(turn, _)| *turn).collect();
            turns.sort_unstable();
            turns.dedup();
            for turn in turns {
                let places: Vec<usize> =
                    (0..asked.len()).filter(|at| asked[*at].0 == turn).collect();
                let batch: Vec<Taken> = places.iter().map(|at| asked[*at].1.clone()).collect();
                for (at, outcome) in places.into_iter().zip(of.accept(turn, &batch).await?) {
                    outcomes[at] = Some(outcome);
                }
            }
            outcomes.into_iter().collect::<Option<_>>().ok_or_else(missing)
        }
    })
}

fn nonces(database: &Database) -> Batches<(ClientId, [u8; 16]), bool> {
    let of = database.clone();
    Batches::new(database.handle(), move |asked: Vec<(ClientId, [u8; 16])>| {
        let of = of.clone();
        async move { of.take_nonces(&asked).await }
    })
}
