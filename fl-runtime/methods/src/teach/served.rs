//! Labels over the network (2.4, 2.5): a server's host program answers its clients' samples.

use serde::{Deserialize, Serialize};

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// By sample; none where the teachers don't agree enough.
    pub labels: Vec<Option<u32>>,
    /// ε spent by the data-independent bound, of all clients. The other bound depends on private
    /// votes, and isn't told.
    pub epsilon: f64,
}

#[cfg(feature = "server")]
pub use self::server::Labels;

#[cfg(feature = "server")]
mod server {
    use std::sync::{Arc, Mutex, PoisonError};

    use tern_protocol::update::Codec;
    use tern_protocol::{ClientId, Error};
    use tern_server::http::ServiceError;

    use super::*;
    use crate::teach::{Service, Voters};

    /// Answers of a [`Service`] to signed requests at `/v1/service/{name}`. A client whose answer
    /// got lost asks again and is charged again.
    pub struct Labels<V> {
        name: String,
        service: Mutex<Option<Service<V>>>,
    }

    impl<V: Voters> Labels<V> {
        /// Nobody answers yet; clients are told to come again.
        pub fn new(name: &str) -> Arc<Self> {
            Arc::new(Labels { name: name.into(), service: Mutex::new(None) })
        }

        /// The teachers are there.
        pub fn open(&self, service: Service<V>) {
            *self.service.lock().unwrap_or_else(PoisonError::into_inner) = Some(service);
        }
    }

    impl<V: Voters + Send> tern_server::http::Service for Labels<V> {
        fn name(&self) -> &str {
            &self.name
        }

        fn answer(&self, client: &ClientId, request: &[u8]) -> Result<Vec<u8>, ServiceError> {
            let refused = |name, reason: String| ServiceError::Refused { name, reason };
            if !request.len().is_multiple_of(4) {
                let reason = format!("{} bytes, expected 4 for each feature", request.len());
                return Err(refused("request", reason));
            }
            let features = Codec::floats(request);
            let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(service) = service.as_mut() else {
                return Err(ServiceError::Failed("the teachers are not there yet".into()));
            };
            let labels = service.answer(*client, &features).map_err(|error| {
                let reason = error.to_string();
                match error {
                    Error::Budget { .. } => refused("budget", reason),
                    Error::Value { .. } => refused("request", reason),
                    _ => ServiceError::Failed(reason),
                }
            })?;
            let answer = Answer { labels, epsilon: service.spent().epsilon };
            serde_json::to_vec(&answer).map_err(|e| ServiceError::Failed(e.to_string()))
        }
    }
}

#[cfg(feature = "client")]
pub use self::client::ask;

#[cfg(feature = "client")]
mod client {
    use tern_client::{CallError, Http};

    use super::*;

    /// Asks the service of this name for labels of the rows of `features`, as an enrolled client.
    ///
    /// # Errors
    /// [`CallError`]: refused by the name `budget` where the budget would not last, busy while
    /// there are no teachers yet.
    pub async fn ask(http: &Http, name: &str, features: &[f32]) -> Result<Answer, CallError> {
        let request = features.iter().flat_map(|x| x.to_le_bytes()).collect();
        let answer = http.service(name, request).await?;
        serde_json::from_slice(&answer).map_err(|_| CallError::Answer {
            target: format!("/v1/service/{name}"),
            expected: "labels",
        })
    }
}
