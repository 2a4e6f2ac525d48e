//! What a server answers beside its rounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use tern_protocol::ClientId;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::reply::Denied;

/// Answers signed requests of enrolled clients at `POST /v1/service/{name}`: labels for samples,
/// or a published model. Bodies are the service's own; a request has at most
/// [`Limits::message_bytes`](super::Limits::message_bytes), an answer at most 4 MiB.
pub trait Service: Send + Sync {
    /// The last part of its path: letters, digits, `-`.
    fn name(&self) -> &str;

    /// The answer. Requests of different clients come at the same time, [`AT_A_TIME`] of them;
    /// each has a thread that may wait. Further ones wait for these.
    ///
    /// # Errors
    /// Why there is none.
    fn answer(&self, client: &ClientId, request: &[u8]) -> Result<Vec<u8>, ServiceError>;
}

/// Why a service doesn't answer.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// It won't, and asking again is no use.
    #[error("{name}: {reason}")]
    Refused {
        /// Stable name of the reason, counted in the metrics.
        name: &'static str,
        /// The reason in words.
        reason: String,
    },
    /// It can't now.
    #[error("{0}")]
    Failed(String),
}

/// Requests that a service answers at a time: what waits for it must not take the threads that
/// rounds need.
pub const AT_A_TIME: usize = 4;

/// A service, and who may ask it now.
#[derive(Clone)]
pub(super) struct Offered {
    pub service: Arc<dyn Service>,
    pub turns: Arc<Semaphore>,
}

impl Offered {
    pub fn new(service: Arc<dyn Service>) -> Self {
        Offered { service, turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

/// Services by name.
pub(super) type Services = BTreeMap<String, Offered>;

impl From<ServiceError> for Denied {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Refused { name, reason } => {
                Denied::new(StatusCode::CONFLICT, name, reason)
            }
            ServiceError::Failed(reason) => {
                Denied::new(StatusCode::SERVICE_UNAVAILABLE, "service", reason)
            }
        }
    }
}
