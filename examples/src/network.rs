//! A demo's federation as real processes over TLS: the demo's command is started again, once as
//! the server and once for each client, with a folder that tells them where to meet.

mod processes;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::de::DeserializeOwned;
use tern_engine::{Device, load_model};
use tern_fl::client::{Client, Http, Options as ClientOptions, Outcome};
use tern_fl::host::key_file;
use tern_fl::host::tls;
use tern_fl::identity::Identity;
use tern_fl::server::federation::{self, Admission, Federation, Token};
use tern_fl::server::http::{self, Board, Limits, Server, Service};
use tern_fl::trainer::Trainer;
use tern_fl::{ClientId, Digest, RunId, RunPlan, Strategy};

use crate::report::replace;

pub use processes::{Ended, tell_same};

/// What a process writes down in its folder, where it finds out something for the report.
pub const FOUND: &str = "found.json";
/// What a server hears when it isn't needed any more. An input that is closed without it is that of
/// a process that was ended, and those that it started end with it, whatever they are at.
const FAREWELL: &[u8] = b"done\n";
/// The file with a client's key, in its folder.
const KEY: &str = "client.key";
/// The file with what clients register with.
const TOKEN: &str = "token";

/// Whether a demo runs as processes, and what this one is.
#[derive(Args, Clone, Debug, Default)]
pub struct NetworkOptions {
    /// Run the server and each client as a process of its own, over TLS on this machine.
    #[arg(long)]
    pub network: bool,
    /// What this process is: `server`, or the number of a client.
    #[arg(long, hide = true, requires = "place")]
    role: Option<Role>,
    /// Where the processes of a network meet.
    #[arg(long, hide = true, requires = "role", value_name = "DIR")]
    place: Option<PathBuf>,
}

/// A process of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server.
    Server,
    /// A client, by its number.
    Client(usize),
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "server" => Ok(Role::Server),
            _ => text.parse().map(Role::Client).map_err(|_| "`server` or a number".into()),
        }
    }
}

impl NetworkOptions {
    /// What this process is, if another one started it, and where they meet. A client ends with
    /// that one, however it ends.
    pub fn part(&self) -> Option<(Role, Place)> {
        let (role, place) = (self.role?, Place { folder: self.place.clone()? });
        if let Role::Client(_) = role {
            std::thread::spawn(|| {
                until_closed();
                std::process::exit(1);
            });
        }
        Some((role, place))
    }
}

/// The folder where the processes of a network meet.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// Prepares a folder: a certificate for this machine, a token, a key for each client.
    pub fn create(folder: &Path, clients: usize) -> Result<Self> {
        ensure!(clients > 0, "clients: 0, expected at least one");
        let place = Place { folder: folder.to_owned() };
        ensure!(
            !place.path(TOKEN).exists(),
            "{}: the processes of another run met here, expected a new folder",
            folder.display()
        );
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        // Its own authority, which the clients trust and nobody else.
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        place.write("server.pem", made.cert.pem().as_bytes())?;
        place.write("server.key", made.signing_key.serialize_pem().as_bytes())?;
        // The public part of a key nobody has is as good a secret as any.
        place.write(TOKEN, Identity::generate()?.client().to_string().as_bytes())?;
        for client in 0..clients {
            let folder = place.client(client);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            key_file::load_or_create(&folder.join(KEY))?;
        }
        Ok(place)
    }

    /// The folder of a client.
    pub fn client(&self, number: usize) -> PathBuf {
        self.path(&format!("client-{number}"))
    }

    /// What the server finds out.
    pub fn server(&self) -> PathBuf {
        self.path("server")
    }

    /// What the process of a folder wrote down ([`FOUND`]).
    pub fn found<T: DeserializeOwned>(&self, folder: &Path) -> Result<T> {
        let path = folder.join(FOUND);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// The folder of the server's run.
    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    /// Whether this is the name of the folder.
    pub fn is_called(&self, name: &str) -> bool {
        self.folder.ends_with(name)
    }

    /// The key of a client.
    pub fn key(&self, number: usize) -> Result<Identity> {
        Ok(key_file::load(&self.client(number).join(KEY))?)
    }

    /// Who a client is: names for a simulation of the same run.
    pub fn identity(&self, number: usize) -> Result<ClientId> {
        Ok(self.key(number)?.client())
    }

    /// Gives the first clients the keys that they have in another place, so that both come to the
    /// same.
    pub fn take_keys(&self, other: &Place, clients: usize) -> Result<()> {
        for number in 0..clients {
            let [from, to] = [other, self].map(|place| place.client(number).join(KEY));
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
        Ok(())
    }

    /// The run, which follows from the token: one in another process has the same name then.
    pub fn run_id(&self) -> Result<RunId> {
        let Digest(digest) = Digest::of(self.read(TOKEN)?.as_bytes());
        RunId::from_slice(&digest[..16]).context("a digest is longer than a run's name")
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Others wait for it.
        replace(&self.path(name), bytes)
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Serves, as [`Role::Server`], until this process' input is closed; with the strategy that
    /// the plan names, if it is the demo's own.
    pub fn serve(
        &self,
        services: Vec<Arc<dyn Service>>,
        strategy: Option<Arc<dyn Strategy>>,
    ) -> Result<()> {
        self.serve_until(services, strategy, std::future::ready(()))
    }

    /// [`Place::serve`], and until `done`.
    fn serve_until(
        &self,
        services: Vec<Arc<dyn Service>>,
        strategy: Option<Arc<dyn Strategy>>,
        done: impl Future<Output = ()>,
    ) -> Result<()> {
        let plan: RunPlan = serde_json::from_str(&self.read("plan.json")?)?;
        let layout = plan.check()?;
        let initial = load_model(&self.path("initial.safetensors"), layout.parameters())?;
        let run = self.run();
        let admission = Admission::Tokens(vec![Token::new(&self.read(TOKEN)?, 1_000)]);
        let options = federation::Options::default()
            .admission(admission)
            .strategy(strategy)
            .run(self.run_id()?);
        let federation = Federation::open(&run, &plan, &initial, options)?;
        let board = Board::with_file(&run.join("metrics.jsonl"), tern_fl::host::clock::now().0)?;
        let tls = tls::server(&self.path("server.pem"), &self.path("server.key"))?;
        // Everybody is here, and rounds take less than the time between two requests elsewhere.
        let mut limits = Limits::default();
        (limits.requests_per_client, limits.requests_per_address) = (1e3, 1e4);
        let options =
            http::Options::default().tls(tls).limits(limits).folder(run).services(services);
        let server = Server::new(federation, board, options);
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        self.write("address", format!("https://localhost:{port}").as_bytes())?;
        let closed = async {
            let (told, closed) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                if !until_closed() {
                    std::process::exit(1);
                }
                let _ = told.send(());
            });
            // Err: the thread is gone, and so is the input.
            let _ = closed.await;
            done.await;
        };
        Ok(event_loop()?.block_on(server.serve(listener, closed))?)
    }

    /// [`Place::serve`] on a thread of its own, while `work` prepares what is served, or takes
    /// part itself: the server is there when it begins, and until it ends.
    pub fn serve_while(
        &self,
        services: Vec<Arc<dyn Service>>,
        strategy: Option<Arc<dyn Strategy>>,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let place = self.clone();
        let (working, done) = tokio::sync::oneshot::channel::<()>();
        let serving = std::thread::spawn(move || {
            // Err: the work is done, and its end of the channel gone.
            place.serve_until(services, strategy, async move {
                let _ = done.await;
            })
        });
        while !self.path("address").exists() && !serving.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !serving.is_finished() {
            work()?;
        }
        drop(working);
        match serving.join() {
            Ok(served) => served,
            Err(_) => bail!("the server's thread ended early"),
        }
    }

    /// Takes part in the run as a client, until it is over. Returns the best model's
    /// file.
    pub fn take_part<T: Trainer + Send + 'static>(
        &self,
        number: usize,
        trainer: T,
        device: &Device,
    ) -> Result<PathBuf> {
        let options = ClientOptions::new(&self.read("address")?, self.client(number))
            .authority(self.path("server.pem"))
            .token(self.read(TOKEN)?);
        let client = Client::new(options)?;
        match event_loop()?.block_on(client.run(trainer, device, std::future::pending()))? {
            Outcome::Finished(model) => Ok(model),
            Outcome::Stopped => bail!("client {number} was stopped"),
        }
    }

    /// Asks services, as [`Role::Client`]: registers, then does what `ask` does.
    pub fn ask<A>(&self, number: usize, ask: impl AsyncFnOnce(&Http) -> Result<A>) -> Result<A> {
        let identity = self.key(number)?;
        let authority = self.path("server.pem");
        let http = Http::new(&self.read("address")?, Some(&authority), identity)?;
        event_loop()?.block_on(async {
            http.enroll(&self.read(TOKEN)?).await?;
            ask(&http).await
        })
    }
}

/// Waits until this process' input is closed, which the one that started it holds open; whether
/// it said [`FAREWELL`].
fn until_closed() -> bool {
    let mut said = Vec::new();
    // Whatever it is, there is no more of it.
    let _ = std::io::stdin().read_to_end(&mut said);
    said == FAREWELL
}

fn event_loop() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
