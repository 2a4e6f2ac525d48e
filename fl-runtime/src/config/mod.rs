//! The configuration of the `tern` command: one TOML file, whose errors point at the line.
//!
//! Sections that a command doesn't need may be missing: a server reads `[run]` and `[server]`,
//! a client `[client]`. [`template`] is a file with every option and what it means. Paths are
//! relative to the file's folder.
//!
//! ```
//! use tern_fl::config::{Config, template};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = template()?;
//! let config = Config::parse("tern.toml", &text)?;
//! assert_eq!(config.run.ok_or("no [run]")?.rounds, 100);
//!
//! let wrong = text.replace("rounds = 100", "rounds = 0");
//! let error = Config::parse("tern.toml", &wrong).unwrap_err();
//! assert_eq!((error.key.as_str(), error.text.as_str()), ("run.rounds", "rounds = 0"));
//! # Ok(())
//! # }
//! ```

mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern_host::tls::is_server_name;
use tern_protocol::layout::ModelKind;
use tern_protocol::participant::RequiredSecurity;
use tern_protocol::plan::RunPlan;
use tern_protocol::tokens::Tokens;
use tern_protocol::trainer::METRICS;
use tern_protocol::{ClientId, Error, hex};
use tern_server::http::Limits;

pub use source::{ConfigError, Source};

const TEMPLATE: &str = include_str!("template.toml");
/// The token in it, which anybody can read there.
const KNOWN_TOKEN: &str = "change-me-to-something-long";

/// A commented configuration with every option and a token of its own, as `tern init` writes it.
///
/// # Errors
/// [`Error::Entropy`] if none can be drawn.
pub fn template() -> Result<String, Error> {
    Ok(TEMPLATE.replace(KNOWN_TOKEN, &new_token()?))
}

/// A token that nobody can guess: 128 random bits.
///
/// # Errors
/// [`Error::Entropy`] if none can be drawn.
pub fn new_token() -> Result<String, Error> {
    let mut token = [0; 16];
    getrandom::fill(&mut token)?;
    Ok(hex::encode(&token))
}

/// The version of configuration files that this program reads.
const VERSION: u32 = 1;

/// What is looked at first: files of other versions have other keys.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default = "version")]
    version: u32,
}

fn version() -> u32 {
    VERSION
}

/// A configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of the file; the present one if not given.
    #[serde(default = "version")]
    pub version: u32,
    /// What is trained and how: for the server, and for simulations.
    #[serde(default)]
    pub run: Option<RunPlan>,
    /// How the server serves.
    #[serde(default)]
    pub server: Option<ServerConfig>,
    /// How a client takes part.
    #[serde(default)]
    pub client: Option<ClientConfig>,
    /// Where a run is kept that more than one process serves.
    #[cfg(feature = "fleet")]
    #[serde(default)]
    pub fleet: Option<tern_fleet::Options>,
}

/// How the server serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Folder of the run: its state, metrics, models, plot.
    pub folder: PathBuf,
    /// Certificate and key; without them the server speaks HTTP.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Names by which clients reach the server, `host:port` each; the port may be left out where it
    /// is the scheme's. If none are given: those of the certificate, or where it listens, with the port of
    /// `listen`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Origins whose pages may call the server, `https://host:port` each, besides its own.
    #[serde(default)]
    pub origins: Vec<String>,
    /// Who may take part.
    #[serde(default)]
    pub admission: AdmissionConfig,
    /// Model to start from, safetensors; else one is drawn by the run's seed.
    #[serde(default)]
    pub initial: Option<PathBuf>,
    /// Keeps accepted updates after their round, so that `tern verify` can check the run.
    #[serde(default)]
    pub keep_uploads: bool,
    /// Waits for the disk before it acknowledges, so that a power loss loses nothing either.
    #[serde(default)]
    pub sync: bool,
    /// Serves the dashboard, `/status.json` and `/metrics`.
    #[serde(default = "yes")]
    pub dashboard: bool,
    /// Limits on what arrives.
    #[serde(default)]
    pub limits: Limits,
    /// Samples of its own that it measures every model by.
    #[serde(default)]
    pub evaluation: Option<DataConfig>,
}

fn yes() -> bool {
    true
}

/// Certificate and key of a server, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, then those between it and the authority's.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who may take part: who knows a token, or whose key is listed. If neither is given, anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// What clients enroll with, as many as `token_clients`.
    pub token: Option<String>,
    /// Clients that may enroll with `token`.
    pub token_clients: u32,
    /// File of tokens, as `tern tokens` writes it: each for one client, or as many as it says.
    pub tokens_file: Option<PathBuf>,
    /// Public keys of clients.
    pub clients: Vec<ClientId>,
    /// File of public keys, one at the start of a line.
    pub clients_file: Option<PathBuf>,
    /// File of public keys that are refused from the next start on, whatever admits them.
    pub revoked_file: Option<PathBuf>,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        AdmissionConfig {
            token: None,
            token_clients: 1_000,
            tokens_file: None,
            clients: Vec::new(),
            clients_file: None,
            revoked_file: None,
        }
    }
}

/// How a client takes part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The server's address: `https://host:port`.
    pub server: String,
    /// Authorities to trust (PEM) instead of the system's.
    #[serde(default)]
    pub authority: Option<PathBuf>,
    /// Folder of the client: its key, what its last update left, its own model.
    pub folder: PathBuf,
    /// Token to enroll with.
    #[serde(default)]
    pub token: Option<String>,
    /// The least secure aggregation that it takes part with; any run if not given.
    #[serde(default)]
    pub required_security: Option<RequiredSecurity>,
    /// Device to train on, as in TERN_DEVICE: `cpu`, a number or a part of a name.
    #[serde(default)]
    pub device: Option<String>,
    /// What it measures models by, where the run asks it to.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// What it trains on.
    pub data: DataConfig,
}

/// What a client measures models by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationConfig {
    /// A share of its samples, which it doesn't train on then: some of the rows, the ends of texts.
    /// With 0 it declines.
    HeldOut(f64),
    /// A file or folder of its own, like that of its data.
    Path(PathBuf),
    /// All of its samples: it trains on none.
    Only,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        EvaluationConfig::HeldOut(0.1)
    }
}

/// Where a client's samples are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataConfig {
    /// Text, for models of tokens.
    Text {
        /// A file, or a folder whose `.txt` files are read in order of their names.
        path: PathBuf,
        /// How characters become tokens, where the run doesn't say it; ASCII if nobody does.
        #[serde(default)]
        tokens: Option<Tokens>,
        /// Tokens of a window.
        steps: usize,
    },
    /// Rows of numbers with a class each, for models of features.
    Csv {
        /// A file, or a folder whose `.csv` and `.parquet` files are read in order of their names.
        /// The first line of a CSV file names its columns.
        path: PathBuf,
        /// The column with the class, where the run has no schema that says it: a whole number
        /// from 0; the others are features.
        #[serde(default)]
        label: Option<String>,
    },
}

impl DataConfig {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        let (DataConfig::Text { path, .. } | DataConfig::Csv { path, .. }) = self;
        path
    }

    fn path_mut(&mut self) -> &mut PathBuf {
        let (DataConfig::Text { path, .. } | DataConfig::Csv { path, .. }) = self;
        path
    }

    fn check(&self, source: &Source<'_>, at: [&str; 2]) -> Result<(), ConfigError> {
        let DataConfig::Text { steps, .. } = self else { return Ok(()) };
        if !(1..=1 << 16).contains(steps) {
            let message = format!("{steps}, expected 1 to 65536");
            return Err(source.error(&[at[0], at[1], "text", "steps"], message));
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks a file. Paths in the result are relative to where the program runs.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read; [`Error::Config`] for what is wrong in it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|reason| Error::file(path, reason))?;
        let mut config = Self::parse(&path.display().to_string(), &text)?;
        config.paths(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads and checks a text; `file` names it in errors.
    ///
    /// # Errors
    /// [`ConfigError`], at the line.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        // What can't be read at all is refused below, at its line.
        if let Ok(Versioned { version }) = toml::from_str(text)
            && version != VERSION
        {
            let message = format!("version {version}, expected {VERSION}");
            return Err(source.error(&["version"], message));
        }
        let config: Config = source.parse()?;
        if let Some(run) = &config.run
            && let Err(error) = run.check()
        {
            return Err(match &error {
                Error::Value { name, value, expected } => {
                    let path: Vec<&str> = ["run"].into_iter().chain(name.split('.')).collect();
                    source.error(&path, format_args!("{value}, expected {expected}"))
                }
                _ => source.error(&["run", "model"], error),
            });
        }
        if let Some(run) = &config.run {
            check_metric(run, &source)?;
        }
        if let Some(server) = &config.server {
            server.check(&source)?;
        }
        if let Some(client) = &config.client {
            client.check(&source)?;
        }
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &config.fleet {
            fleet.check().map_err(|(field, value, expected)| {
                source.error(&["fleet", field], format!("{value}, expected {expected}"))
            })?;
        }
        Ok(config)
    }

    /// Puts a folder before the paths that are relative.
    fn paths(&mut self, folder: &Path) {
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        if let Some(server) = &mut self.server {
            paths.push(&mut server.folder);
            paths.extend(&mut server.initial);
            paths.extend(&mut server.admission.clients_file);
            paths.extend(&mut server.admission.tokens_file);
            paths.extend(&mut server.admission.revoked_file);
            paths.extend(server.evaluation.as_mut().map(DataConfig::path_mut));
            if let Some(TlsFiles { certificate, key }) = &mut server.tls {
                paths.extend([certificate, key]);
            }
        }
        if let Some(client) = &mut self.client {
            paths.push(&mut client.folder);
            paths.extend(&mut client.authority);
            paths.push(client.data.path_mut());
            if let EvaluationConfig::Path(path) = &mut client.evaluation {
                paths.push(path);
            }
        }
        for path in paths {
            *path = folder.join(&*path);
        }
    }
}

/// A metric that nobody measures would make no model the best. What trainers of programs measure
/// is theirs to name: models for them are tensors.
fn check_metric(run: &RunPlan, source: &Source<'_>) -> Result<(), ConfigError> {
    let metric = run.evaluation.metric.as_str();
    match run.model {
        ModelKind::Layers(_) if !METRICS.contains(&metric) => {
            let message = format!("\"{metric}\", expected one of {}", METRICS.join(", "));
            Err(source.error(&["run", "evaluation", "metric"], message))
        }
        _ => Ok(()),
    }
}

impl ServerConfig {
    fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        self.limits.check().map_err(|(field, value, expected)| {
            source.error(&["server", "limits", field], format!("{value}, expected {expected}"))
        })?;
        let AdmissionConfig { token, tokens_file, clients, clients_file, .. } = &self.admission;
        let key = ["server", "admission", "token"];
        if let Some(given) = token.as_ref().map(String::len).filter(|given| *given < MIN_TOKEN) {
            let message = format!("a token of {given} bytes, expected at least {MIN_TOKEN}");
            return Err(source.error(&key, message));
        }
        if token.as_deref() == Some(KNOWN_TOKEN) {
            let message = "the token of the template, expected one of your own, as tern init draws";
            return Err(source.error(&key, message));
        }
        let is_list = clients_file.is_some() || !clients.is_empty();
        if is_list && token.is_some() {
            return Err(source.error(&key, "beside a list of clients, expected one of the two"));
        }
        if is_list && tokens_file.is_some() {
            let key = ["server", "admission", "tokens_file"];
            return Err(source.error(&key, "beside a list of clients, expected one of the two"));
        }
        if let Some(host) = self.hosts.iter().find(|host| !is_host(host)) {
            let message = format!("\"{host}\", expected a name or address, and its port: a.b:8443");
            return Err(source.error(&["server", "hosts"], message));
        }
        self.origins().map_err(|error| source.error(&["server", "origins"], error.to_string()))?;
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            let message = format!(
                "{} can be reached by others, expected [server.tls] with certificate and key",
                self.listen
            );
            return Err(source.error(&["server", "listen"], message));
        }
        match &self.evaluation {
            Some(data) => data.check(source, ["server", "evaluation"]),
            None => Ok(()),
        }
    }
}

/// Whether this is a host and its port as in an address, without what comes before and after.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse::<u16>().is_ok()),
        _ => (text, true),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    port && is_server_name(bare) && !bare.contains('*')
}

/// Bytes of a token, at least: shorter ones can be guessed.
const MIN_TOKEN: usize = 16;

impl ServerConfig {
    /// The origins whose pages may call the server.
    ///
    /// # Errors
    /// For what is no origin.
    pub fn origins(&self) -> crate::Result<Vec<crate::server::http::Origin>> {
        self.origins.iter().map(|origin| origin.parse()).collect()
    }
}

impl ClientConfig {
    fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let plain = self.server.starts_with("http://");
        if !plain && !self.server.starts_with("https://") {
            let message = format!("\"{}\", expected https://host:port", self.server);
            return Err(source.error(&["client", "server"], message));
        }
        if plain && self.authority.is_some() {
            let message = "not used with http://, expected a server at https://";
            return Err(source.error(&["client", "authority"], message));
        }
        if let EvaluationConfig::HeldOut(share) = self.evaluation
            && !(0.0..1.0).contains(&share)
        {
            let message = format!("{share}, expected 0 to below 1");
            return Err(source.error(&["client", "evaluation", "held_out"], message));
        }
        self.data.check(source, ["client", "data"])
    }
}

#[cfg(test)]
mod tests;
