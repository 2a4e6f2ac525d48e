//! A server in this process, for what it answers beside its rounds.

use std::net::TcpListener;
use std::sync::Arc;

use tern_engine::nn::ModelSpec;
use tern_fl::RunPlan;
use tern_fl::layout::ModelKind;
use tern_fl::server::federation::{self, Federation};
use tern_fl::server::http::{Board, Options, Server, Service};

/// A server that listens until this is dropped.
pub struct Serving {
    /// Its address.
    pub url: String,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a run that anybody may enroll in, and these services.
pub fn serve(services: Vec<Arc<dyn Service>>) -> Serving {
    let folder = tempfile::tempdir().unwrap();
    let plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(3, &[], 2)), 1);
    let initial = plan.check().unwrap().parameters().initial(1);
    let options = federation::Options::default();
    let federation = Federation::open(folder.path(), &plan, &initial, options).unwrap();
    let server = Server::new(federation, Board::new(0), Options::default().services(services));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(server.serve(listener, std::future::pending()));
    Serving { url, task, _folder: folder }
}
