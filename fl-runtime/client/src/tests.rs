//! Whose a folder is, and what a client does without the model of a run that is over.

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

/// A trainer of so many samples, with which nothing is learned.
struct Samples(u32);

impl Trainer for Samples {
    fn samples(&self) -> u32 {
        self.0
    }

    fn train(&mut self, _: &TaskSpec, job: &Job) -> Result<Trained> {
        let loss = Metrics::from([("loss".to_owned(), 1.0)]);
        Ok(Trained::new(vec![0.0; job.model.len()], self.0, loss))
    }

    fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> Result<(u32, Metrics)> {
        Ok((self.0, Metrics::from([("loss".to_owned(), 1.0)])))
    }
}

/// A server of a run.
struct Served {
    address: String,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    fn new(run: &Path, plan: &RunPlan) -> Self {
        let initial = plan.check().unwrap().parameters().initial(1);
        let federation =
            Federation::open(run, plan, &initial, federation::Options::default()).unwrap();
        let mut limits = Limits::default();
        (limits.poll_seconds, limits.requests_per_client) = (0.05, 1e3);
        let server =
            Server::new(federation, Board::new(0), http::Options::default().limits(limits));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));
        Served { address, stop, serving }
    }

    fn options(&self, folder: &Path) -> Options {
        let soon = Duration::from_millis(50);
        Options::new(&self.address, folder).backoff(Backoff::new(soon, soon))
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
    }
}

fn plan(name: &str) -> RunPlan {
    let mut plan = RunPlan::new(name, ModelKind::Layers(ModelSpec::mlp(2, &[], 2)), 1);
    plan.cohort.gather_ms = 50;
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_folder_was_copied_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let [run, first, second] = ["run", "first", "second"].map(|name| folder.path().join(name));
    let served = Served::new(&run, &plan("copies"));
    let client = |folder: &Path| Client::new(served.options(folder)).unwrap();
    let device = Device::cpu();
    let one = client(&first);
    std::fs::create_dir(&second).unwrap();
    std::fs::copy(first.join("client.key"), second.join("client.key")).unwrap();
    let two = client(&second);
    assert_eq!(one.identity().client(), two.identity().client());
    // Whichever came first ends, and says why.
    let (ended, other) = tokio::select! {
        ended = one.run(Samples(0), &device, std::future::pending()) => (ended, second),
        ended = two.run(Samples(0), &device, std::future::pending()) => (ended, first),
    };
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("from a copy of its folder"), "{error}");

    // Alone, and started again, the other one is taken: it ends with the server only.
    let (asked, hear) = oneshot::channel::<()>();
    let again = client(&other).run(Samples(0), &device, async { drop(hear.await) });
    let stopping = async {
        sleep(Duration::from_millis(300)).await;
        asked.send(()).unwrap();
    };
    let (outcome, ()) = tokio::join!(again, stopping);
    assert_eq!(outcome.unwrap(), Outcome::Stopped);
    served.end().await;
}

/// The model of a run that is over may be away for a while, or damaged: it is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_the_model_of_a_run_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let [run, first, second] = ["run", "first", "second"].map(|name| folder.path().join(name));
    let served = Served::new(&run, &plan("over"));
    let device = Device::cpu();
    let client = Client::new(served.options(&first)).unwrap();
    let outcome = client.run(Samples(9), &device, std::future::pending()).await.unwrap();
    let Outcome::Finished(known) = outcome else { panic!("{outcome:?}") };
    let model = std::fs::read(known).unwrap();

    let models = run.join("models");
    let bodies: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(&models)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    let damage = |damage: &dyn Fn(&PathBuf, &[u8])| {
        bodies.iter().for_each(|(path, bytes)| damage(path, bytes));
    };
    damage(&|path, _| std::fs::remove_file(path).unwrap());
    // What is damaged next, and the words of the client that has seen it.
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let watched = seen.clone();
    let client = Client::new(served.options(&second).watch(move |event| {
        if let Event::Waiting(error, _) = event {
            watched.lock().unwrap().push(error.to_string());
        }
    }));
    let running = client.unwrap().run(Samples(9), &device, std::future::pending());
    let damaging = async {
        let said = async |word: &str| {
            while !seen.lock().unwrap().iter().any(|said| said.contains(word)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        said("no_blob").await;
        damage(&|path, _| std::fs::write(path, "").unwrap());
        said("0 bytes").await;
        damage(&|path, bytes| std::fs::write(path, vec![7; bytes.len()]).unwrap());
        said("that digest").await;
        damage(&|path, bytes| std::fs::write(path, bytes).unwrap());
    };
    let both = async { tokio::join!(running, damaging) };
    let (outcome, ()) = tokio::time::timeout(Duration::from_secs(90), both).await.unwrap();
    let Outcome::Finished(path) = outcome.unwrap() else { panic!("stopped") };
    assert_eq!(std::fs::read(path).unwrap(), model);
    served.end().await;
}
