//! `tern fleet`, and the roles of `tern server`: a run on PostgreSQL and an object store.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use tern_fl::config::ServerConfig;
use tern_fl::fleet::{
    self, Database, FleetStatus, Gateway, Objects, PgLedger, Traces, aggregator, leader,
};
use tern_fl::host::clock;
use tern_fl::host::folder::FolderLock;
use tern_fl::server::federation::{Audit, audit_of};
use tern_fl::server::http::{Board, Server};
use tokio::sync::watch;

use super::server::{Configured, evaluator, federation_options, http_options, listen, over};
use super::stop::Stop;

/// Looks after a run that is kept in a database and an object store ([fleet] in the configuration).
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Makes the tables, or brings those of an older version up to date.
    Init(Of),
    /// Prints who serves the run, who leads, and how far parts and requests are.
    Status(Of),
}

#[derive(Args, Debug)]
struct Of {
    /// The configuration.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers clients.
    Gateway,
    /// Decides, or waits to.
    Leader,
    /// Adds up updates.
    Aggregator,
    /// All of these.
    All,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Leader => "leader",
            Role::Aggregator => "aggregator",
            Role::All => "all",
        }
    }

    fn does(self, other: Role) -> bool {
        self == other || self == Role::All
    }
}

pub fn run(options: &Options) -> Result<()> {
    let event_loop = super::event_loop()?;
    match &options.what {
        What::Init(of) => {
            let fleet = configured(&of.config)?;
            let before = event_loop.block_on(Database::init(&fleet))?;
            let now = fleet::VERSION;
            match of.json {
                true => super::say(format_args!("{{\"before\": {before}, \"version\": {now}}}")),
                false => super::say(format_args!("schema {}: version {now}", fleet.schema)),
            }
        }
        What::Status(of) => {
            let fleet = configured(&of.config)?;
            let status = event_loop.block_on(async {
                let database = Database::connect(&fleet).await?;
                database.fleet_status().await
            })?;
            match of.json {
                true => super::say(format_args!("{}", serde_json::to_string_pretty(&status)?)),
                false => print(&status),
            }
        }
    }
    Ok(())
}

fn configured(path: &Path) -> Result<fleet::Options> {
    let fleet = tern_fl::config::Config::load(path)?.fleet;
    fleet.with_context(|| format!("{}: no [fleet]", path.display()))
}

fn print(status: &FleetStatus) {
    let FleetStatus { version, sequence, rounds, clients, lease, roles, parts, waiting } = status;
    let sequence = sequence.map_or("no run yet".into(), |sequence| format!("write {sequence}"));
    super::say(format_args!(
        "schema version {version}, {sequence}, {rounds} rounds, {clients} clients"
    ));
    let holder = if lease.left > 0.0 { lease.holder.as_str() } else { "nobody" };
    super::say(format_args!("lease: {holder}, epoch {}, {:.1} s left", lease.epoch, lease.left));
    let (done, working, all) = parts;
    super::say(format_args!("parts: {done} done, {working} worked at, {all} in all"));
    super::say(format_args!("requests: {} wait, the first for {:.1} s", waiting.0, waiting.1));
    for role in roles {
        super::say(format_args!("{:<40}  {:>8.0} s  {}", role.name, role.age, role.detail));
    }
}

/// Serves as a role until it is asked to stop, or a gateway's run is over (with `--linger`).
pub fn serve(role: Role, path: &Path, config: &ServerConfig, linger: Option<u64>) -> Result<()> {
    let Configured { plan, initial, fleet, .. } = Configured::load(path)?;
    let fleet = fleet.with_context(|| format!("{}: no [fleet]", path.display()))?;
    let options = federation_options(config)?;
    let options = match role.does(Role::Leader) {
        true => options.evaluator(evaluator(&plan, config)?),
        false => options,
    };
    // What is sent at its end goes last.
    let _traces = Traces::start(role.name())?;
    let event_loop = super::event_loop()?;
    let asked = Stop::listen(|| {})?.asked();
    let (stop, stopped) = watch::channel(false);
    let mut spools = Vec::new();
    let served = event_loop.block_on(async {
        let database = Database::connect(&fleet).await?;
        let mut spool = |name: &str| {
            let (lock, folder) = spool(&config.folder, name)?;
            spools.push(lock);
            Ok::<_, anyhow::Error>(folder)
        };
        let mut tasks = tokio::task::JoinSet::new();
        if role.does(Role::Leader) {
            let (database, stopped, spool) = (database.clone(), stopped.clone(), spool("leader")?);
            tasks.spawn(async move {
                leader::run(&database, &spool, &plan, &initial, options, stopped).await
            });
        }
        if role.does(Role::Aggregator) {
            let (database, stopped) = (database.clone(), stopped.clone());
            let spool = spool("aggregator")?;
            tasks.spawn(async move { aggregator::run(&database, &spool, stopped).await });
        }
        let board = Board::new(clock::now().0);
        let gateway = async {
            if !role.does(Role::Gateway) {
                return std::future::pending().await;
            }
            let folder = spool("gateway")?;
            let shown = database.serve("gateway");
            let gateway = Gateway::open(&database, &folder).await?;
            let (of_http, scheme) = http_options(config, &folder)?;
            let shown_on = board.clone();
            // It looks at the run, which waits for the database.
            let make = move || Server::over(gateway, shown_on, of_http);
            let server = tokio::task::spawn_blocking(make).await?;
            let (listener, address) = listen(config, scheme)?;
            tracing::info!(address, "serving");
            shown.say(address);
            let mut stopped = stopped.clone();
            server
                .serve(listener, async move { drop(stopped.wait_for(|stop| *stop).await) })
                .await?;
            Ok::<_, anyhow::Error>(())
        };
        tokio::pin!(gateway);
        let ended: Result<()> = tokio::select! {
            served = &mut gateway => served,
            ended = async {
                tokio::select! {
                    () = asked => Ok(()),
                    () = over(board.clone(), linger) => Ok(()),
                    // None ends by itself but for what is wrong.
                    Some(ended) = tasks.join_next() => Ok(ended??),
                }
            } => {
                stop.send_replace(true);
                match ended {
                    Ok(()) if role.does(Role::Gateway) => gateway.await,
                    ended => ended,
                }
            }
        };
        stop.send_replace(true);
        Ok::<_, anyhow::Error>((tasks, ended))
    });
    let (mut tasks, ended) = served?;
    // A leader gives back its lease, an aggregator its part.
    event_loop.block_on(async { while tasks.join_next().await.is_some() {} });
    ended
}

/// A folder of this process alone below the server's, the first that no other process has.
fn spool(folder: &Path, name: &str) -> Result<(FolderLock, PathBuf)> {
    for number in 1..1000 {
        let folder = folder.join(format!("{name}-{number}"));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        if let Ok(lock) = FolderLock::take(&folder) {
            return Ok((lock, folder));
        }
    }
    anyhow::bail!("{}: a thousand processes have folders in it", folder.display())
}

/// A fleet's rounds, made anew.
pub fn audits(configured: &Configured, fleet: &fleet::Options) -> Result<Vec<Audit>> {
    let event_loop = super::event_loop()?;
    let (_lock, folder) = spool(&configured.server.folder, "verify")?;
    let opened = event_loop.block_on(async {
        let database = Database::connect(fleet).await?;
        let objects = Objects::open(&database, &folder)?;
        Ok::<_, tern_fl::Error>((PgLedger::reading(&database), objects))
    });
    let (ledger, objects) = opened?;
    let options = federation_options(&configured.server)?;
    Ok(audit_of(&ledger, objects, &configured.initial, &options)?)
}
