//! `tern client`: a device that takes part.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tern_engine::{Device, DeviceOptions};
use tern_fl::client::{self, Client, Outcome};
use tern_fl::config::{ClientConfig, Config};

use super::samples::{FileTrainer, Reading};

/// Takes part in a run with data of this machine, which stays here.
#[derive(Args, Debug)]
pub struct Options {
    /// The configuration.
    #[arg(long, default_value = "tern.toml")]
    config: PathBuf,
}

/// Takes part until the run is over or somebody asks to stop.
pub fn run(options: &Options) -> Result<()> {
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
    let reading = event_loop.block_on(async {
        tokio::select! {
            task = client.task() => task.map(|task| Some(Reading::of(&task))),
            () = super::asked_to_stop() => Ok(None),
        }
    })?;
    let Some(reading) = reading else {
        super::say(format_args!("stopped"));
        return Ok(());
    };
    let trainer = FileTrainer::new(&device, &config.data, &config.evaluation, reading)?;
    let running = client.run(trainer, &device, super::asked_to_stop());
    match event_loop.block_on(running)? {
        Outcome::Finished(model) => super::say(format_args!("finished: {}", model.display())),
        Outcome::Stopped => super::say(format_args!("stopped")),
    }
    Ok(())
}

/// What the configuration says, else what TERN_DEVICE says.
fn selection(config: &ClientConfig) -> Result<DeviceOptions> {
    Ok(match &config.device {
        Some(text) => DeviceOptions::new(text.parse()?),
        None => DeviceOptions::from_env()?,
    })
}
