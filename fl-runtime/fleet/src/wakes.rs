//! Being woken by other processes. What they say may be lost, so that whoever waits looks again
//! after a while in any case.

use std::time::Duration;

use tokio::sync::watch;

use crate::Database;

/// Something was decided: an event, a snapshot, a client.
pub(crate) const DECIDED: &str = "decided";
/// A client said something.
pub(crate) const ASKED: &str = "asked";
/// The leader answered.
pub(crate) const ANSWERED: &str = "answered";
/// There are parts to be added up, or one is.
pub(crate) const PARTS: &str = "parts";

/// Counts of what was heard; each rises.
pub(crate) struct Wakes {
    pub decided: watch::Receiver<u64>,
    pub asked: watch::Receiver<u64>,
    pub answered: watch::Receiver<u64>,
    pub parts: watch::Receiver<u64>,
}

impl Wakes {
    /// Listens from now on, in the background, until all that hear are gone.
    pub fn listen(database: &Database) -> Self {
        let senders = [DECIDED, ASKED, ANSWERED, PARTS].map(|name| (name, watch::Sender::new(0)));
        let [decided, asked, answered, parts] = [0, 1, 2, 3].map(|at| senders[at].1.subscribe());
        let database = database.clone();
        database.handle().clone().spawn(async move {
            let unheard = |senders: &[(&str, watch::Sender<u64>)]| {
                senders.iter().all(|(_, sender)| sender.receiver_count() == 0)
            };
            while !unheard(&senders) {
                if let Err(error) = hear(&database, &senders).await {
                    tracing::warn!(%error, "the database is not heard, looking again");
                }
                // Whatever was said meanwhile.
                senders.iter().for_each(|(_, sender)| sender.send_modify(|count| *count += 1));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Wakes { decided, asked, answered, parts }
    }
}

async fn hear(
    database: &Database,
    senders: &[(&str, watch::Sender<u64>)],
) -> tern_protocol::Result<()> {
    let mut listener = database.listen().await?;
    loop {
        let heard = listener.recv();
        let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
        let Ok(heard) = heard else {
            if senders.iter().all(|(_, sender)| sender.receiver_count() == 0) {
                return Ok(());
            }
            continue;
        };
        let heard = heard.map_err(crate::error::database)?;
        if let Some((_, sender)) = senders.iter().find(|(name, _)| *name == heard.payload()) {
            sender.send_modify(|count| *count += 1);
        }
    }
}

/// Waits until something was heard, but no longer than this.
pub(crate) async fn heard(wake: &mut watch::Receiver<u64>, longest: Duration) {
    // Without a sender nothing is heard any more, and time passes.
    if let Ok(Err(_)) = tokio::time::timeout(longest, wake.changed()).await {
        tokio::time::sleep(longest).await;
    }
}
