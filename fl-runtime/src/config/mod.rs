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
use tern_protocol::participant::RequiredSecurity;
use tern_protocol::plan::RunPlan;
use tern_protocol::{ClientId, Error, hex};
use tern_server::http::Limits;

pub use source::{ConfigError, Source};

use crate::data::Tokens;

const TEMPLATE: &str = include_str!("template.toml");
/// The token in it, which anybody can read there.
const KNOWN_TOKEN: &str = "change-me-to-something-long";

/// A commented configuration with every option and a token of its own, as `tern init` writes it.
///
/// # Errors
/// [`Error::Entropy`] if none can be drawn.
pub fn template() -> Result<String, Error> {
    let mut token = [0; 16];
    getrandom::fill(&mut token)?;
    Ok(TEMPLATE.replace(KNOWN_TOKEN, &hex::encode(&token)))
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

/// Who may take part: who knows the token, or whose key is listed. If neither is given, anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// What clients enroll with.
    pub token: Option<String>,
    /// Public keys of clients.
    pub clients: Vec<ClientId>,
    /// File of public keys, one at the start of a line.
    pub clients_file: Option<PathBuf>,
    /// File of public keys that are refused from the next start on, whatever admits them.
    pub revoked_file: Option<PathBuf>,
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
    /// What it trains on.
    pub data: DataConfig,
}

/// Where a client's samples are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataConfig {
    /// Text, for models of tokens.
    Text {
        /// A file, or a folder whose `.txt` files are read in order of their names.
        path: PathBuf,
        /// How characters become tokens.
        #[serde(default)]
        tokens: Tokens,
        /// Tokens of a window.
        steps: usize,
    },
    /// Rows of numbers with a class each, for models of features.
    Csv {
        /// A file, or a folder whose `.csv` files are read in order of their names. The first
        /// line of a file names its columns.
        path: PathBuf,
        /// The column with the class, a whole number from 0; the others are features.
        label: String,
    },
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
        if let Some(server) = &config.server {
            server.check(&source)?;
        }
        if let Some(client) = &config.client {
            client.check(&source)?;
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
            paths.extend(&mut server.admission.revoked_file);
            if let Some(TlsFiles { certificate, key }) = &mut server.tls {
                paths.extend([certificate, key]);
            }
        }
        if let Some(client) = &mut self.client {
            paths.push(&mut client.folder);
            paths.extend(&mut client.authority);
            let (DataConfig::Text { path, .. } | DataConfig::Csv { path, .. }) = &mut client.data;
            paths.push(path);
        }
        for path in paths {
            *path = folder.join(&*path);
        }
    }
}

impl ServerConfig {
    fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        self.limits.check().map_err(|(field, value, expected)| {
            source.error(&["server", "limits", field], format!("{value}, expected {expected}"))
        })?;
        let AdmissionConfig { token, clients, clients_file, .. } = &self.admission;
        let key = ["server", "admission", "token"];
        if let Some(given) = token.as_ref().map(String::len).filter(|given| *given < MIN_TOKEN) {
            let message = format!("a token of {given} bytes, expected at least {MIN_TOKEN}");
            return Err(source.error(&key, message));
        }
        if token.as_deref() == Some(KNOWN_TOKEN) {
            let message = "the token of the template, expected one of your own, as tern init draws";
            return Err(source.error(&key, message));
        }
        if token.is_some() && (clients_file.is_some() || !clients.is_empty()) {
            return Err(source.error(&key, "beside a list of clients, expected one of the two"));
        }
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            let message = format!(
                "{} can be reached by others, expected [server.tls] with certificate and key",
                self.listen
            );
            return Err(source.error(&["server", "listen"], message));
        }
        Ok(())
    }
}

/// Bytes of a token, at least: shorter ones can be guessed.
const MIN_TOKEN: usize = 16;

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
        if let DataConfig::Text { steps, .. } = self.data
            && !(1..=1 << 16).contains(&steps)
        {
            let message = format!("{steps}, expected 1 to 65536");
            return Err(source.error(&["client", "data", "text", "steps"], message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse("tern.toml", text)
    }

    #[test]
    fn the_template_is_a_configuration() {
        let config = parse(&template().unwrap()).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.run.is_some() && config.server.is_some() && config.client.is_some());
    }

    #[test]
    fn files_of_other_versions_and_keys_are_refused_by_name() {
        let error = parse("version = 2\n[another]\nkey = 1\n").unwrap_err().to_string();
        assert!(error.starts_with("tern.toml:1:") && error.contains("version 2, expected 1"));
        let old = template().unwrap().replace("learning_rate = 0.5", "rate = 0.5");
        let error = parse(&old).unwrap_err().to_string();
        assert!(error.contains("`rate`") && error.contains("`learning_rate`"), "{error}");
        assert_eq!(parse("").unwrap().version, VERSION);
    }

    #[test]
    fn every_configuration_has_a_token_of_its_own() {
        let token = || {
            let config = parse(&template().unwrap()).unwrap();
            let server = config.server.unwrap().admission.token.unwrap();
            assert_eq!(Some(&server), config.client.unwrap().token.as_ref());
            server
        };
        assert!(token().len() == 32 && token() != token());
        let error = parse(TEMPLATE).unwrap_err();
        assert_eq!(error.key, "server.admission.token");
        assert!(error.message.contains("one of your own"), "{error}");
    }

    #[test]
    fn the_templates_comments_are_options() {
        // What is commented out (`#key = value`, `#[table]`) is valid, too, line by line where
        // it stands.
        let template = template().unwrap();
        let lines: Vec<&str> = template.lines().collect();
        let options: Vec<usize> = (0..lines.len())
            .filter(|i| lines[*i].strip_prefix('#').is_some_and(|l| !l.starts_with(' ')))
            .filter(|i| lines[*i].len() > 1)
            .collect();
        assert!(options.len() > 10, "{}", options.len());
        let all: Vec<&str> = (0..lines.len())
            .map(|i| if options.contains(&i) { &lines[i][1..] } else { lines[i] })
            .collect();
        parse(&all.join("\n")).unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn values_out_of_range_are_shown_with_their_line() {
        let template = template().unwrap();
        let line = |key: &str| {
            let found = template.lines().position(|l| l.starts_with(&format!("{key} =")));
            found.unwrap_or_else(|| panic!("{key}")) + 1
        };
        for (key, value, path, expected) in [
            ("rounds", "0", "run.rounds", "1 to"),
            ("minimum", "4000", "run.cohort.minimum", "1 to"),
            ("listen", "\"somewhere\"", "server.listen", "socket address"),
            ("server", "\"host\"", "client.server", "https://"),
            ("steps", "0", "client.data.text.steps", "1 to 65536"),
            ("poll_seconds", "0.0", "server.limits.poll_seconds", "more than 0"),
            ("token", "\"short\"", "server.admission.token", "at least 16"),
        ] {
            let start = format!("{key} =");
            let swap = |l: &str| match l.starts_with(&start) {
                true => format!("{key} = {value}\n"),
                false => format!("{l}\n"),
            };
            let text: String = template.lines().map(swap).collect();
            let error = parse(&text).unwrap_err();
            assert_eq!((error.key.as_str(), error.line), (path, line(key)), "{error}");
            assert!(error.message.contains(expected), "{error}");
        }
        // Others can reach it, and it has no certificate.
        let text = template.replace("[server.tls]", "#").replace("certificate =", "#");
        let error = parse(&text.replace("\nkey =", "\n#")).unwrap_err();
        assert_eq!((error.key.as_str(), error.line), ("server.listen", line("listen")), "{error}");
        assert!(error.message.contains("[server.tls]"), "{error}");
        let text = template.replace("rounds =", "round =");
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains("unknown field `round`"), "{error}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tern.toml");
        std::fs::write(&path, template().unwrap()).unwrap();
        let config = Config::load(&path).unwrap();
        assert!(config.server.unwrap().folder.starts_with(folder.path()));
        assert!(config.client.unwrap().folder.starts_with(folder.path()));
        let error = Config::load(&folder.path().join("none.toml")).unwrap_err().to_string();
        assert!(error.contains("none.toml"), "{error}");
    }
}
