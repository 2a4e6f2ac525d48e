//! Being asked to stop, by Ctrl-C or, on Unix, SIGTERM. Who is asked ends what is under way; asked
//! once more, the process ends at once.

use std::process::ExitCode;

use anyhow::Result;
use tokio::sync::watch;

/// A signal that asks to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The status of a process that it ended, as shells have it: 128 and the signal's number.
    fn status(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

/// Whether this process was asked to stop.
#[derive(Clone)]
pub struct Stop(watch::Receiver<Option<Signal>>);

impl Stop {
    /// Listens from now on, and calls `first` when it is asked. Until then signals end the process.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(first: impl FnOnce() + Send + 'static) -> Result<Self> {
        let (tell, told) = watch::channel(None);
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _here = event_loop.enter();
            Signals::new()?
        };
        // A thread of its own also hears the second signal while others wait for their work's end.
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            event_loop.block_on(async {
                let signal = signals.next().await;
                tell.send_replace(Some(signal));
                first();
                std::process::exit(signals.next().await.status().into());
            });
        })?;
        Ok(Stop(told))
    }

    /// Waits until it is asked.
    pub async fn asked(mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            // Without signals the process runs until it is killed, which loses nothing.
            std::future::pending::<()>().await;
        }
    }

    /// The status to end with: what the signal says if it was asked, else success.
    pub fn status(&self) -> ExitCode {
        self.0.borrow().map_or(ExitCode::SUCCESS, |signal| signal.status().into())
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Signals { interrupt: interrupt?, terminate: terminate? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Signals)
    }

    async fn next(&mut self) -> Signal {
        let _ = self.0.recv().await;
        Signal::Interrupt
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    const CHILD: &str = "TERN_TEST_THAT_NEVER_STOPS";

    /// The test starts itself once more, as a process that hears the signal and goes on.
    #[test]
    fn asked_a_second_time_the_process_ends_at_once() {
        if std::env::var_os(CHILD).is_some() {
            let _stop = Stop::listen(|| println!("\nasked")).unwrap();
            println!("\nlistening");
            loop {
                std::thread::park();
            }
        }
        for (second, status) in [("-INT", 130), ("-TERM", 143)] {
            let name = "stop::tests::asked_a_second_time_the_process_ends_at_once";
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture"])
                .env(CHILD, "1")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut wait_for = |said: &str| assert!(lines.any(|line| line.unwrap() == said));
            let process = child.id().to_string();
            let send = |signal: &str| {
                assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
            };
            wait_for("listening");
            send("-INT");
            wait_for("asked");
            assert!(child.try_wait().unwrap().is_none(), "once is not enough");
            send(second);
            assert_eq!(child.wait().unwrap().code(), Some(status));
        }
    }
}
