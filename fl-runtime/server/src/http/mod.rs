//! The server: a [`Federation`] over HTTP.
//!
//! Clients post signed protobuf messages ([`tern_protocol::auth`], `wire.proto`): `/v1/enroll`,
//! `/v1/run`, `/v1/poll` (answered when there is something to do), `/v1/message`,
//! `/v1/upload?round=&attempt=&offset=` (a piece of an upload; without `offset`, where to go
//! on), `/v1/finish` (with all of a small body), `/v1/blob/{sha256}` (a piece from
//! `Range: bytes=N-M`), and `/v1/service/{name}` for what a host program answers itself ([`Service`]). People and
//! programs get `/health`, `/metrics`, `/status.json` and, at `/`, the dashboard; browsers that take
//! part a page of their own ([`Site`]) below `/page/`.
//!
//! What arrives is bounded ([`Limits`]): connections, requests, bytes, and the time that
//! each may take. Answers tell a client how long to wait before its next request, and how large a
//! piece may be ([`tern_protocol::pace`]). What is refused is counted by its reason's name.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//! use std::net::{TcpListener, TcpStream};
//! use tern_server::federation::{self, Federation};
//! use tern_server::http::{Board, Options, Server};
//! # use tern_protocol::layout::{ModelKind, TensorSpec};
//! # use tern_protocol::RunPlan;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let weights = TensorSpec { name: "w".into(), shape: vec![8, 8] };
//! # let plan = RunPlan::new("weights", ModelKind::Tensors(vec![weights]), 1);
//! # let options = federation::Options::default();
//!
//! let federation = Federation::open(folder.path(), &plan, &[0.0; 64], options)?;
//! let server = Server::new(federation, Board::new(0), Options::default());
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! let ask = move || -> std::io::Result<String> {
//!     let mut stream = TcpStream::connect(address)?;
//!     stream.write_all(b"GET /health HTTP/1.1\r\nHost: tern\r\nConnection: close\r\n\r\n")?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!     Ok(answer)
//! };
//! // It serves until somebody has asked how it is.
//! let stop = async move {
//!     let answer = tokio::task::spawn_blocking(ask).await;
//!     assert!(matches!(answer, Ok(Ok(text)) if text.starts_with("HTTP/1.1 200")));
//! };
//! tokio::runtime::Runtime::new()?.block_on(server.serve(listener, stop))?;
//! # Ok(())
//! # }
//! ```

mod backend;
mod dashboard;
mod gate;
mod history;
mod hosts;
mod keep;
mod limits;
mod memory;
mod metrics;
mod origins;
mod page;
mod places;
mod reply;
mod routes;
mod service;
mod signed;
mod status;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::response::Response;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tern_host::clock;
use tern_host::tls::ServerSide;
use tern_protocol::auth::Window;
use tern_protocol::{ClientId, Error, Millis, RunId, StartId};
use tokio::sync::watch;

pub use backend::Backend;
use backend::Embedded;
use gate::Gate;
use hosts::Hosts;
use keep::Keeper;
pub use limits::Limits;
use limits::Rates;
use memory::Memory;
use metrics::Metrics;
pub use origins::Origin;
pub use page::Site;
use reply::Denied;
pub use service::{AT_A_TIME, Service, ServiceError};
use service::{Offered, Services};
pub use status::{BestScore, Board, DrawRow, Member, Page, Row};

use crate::federation::{Clock, Federation};

const ENROLL: &str = "/v1/enroll";
const UPLOAD: &str = "/v1/upload";
/// Time between looks at the clock for the federation's deadlines.
const TICK: Duration = Duration::from_millis(100);
/// Time that requests under way have when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// How to serve.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Certificate and key; `None` for HTTP on a loopback address or behind a proxy.
    pub tls: Option<ServerSide>,
    /// Names by which clients reach the server, as in its address but for the scheme:
    /// `federation.example:8443`. Only what is signed for one of them is taken. If none is given:
    /// the names of its certificate, or where it listens, each with the port it listens on.
    pub hosts: Vec<String>,
    /// Limits on what arrives.
    pub limits: Limits,
    /// Whether `/`, `/status.json` and `/metrics` are served.
    pub dashboard: bool,
    /// Folder for `model.safetensors`, `best.safetensors` and `plot.svg`, written after each
    /// round.
    pub folder: Option<PathBuf>,
    /// What is answered beside the rounds.
    pub services: Vec<Arc<dyn Service>>,
    /// A page for browsers, at `/page/`.
    pub site: Option<Site>,
    /// Origins whose pages may call the server, besides its own.
    pub origins: Vec<Origin>,
}

impl Options {
    /// With certificate and key, or over HTTP.
    pub fn tls(mut self, tls: impl Into<Option<ServerSide>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// With names by which clients reach the server.
    pub fn hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// With limits on what arrives.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// With `/`, `/status.json` and `/metrics`, or without.
    pub fn dashboard(mut self, dashboard: bool) -> Self {
        self.dashboard = dashboard;
        self
    }

    /// With a folder for models and a plot, or without.
    pub fn folder(mut self, folder: impl Into<Option<PathBuf>>) -> Self {
        self.folder = folder.into();
        self
    }

    /// With a page for browsers at `/page/`, or without.
    pub fn site(mut self, site: impl Into<Option<Site>>) -> Self {
        self.site = site.into();
        self
    }

    /// With other origins whose pages may call the server.
    pub fn origins(mut self, origins: Vec<Origin>) -> Self {
        self.origins = origins;
        self
    }

    /// With services beside the rounds.
    pub fn services(mut self, services: Vec<Arc<dyn Service>>) -> Self {
        self.services = services;
        self
    }
}

/// A federation and what serves it.
pub struct Server {
    app: Arc<App>,
    tls: Option<ServerSide>,
}

/// What requests share.
struct App {
    run: RunId,
    hosts: Hosts,
    backend: Arc<dyn Backend>,
    board: Board,
    stopping: watch::Sender<bool>,
    window: Window,
    /// What requests' times are compared with.
    clock: Mutex<Clock>,
    /// Of each client.
    requests: Rates<ClientId>,
    /// Of each client, both ways.
    bytes: Rates<ClientId>,
    addresses: Rates<std::net::IpAddr>,
    memory: Memory,
    /// One upload of a client is written at a time; clients share these by their keys.
    uploads: [Arc<tokio::sync::Mutex<()>>; 64],
    limits: Limits,
    metrics: Arc<Metrics>,
    dashboard: bool,
    keeper: Option<Keeper>,
    services: Services,
    site: Option<Site>,
    origins: Vec<Origin>,
}

impl Server {
    /// Serves this federation and shows on `board` what it does.
    pub fn new(federation: Federation, board: Board, options: Options) -> Self {
        let backend = Embedded::new(federation, board.clone());
        Server::over(Arc::new(backend), board, options)
    }

    /// Serves what stands for a federation.
    pub fn over(backend: Arc<dyn Backend>, board: Board, options: Options) -> Self {
        let Options { tls, hosts, limits, dashboard, folder, services, site, origins } = options;
        let services =
            services.into_iter().map(|s| (s.name().to_owned(), Offered::new(s))).collect();
        let keeper = folder.map(|folder| Keeper::new(&folder, backend.layout()));
        show(&board, &*backend);
        let metrics = Arc::new(Metrics::new(board.clone()));
        let mut clock = Clock::new(backend.since());
        let now = clock.read(clock::now());
        let width = (limits.clock_seconds * 1e3) as u64;
        let window = match backend.start() {
            Some(start) => Window::for_start(start, width, now),
            None => Window::new(width, now),
        };
        let app = App {
            run: backend.task().run,
            hosts: Hosts::new(hosts, tls.clone()),
            backend,
            board,
            stopping: watch::Sender::new(false),
            window,
            clock: Mutex::new(clock),
            requests: Rates::new(limits.requests_per_client, limits.burst_seconds, 1),
            bytes: Rates::new(
                limits.bytes_per_client as f64,
                limits.burst_seconds,
                limits.largest_body(),
            ),
            addresses: Rates::new(limits.requests_per_address, limits.burst_seconds, 1),
            memory: Memory::new(&limits),
            uploads: std::array::from_fn(|_| Arc::default()),
            metrics,
            limits,
            dashboard,
            keeper,
            services,
            site,
            origins,
        };
        Server { app: Arc::new(app), tls }
    }

    /// This start, for which clients sign their requests.
    pub fn start(&self) -> StartId {
        self.app.window.start()
    }

    /// Serves on a listener until `stop` is there; then requests under way are finished, polls
    /// that wait are answered, and the federation is closed.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let Server { app, tls } = self;
        app.hosts.listen(listener.local_addr()?);
        let service =
            routes::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let gate = Gate::new(&app.limits, tls.is_some(), app.metrics.clone());
        let header_time = Duration::from_secs_f64(app.limits.header_seconds);
        let handle = Handle::new();
        let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
        server
            .http_builder()
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_time)
            .max_buf_size(32 << 10);
        // A server forgets its version with its acceptor, so that the version comes last.
        let serving = async {
            match tls {
                Some(tls) => {
                    let acceptor = RustlsAcceptor::new(http1(&tls.config))
                        .handshake_timeout(header_time)
                        .acceptor(gate);
                    server.acceptor(acceptor).http1_only().serve(service).await
                }
                None => server.acceptor(gate).http1_only().serve(service).await,
            }
        };
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
            app.stopping.send_replace(true);
            handle.graceful_shutdown(Some(GRACE));
            std::future::pending().await
        };
        tokio::select! {
            result = serving => result,
            () = stopping => Ok(()),
            () = tick(app.clone()) => Ok(()),
        }
    }
}

/// With HTTP/1.1 alone for clients to agree on, whatever the host program's configuration says.
fn http1(config: &rustls::ServerConfig) -> RustlsConfig {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    RustlsConfig::from_config(Arc::new(config))
}

/// Lets the federation look at the clock, and makes its models.
async fn tick(app: Arc<App>) {
    let mut changed = app.backend.changes();
    let mut shown = Instant::now();
    // Written once at the start, too: the process may have ended before it wrote the last.
    let mut kept = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            // The last update of a round may just have come.
            _ = changed.changed() => {}
        }
        // Its count of clients and its clock go on without events.
        let show = shown.elapsed() >= Duration::from_secs(1);
        if let Err(error) = step(&app, show).await {
            tracing::error!(%error, "the round can't go on now, trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if show {
            shown = Instant::now();
        }
        let rounds = app.board.rounds();
        if kept != Some(rounds) {
            kept = Some(rounds);
            if let Err(error) = keep(&app).await {
                tracing::warn!(%error, "writing models and plot");
            }
        }
    }
}

async fn step(app: &Arc<App>, visible: bool) -> Result<(), Error> {
    let board = app.board.clone();
    let stepped = app.with(move |backend| {
        if visible {
            show(&board, backend);
        }
        backend.step()
    });
    stepped.await.map_err(bug)?
}

/// Writes what the run leaves for people.
async fn keep(app: &Arc<App>) -> Result<(), Error> {
    if app.keeper.is_none() {
        return Ok(());
    }
    let models = app.with(|backend| backend.models()).await.map_err(bug)??;
    let app = app.clone();
    let write = move || match &app.keeper {
        Some(keeper) => keeper.write(&models, &app.board.page()),
        None => Ok(()),
    };
    tokio::task::spawn_blocking(write).await.map_err(failed).map_err(bug)?
}

fn bug(denied: Denied) -> Error {
    Error::value("the server's step", denied.reason, "no panic")
}

impl App {
    /// The time, which is never set back.
    fn now(&self) -> Millis {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.read(clock::now())
    }

    /// Runs what may wait for the disk, or for another request, off the event loop.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&dyn Backend) -> T + Send + 'static,
    ) -> Result<T, Denied> {
        let backend = self.backend.clone();
        tokio::task::spawn_blocking(move || run(&*backend)).await.map_err(failed)
    }

    /// Counts and answers a refusal.
    fn deny(&self, denied: Denied, headers: &HeaderMap) -> Response {
        self.metrics.refused(denied.name);
        tracing::debug!(name = denied.name, reason = denied.reason, "refused");
        denied.answer(headers)
    }
}

/// Shows the run's state to watchers.
fn show(board: &Board, backend: &dyn Backend) {
    board.show(backend.plan(), backend.status(), backend.rounds(board.rounds()));
}

/// A panic off the event loop is a bug; its request fails and the server goes on.
fn failed(error: tokio::task::JoinError) -> Denied {
    tracing::error!(%error, "a request failed");
    let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    Denied::new(status, "internal", "the server failed")
}
