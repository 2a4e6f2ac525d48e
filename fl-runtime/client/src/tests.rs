//! Whose a folder is.

use std::net::TcpListener;
use std::path::Path;

use tern_engine::nn::ModelSpec;
use tern_protocol::RunPlan;
use tern_protocol::layout::ModelKind;
use tern_protocol::metrics::Metrics;
use tern_protocol::trainer::Trained;
use tern_server::federation::{self, Federation};
use tern_server::http::{self, Board, Limits, Server};
use tokio::sync::oneshot;

use super::*;

#[test]
fn a_folder_is_one_clients() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Client::new(Options::new("http://127.0.0.1:1", folder.path()));
    let first = open().unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("in use by"), "{error}");
    let key = first.identity().client();
    drop(first);
    assert_eq!(open().unwrap().identity().client(), key);
}

/// A trainer whose client is never asked.
struct Nothing;

impl Trainer for Nothing {
    fn samples(&self) -> u32 {
        0
    }

    fn train(&mut self, _: &TaskSpec, _: &Job) -> Result<Trained> {
        unreachable!("it has no samples")
    }

    fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> Result<(u32, Metrics)> {
        unreachable!("it has no samples")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_folder_was_copied_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let [run, first, second] = ["run", "first", "second"].map(|name| folder.path().join(name));
    let plan = RunPlan::new("copies", ModelKind::Layers(ModelSpec::mlp(2, &[], 2)), 1);
    let initial = plan.check().unwrap().parameters().initial(1);
    let federation =
        Federation::open(&run, &plan, &initial, federation::Options::default()).unwrap();
    let mut limits = Limits::default();
    (limits.poll_seconds, limits.requests_per_client) = (0.05, 1e3);
    let server = Server::new(federation, Board::new(0), http::Options::default().limits(limits));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));

    let client = |folder: &Path| Client::new(Options::new(&address, folder)).unwrap();
    let device = Device::cpu();
    let one = client(&first);
    std::fs::create_dir(&second).unwrap();
    std::fs::copy(first.join("client.key"), second.join("client.key")).unwrap();
    let two = client(&second);
    assert_eq!(one.identity().client(), two.identity().client());
    // Whichever came first ends, and says why.
    let (ended, other) = tokio::select! {
        ended = one.run(Nothing, &device, std::future::pending()) => (ended, second),
        ended = two.run(Nothing, &device, std::future::pending()) => (ended, first),
    };
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("from a copy of its folder"), "{error}");

    // Alone, and started again, the other one is taken: it ends with the server only.
    let (asked, hear) = oneshot::channel::<()>();
    let again = client(&other).run(Nothing, &device, async { drop(hear.await) });
    let stopping = async {
        sleep(Duration::from_millis(300)).await;
        asked.send(()).unwrap();
    };
    let (outcome, ()) = tokio::join!(again, stopping);
    assert_eq!(outcome.unwrap(), Outcome::Stopped);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
