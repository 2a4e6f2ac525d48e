//! What a server answers beside its rounds: to whom, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tern_fl::ClientId;
use tern_fl::client::Http;
use tern_fl::identity::Identity;
use tern_fl::server::http::{AT_A_TIME, Service, ServiceError};

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

/// Takes its time, and counts how many wait for it.
#[derive(Default)]
struct Slow {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Service for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn answer(&self, _: &ClientId, _: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(vec![1])
    }
}

/// Who waits for a service takes no thread that rounds need.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_has_few_threads() {
    let slow = Arc::new(Slow::default());
    let serving = common::serve(vec![slow.clone()]);
    let http = Arc::new(Http::new(&serving.url, None, Identity::from_secret(&[1; 32])).unwrap());
    http.enroll("").await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..4 * AT_A_TIME {
        let http = http.clone();
        asked.spawn(async move { http.service("slow", vec![1]).await });
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), [1]);
    }
    assert!(slow.most.load(Ordering::SeqCst) <= AT_A_TIME);
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
