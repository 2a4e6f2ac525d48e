//! What a server answers beside its rounds: to whom, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::sync::Arc;

use tern_fl::ClientId;
use tern_fl::client::Http;
use tern_fl::identity::Identity;
use tern_fl::server::{Service, ServiceError};

/// Gives back what it is sent, backwards, with the first byte of who sent it.
struct Backwards;

impl Service for Backwards {
    fn name(&self) -> &str {
        "backwards"
    }

    fn answer(&self, client: &ClientId, request: &[u8]) -> Result<Vec<u8>, ServiceError> {
        if request.is_empty() {
            let reason = "nothing to turn round".into();
            return Err(ServiceError::Refused { name: "empty", reason });
        }
        Ok(request.iter().rev().chain(&client.0[..1]).copied().collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_answer_enrolled_clients() {
    let serving = common::serve(vec![Arc::new(Backwards)]);

    let identity = Identity::from_secret(&[1; 32]);
    let first = identity.client().0[0];
    let http = Http::new(&serving.url, None, identity).unwrap();
    let refused = |answer: Result<Vec<u8>, _>| {
        let error: tern_fl::client::CallError = answer.unwrap_err();
        (error.name().unwrap().to_owned(), error.to_string())
    };
    assert_eq!(refused(http.service("backwards", vec![1]).await).0, "unknown");
    http.enroll("").await.unwrap();
    assert_eq!(http.service("backwards", vec![1, 2, 3]).await.unwrap(), [3, 2, 1, first]);
    assert_eq!(refused(http.service("backwards", Vec::new()).await).0, "empty");
    let (name, text) = refused(http.service("forwards", vec![1]).await);
    assert!(name == "no_service" && text.contains("[backwards]"), "{text}");
    let large = http.service("backwards", vec![0; (1 << 20) + 1]).await;
    assert_eq!(refused(large).0, "too_large");
}
