//! The `tern` command: federated training over a network, and what it needs.

mod certs;
mod client;
#[cfg(feature = "fleet")]
mod fleet;
mod held_out;
mod init;
mod keys;
mod model;
mod repair;
mod samples;
mod schema;
mod server;
mod simulate;
mod stop;
mod tokens;
mod verify;
mod view;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Federated training on Tern's engine.
#[derive(Parser)]
#[command(name = "tern", version, about, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    what: What,
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value_t = Log::Text)]
    log: Log,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum What {
    Server(server::Options),
    Client(client::Options),
    Simulate(Box<simulate::Options>),
    Init(init::Options),
    Schema(schema::Options),
    Keys(keys::Options),
    Tokens(tokens::Options),
    Certs(certs::Options),
    #[cfg(feature = "fleet")]
    Fleet(fleet::Options),
    Verify(verify::Options),
    Repair(repair::Options),
    Evaluate(model::Evaluate),
    Predict(model::Predict),
}

fn main() -> ExitCode {
    // SAFETY: this is the first that the process does: it has no other thread.
    unsafe { tern_fl::host::display::look_for_none() };
    let Command { what, log } = Command::parse();
    let view = matches!(&what, What::Server(options) if options.view());
    if !view {
        start_log(log);
    }
    let done = |()| ExitCode::SUCCESS;
    let result = match &what {
        What::Server(options) => server::run(options).map(done),
        What::Client(options) => client::run(options),
        What::Simulate(options) => simulate::run(options),
        What::Init(options) => init::run(options).map(done),
        What::Schema(options) => schema::run(options).map(done),
        What::Keys(options) => keys::run(options).map(done),
        What::Tokens(options) => tokens::run(options).map(done),
        What::Certs(options) => certs::run(options).map(done),
        #[cfg(feature = "fleet")]
        What::Fleet(options) => fleet::run(options).map(done),
        What::Verify(options) => verify::run(options).map(done),
        What::Repair(options) => repair::run(options).map(done),
        What::Evaluate(options) => model::evaluate(options).map(done),
        What::Predict(options) => model::predict(options).map(done),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            // A closed standard error is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard error, those of level info and above unless RUST_LOG says more.
fn start_log(log: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log {
        Log::Text => lines.with_target(false).init(),
        Log::Json => lines.json().init(),
    }
}

/// A line of the command's answer, on standard output.
fn say(text: std::fmt::Arguments<'_>) {
    // Who closed the pipe has read enough.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An event loop for what waits on the network.
fn event_loop() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn options_go_together() {
        super::Command::command().debug_assert();
    }
}
