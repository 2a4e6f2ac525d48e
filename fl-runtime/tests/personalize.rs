//! A public model over the network: what clients get, and all that they send.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod common;

use std::sync::{Arc, Mutex};

use tern_engine::nn::ModelSpec;
use tern_engine::{Data, Device, Schedule};
use tern_fl::ClientId;
use tern_fl::client::Http;
use tern_fl::identity::Identity;
use tern_fl::methods::personalize::{Client, Public, Publisher, Recipe, Shape, download};
use tern_fl::server::http::{Service, ServiceError};

/// Writes down what reaches a publisher.
struct Overheard {
    publisher: Arc<Publisher>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Service for Overheard {
    fn name(&self) -> &str {
        self.publisher.name()
    }

    fn answer(&self, client: &ClientId, request: &[u8]) -> Result<Vec<u8>, ServiceError> {
        self.requests.lock().unwrap().push(request.to_vec());
        self.publisher.answer(client, request)
    }
}

fn public(version: u32) -> Public {
    // More than a piece.
    let model = ModelSpec::mlp(2, &[400, 700], 3);
    let weights = model.build().unwrap().0.initial(version);
    Public { version, model, note: "a note".into(), weights }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_send_which_version_they_want_and_nothing_else() {
    let (publisher, requests) = (Publisher::new(), Arc::new(Mutex::new(Vec::new())));
    let overheard = Overheard { publisher: publisher.clone(), requests: requests.clone() };
    let serving = common::serve(vec![Arc::new(overheard)]);

    let http = Http::new(&serving.url, None, Identity::from_secret(&[1; 32])).unwrap();
    http.enroll("").await.unwrap();
    assert_eq!(download(&http, 0).await.unwrap(), None, "nothing is published yet");
    publisher.publish(&public(1)).unwrap();
    let first = Arc::new(download(&http, 0).await.unwrap().unwrap());
    assert_eq!((&*first, publisher.downloads(1)), (&public(1), 1));
    assert_eq!(download(&http, 1).await.unwrap(), None, "nothing newer");

    // The client learns, from records that nobody else sees.
    let recipe = Recipe { schedule: Schedule::constant(1e-2), ..Recipe::default() };
    let shape = Shape { rows: 8, length: 1 };
    let mut client = Client::new(&Device::cpu(), &first, shape, &recipe, 16).unwrap();
    while !client.is_ready() {
        let x: Vec<f32> = (0..16).map(|i| (i % 5) as f32 - 2.0).collect();
        client.predict(Data::F32(x.clone())).unwrap();
        client.observe(x.chunks(2).map(|x| u32::from(x[0] > 0.0)).collect()).unwrap();
    }
    assert!(client.customize(&mut || {}).unwrap().unwrap().adopted);
    for version in [2, 3] {
        publisher.publish(&public(version)).unwrap();
    }
    let newer = Arc::new(download(&http, client.public().version).await.unwrap().unwrap());
    assert_eq!(newer.version, 3);
    client.merge(&newer).unwrap();

    assert_eq!([1, 2, 3].map(|version| publisher.downloads(version)), [0, 0, 1], "1 is gone");
    let bytes = public(1).encode().unwrap().len();
    assert!(bytes > 1 << 20 && bytes < 2 << 20, "two pieces: {bytes}");
    let said: Vec<String> =
        requests.lock().unwrap().iter().map(|r| String::from_utf8(r.clone()).unwrap()).collect();
    let newest = |after: u32| format!(r#"{{"newest":{{"after":{after}}}}}"#);
    let piece =
        |version: u32, at: u64| format!(r#"{{"piece":{{"version":{version},"offset":{at}}}}}"#);
    let expected = [
        newest(0),
        newest(0),
        piece(1, 0),
        piece(1, 1 << 20),
        newest(1),
        newest(1),
        piece(3, 0),
        piece(3, 1 << 20),
    ];
    assert_eq!(said, expected);

    let refused = |answer: Result<Vec<u8>, _>| {
        let error: tern_fl::client::CallError = answer.unwrap_err();
        error.name().unwrap().to_owned()
    };
    let ask = async |request: String| http.service("public-model", request.into_bytes()).await;
    assert_eq!(refused(ask("records".into()).await), "malformed");
    assert_eq!(refused(ask(piece(1, 0)).await), "no_version", "two versions stay");
    assert_eq!(refused(ask(piece(3, 1 << 30)).await), "offset");
    assert!(publisher.publish(&public(3)).unwrap_err().to_string().contains("above 3"));
}
