//! Many small questions to the database as few larger ones: what comes while one is under way is
//! asked together next, so that nobody waits for a batch to fill.

use std::future::Future;

use tern_protocol::{Error, Refusal, Result};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Questions in one batch, at most.
const MOST: usize = 512;
/// Questions that wait, at most: who asks beyond that waits to ask.
const WAITING: usize = 4 * MOST;

type Asked<Q, A> = (Q, oneshot::Sender<Result<A, String>>);

/// Takes questions one by one and has them answered in batches.
pub(crate) struct Batches<Q, A> {
    questions: mpsc::Sender<Asked<Q, A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Batches<Q, A> {
    /// `ask` answers a batch, each question in its place. It runs until this is dropped.
    pub fn new<F>(handle: &Handle, ask: impl Fn(Vec<Q>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Vec<A>>> + Send,
    {
        let (questions, mut coming) = mpsc::channel::<Asked<Q, A>>(WAITING);
        handle.spawn(async move {
            let mut taken = Vec::with_capacity(MOST);
            while coming.recv_many(&mut taken, MOST).await > 0 {
                let (asked, tell): (Vec<Q>, Vec<_>) = taken.drain(..).unzip();
                match ask(asked).await {
                    // Who is gone doesn't want to know.
                    Ok(answers) => tell.into_iter().zip(answers).for_each(|(tell, answer)| {
                        let _ = tell.send(Ok(answer));
                    }),
                    Err(error) => tell.into_iter().for_each(|tell| {
                        let _ = tell.send(Err(error.to_string()));
                    }),
                }
            }
        });
        Batches { questions }
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// [`Refusal::Storage`] for the whole batch.
    pub async fn ask(&self, question: Q) -> Result<A, Refusal> {
        let gone = || Refusal::Storage("the process stops".into());
        let (tell, told) = oneshot::channel();
        self.questions.send((question, tell)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?.map_err(Refusal::Storage)
    }
}

/// Asked in vain: as many answers as questions are owed.
pub(crate) fn missing() -> Error {
    crate::error::unreadable("an answer to a batch")
}
