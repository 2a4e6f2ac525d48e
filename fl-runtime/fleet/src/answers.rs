//! Waiting for the leader's answers: one question to the database for all who wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_protocol::{ClientId, Refusal, Result};
use tokio::sync::{oneshot, watch};

use crate::Database;
use crate::error::stored;
use crate::requests::{Answer, Asked};
use crate::wakes::heard;

/// Time in which the leader must have answered: two leases, so that another one may.
const PATIENCE: f64 = 2.5;

/// Requests of this process that wait.
pub(crate) struct Answers {
    database: Database,
    waiting: Arc<Mutex<BTreeMap<i64, oneshot::Sender<Answer>>>>,
}

type Waiting = BTreeMap<i64, oneshot::Sender<Answer>>;

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    /// Looks for answers when it is woken, until this is dropped.
    pub fn new(database: &Database, mut wake: watch::Receiver<u64>) -> Self {
        let waiting = Arc::new(Mutex::new(Waiting::new()));
        let (of, shared) = (database.clone(), Arc::downgrade(&waiting));
        database.handle().spawn(async move {
            loop {
                heard(&mut wake, Duration::from_millis(200)).await;
                let Some(waiting) = shared.upgrade() else { return };
                let numbers: Vec<i64> = lock(&waiting).keys().copied().collect();
                if numbers.is_empty() {
                    continue;
                }
                match of.answered(&numbers).await {
                    Ok(answers) => {
                        let mut waiting = lock(&waiting);
                        for (number, answer) in answers {
                            if let Some(tell) = waiting.remove(&number) {
                                // Who waited may be gone.
                                let _ = tell.send(answer);
                            }
                        }
                    }
                    Err(error) => tracing::warn!(%error, "looking for answers"),
                }
            }
        });
        Answers { database: database.clone(), waiting }
    }

    /// Asks the leader.
    ///
    /// # Errors
    /// [`Refusal::Storage`] if nobody answers: it may be asked again.
    pub async fn ask(&self, client: &ClientId, asked: &Asked) -> Result<Answer, Refusal> {
        let number = self.database.leave(client, asked).await.map_err(stored)?;
        let (tell, told) = oneshot::channel();
        lock(&self.waiting).insert(number, tell);
        let patience = self.database.options().lease().mul_f64(PATIENCE);
        match tokio::time::timeout(patience, told).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => {
                lock(&self.waiting).remove(&number);
                Err(Refusal::Storage("no leader answered, try again".into()))
            }
        }
    }
}
