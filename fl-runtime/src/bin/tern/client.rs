//! `tern client`: a device that takes part.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use tern_engine::{Device, DeviceOptions};
use tern_fl::client::{self, Client, Outcome};
use tern_fl::config::{ClientConfig, Config};

use super::samples::{FileTrainer, Reading};

use super::stop::Stop;

/// Takes part in a run with data of this machine, which stays here.
///
/// Ctrl-C and SIGTERM end it between two training steps, with status 130 or 143, a second one at
/// once. Started again it goes on where it was.
#[derive(Args, Debug)]
pub struct Options {
    /// The configuration.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
}

/// Takes part until the run is over or somebody asks to stop.
pub fn run(options: &Options) -> Result<ExitCode> {
    let config = Config::load(&options.config)?
        .client
        .with_context(|| format!("{}: no [client]", options.config.display()))?;
    let event_loop = super::event_loop()?;
    let device = event_loop.block_on(Device::open(&selection(&config)?))?;
    tracing::info!(device = device.name(), "training on");
    let options = client::Options::new(&config.server, &config.folder)
        .authority(config.authority.clone())
        .token(config.token.clone())
        .required_security(config.required_security);
    let mut client = Client::new(options)?;
    let stop = Stop::listen(|| {})?;
    let reading = event_loop.block_on(async {
        tokio::select! {
            task = client.task() => task.map(|task| Some(Reading::of(&task))),
            () = stop.clone().asked() => Ok(None),
        }
    })?;
    let stopped = || {
        super::say(format_args!("stopped"));
        stop.status()
    };
    let Some(reading) = reading else { return Ok(stopped()) };
    let trainer = FileTrainer::new(&device, &config.data, &config.evaluation, reading)?;
    let running = client.run(trainer, &device, stop.clone().asked());
    Ok(match event_loop.block_on(running)? {
        Outcome::Finished(model) => {
            super::say(format_args!("finished: {}", model.display()));
            ExitCode::SUCCESS
        }
        Outcome::Stopped => stopped(),
    })
}

/// What the environment says, but for a device that the configuration names.
fn selection(config: &ClientConfig) -> Result<DeviceOptions> {
    let mut options = DeviceOptions::from_env()?;
    if let Some(text) = &config.device {
        options.select = text.parse()?;
    }
    Ok(options)
}
