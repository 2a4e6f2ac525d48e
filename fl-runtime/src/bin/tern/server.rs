//! `tern server`: a federation over the network.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tern_engine::Device;
use tern_fl::config::{AdmissionConfig, Config, DataConfig, ServerConfig};
use tern_fl::host::clock;
use tern_fl::host::files::Durability;
use tern_fl::host::tls;
use tern_fl::layout::ModelKind;
use tern_fl::metrics::Metrics;
use tern_fl::plan::{Evaluation, Scores};
use tern_fl::server::federation::{self, Admission, Evaluator, Federation, Token};
use tern_fl::server::http::{self, Board, Server, Site};
use tern_fl::{ClientId, Layout, RunPlan};
use tokio::sync::Notify;

use super::samples::Measurer;
use super::stop::Stop;
use super::{tokens, view};

/// Serves a run: hands out tasks, adds up updates, commits rounds.
///
/// Started again with the same configuration it goes on where it was, however it ended. Ctrl-C and
/// SIGTERM let requests under way be answered first; a second one ends it at once.
#[derive(Args, Debug)]
pub struct Options {
    /// The configuration.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
    /// Plain log lines, in a terminal too.
    #[arg(long)]
    plain: bool,
    /// Stops this many seconds after the run is over, so that clients still hear of it.
    #[arg(long, value_name = "SECONDS")]
    linger: Option<u64>,
    /// Serves the page of this folder at /page/, by which browsers take part.
    #[arg(long, value_name = "FOLDER")]
    page: Option<PathBuf>,
    /// What this process does of a fleet's work ([fleet] in the configuration).
    #[cfg(feature = "fleet")]
    #[arg(long, value_enum, value_name = "ROLE")]
    role: Option<super::fleet::Role>,
    /// Address and port to listen on, instead of the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

impl Options {
    /// Whether to show the live view instead of log lines.
    pub fn view(&self) -> bool {
        #[cfg(feature = "fleet")]
        if self.role.is_some() {
            return false;
        }
        !self.plain && view::possible()
    }
}

/// Serves until the run is over (with `--linger`) or somebody asks to stop.
pub fn run(options: &Options) -> Result<()> {
    let Configured { plan, server: mut config, initial, .. } = Configured::load(&options.config)?;
    if let Some(listen) = options.listen {
        config.listen = listen;
    }
    check_measured(&plan, config.evaluation.is_some())?;

    std::fs::create_dir_all(&config.folder).with_context(|| config.folder.display().to_string())?;
    #[cfg(feature = "fleet")]
    if let Some(role) = options.role {
        return super::fleet::serve(role, &options.config, &config, options.linger);
    }
    let options_of_run = federation_options(&config)?.evaluator(evaluator(&plan, &config)?);
    let federation = Federation::open(&config.folder, &plan, &initial, options_of_run)?;
    let used = config.folder.join("config.toml");
    std::fs::copy(&options.config, &used).with_context(|| used.display().to_string())?;
    let board = Board::with_file(&config.folder.join("metrics.jsonl"), clock::now().0)?;
    let site = options.page.as_deref().map(Site::read).transpose()?;
    let (of_http, scheme) = http_options(&config, &config.folder)?;
    let server = Server::new(federation, board.clone(), of_http.site(site));
    let (listener, address) = listen(&config, scheme)?;
    serve(server, listener, &board, options, &address)
}

/// What measures models by samples of the server's own, if it has any.
pub fn evaluator(plan: &RunPlan, config: &ServerConfig) -> Result<Option<Arc<dyn Evaluator>>> {
    Ok(match &config.evaluation {
        Some(data) => Some(Arc::new(OwnSamples::read(plan, data)?)),
        None => None,
    })
}

/// How to serve, with models and plot in a folder, and the scheme of the address.
pub fn http_options(config: &ServerConfig, folder: &Path) -> Result<(http::Options, &'static str)> {
    let tls = match &config.tls {
        Some(files) => Some(tls::server(&files.certificate, &files.key)?),
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let options = http::Options::default()
        .tls(tls)
        .hosts(config.hosts.clone())
        .origins(config.origins()?)
        .limits(config.limits.clone())
        .dashboard(config.dashboard)
        .folder(folder.to_path_buf());
    Ok((options, scheme))
}

/// The listener, and its address.
pub fn listen(config: &ServerConfig, scheme: &str) -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind(config.listen)
        .with_context(|| format!("listening on {}", config.listen))?;
    let address = format!("{scheme}://{}", listener.local_addr()?);
    Ok((listener, address))
}

/// Waits until the run is over, and so many seconds longer; for ever without a number.
pub async fn over(board: Board, linger: Option<u64>) {
    let Some(seconds) = linger else { return std::future::pending().await };
    while !board.page().finished {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A plan that asks for scores has somebody who measures them.
fn check_measured(plan: &RunPlan, own_samples: bool) -> Result<()> {
    let Evaluation { metric, scores, patience, on_clients, .. } = &plan.evaluation;
    let own_trainer = matches!(plan.model, ModelKind::Tensors(_));
    match scores {
        Scores::Server => {
            let asked = metric != "loss" || patience.is_some();
            ensure!(
                own_samples || !asked,
                "run.evaluation asks for scores by \"{metric}\", expected samples of the server's \
                 own ([server] evaluation), or scores = \"clients\", which trusts most of them"
            );
        }
        Scores::Clients => ensure!(
            *on_clients || own_trainer || metric == "loss",
            "run.evaluation.metric is \"{metric}\", expected \"loss\" or on_clients = true: \
             training alone doesn't measure it"
        ),
    }
    Ok(())
}

/// Measures models by samples of the server's own.
struct OwnSamples(Mutex<Measurer>);

impl OwnSamples {
    fn read(plan: &RunPlan, data: &DataConfig) -> Result<Self> {
        let device = Device::from_env()?;
        let mut measurer = Measurer::new(&device, plan, data).context("server.evaluation")?;
        // What doesn't fit the model is refused before anybody trains.
        let model = plan.check()?.parameters().initial(plan.seed);
        measurer.measure(&model).context("server.evaluation")?;
        Ok(OwnSamples(Mutex::new(measurer)))
    }
}

impl Evaluator for OwnSamples {
    fn evaluate(&self, _: u32, model: &[f32]) -> tern_fl::Result<Metrics> {
        // Each evaluation starts anew, whatever became of the one before.
        let mut measurer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(measurer.measure(model)?.1)
    }
}

/// The model a run starts from: the configured file's, or one drawn by the run's seed.
fn initial(plan: &RunPlan, layout: &Layout, config: &ServerConfig) -> Result<Vec<f32>> {
    Ok(match &config.initial {
        Some(path) => tern_engine::load_model(path, layout.parameters())?,
        None => layout.parameters().initial(plan.seed),
    })
}

/// A run as a configuration has it.
pub struct Configured {
    pub plan: RunPlan,
    pub server: ServerConfig,
    /// The model it started from.
    pub initial: Vec<f32>,
    /// Where it is kept, if that is not the server's folder.
    #[cfg(feature = "fleet")]
    pub fleet: Option<tern_fl::fleet::Options>,
}

impl Configured {
    pub fn load(path: &Path) -> Result<Self> {
        let config = Config::load(path)?;
        let missing = |section: &str| format!("{}: no [{section}]", path.display());
        let plan = config.run.with_context(|| missing("run"))?;
        let server = config.server.with_context(|| missing("server"))?;
        let initial = initial(&plan, &plan.check()?, &server)?;
        Ok(Configured {
            plan,
            server,
            initial,
            #[cfg(feature = "fleet")]
            fleet: config.fleet,
        })
    }
}

/// What the configuration says of the federation.
pub fn federation_options(config: &ServerConfig) -> Result<federation::Options> {
    let revoked = match &config.admission.revoked_file {
        Some(path) => listed(path)?,
        None => Vec::new(),
    };
    Ok(federation::Options::default()
        .admission(admission(&config.admission)?)
        .revoked(revoked)
        .durability(if config.sync { Durability::Power } else { Durability::Process })
        .keep_uploads(config.keep_uploads))
}

fn admission(config: &AdmissionConfig) -> Result<Admission> {
    let mut clients = config.clients.clone();
    if let Some(path) = &config.clients_file {
        clients.extend(listed(path)?);
    }
    let mut tokens = match &config.tokens_file {
        Some(path) => tokens::listed(path)?,
        None => Vec::new(),
    };
    tokens.extend(config.token.as_ref().map(|token| Token::new(token, config.token_clients)));
    Ok(if config.token.is_some() || config.tokens_file.is_some() {
        Admission::Tokens(tokens)
    } else if config.clients_file.is_none() && clients.is_empty() {
        Admission::Open
    } else {
        Admission::List(clients)
    })
}

/// Keys of a file: one at the start of a line, the rest of which is a comment.
fn listed(path: &Path) -> Result<Vec<ClientId>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(number, line)| {
            let key = line.split_whitespace().next().filter(|key| !key.starts_with('#'))?;
            Some(key.parse().with_context(|| format!("{}:{number}", path.display())))
        })
        .collect()
}

fn serve(
    server: Server,
    listener: TcpListener,
    board: &Board,
    options: &Options,
    address: &str,
) -> Result<()> {
    let event_loop = super::event_loop()?;
    let asked = Stop::listen(|| {})?.asked();
    let quit = Arc::new(Notify::new());
    let (board, linger, stop) = (board.clone(), options.linger, quit.clone());
    let over = over(board.clone(), linger);
    let stop = async move {
        tokio::select! {
            () = asked => {}
            () = stop.notified() => {}
            () = over => {}
        }
    };
    if !options.view() {
        tracing::info!(address, "serving");
        return Ok(event_loop.block_on(server.serve(listener, stop))?);
    }
    let ended = Arc::new(AtomicBool::new(false));
    let (done, title) = (ended.clone(), address.to_owned());
    let viewer = std::thread::spawn(move || {
        let shown = view::show(&board, &title, || done.load(Ordering::Relaxed));
        quit.notify_one();
        shown
    });
    let served = event_loop.block_on(server.serve(listener, stop));
    ended.store(true, Ordering::Relaxed);
    let shown = viewer.join().map_err(|_| anyhow::anyhow!("the view failed"))?;
    Ok(served.and(shown)?)
}
