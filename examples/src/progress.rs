//! Progress of a long job: a bar on a terminal, a plain line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Progress of one job, on standard error, so that results can be piped.
pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    loss: Option<f32>,
    started: Instant,
    view: View,
}

enum View {
    Bar(ProgressBar),
    Plain { out: Box<dyn Write + Send>, last: Instant, every: Duration },
}

impl Progress {
    /// A job of `total` steps.
    pub fn new(label: &str, total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::plain(label, total, Box::new(std::io::stderr()), PLAIN_EVERY);
        }
        let bar = ProgressBar::new(total);
        let style = "{prefix:>12} {wide_bar} {pos}/{len} {msg} {eta} left";
        bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(label.to_owned());
        Self::with(label, total, View::Bar(bar))
    }

    /// The same, as lines written to `out`, at most one each `every`.
    pub fn plain(label: &str, total: u64, out: Box<dyn Write + Send>, every: Duration) -> Self {
        Self::with(label, total, View::Plain { out, last: Instant::now(), every })
    }

    fn with(label: &str, total: u64, view: View) -> Self {
        Self { label: label.to_owned(), total, done: 0, loss: None, started: Instant::now(), view }
    }

    /// A job whose steps are known only now.
    pub fn resize(&mut self, total: u64) {
        self.total = total;
        if let View::Bar(bar) = &self.view {
            bar.set_length(total);
        }
    }

    /// Says something found on the way, above the bar.
    pub fn say(&mut self, line: &str) {
        match &mut self.view {
            View::Bar(bar) => bar.println(line),
            // Nobody to tell is no reason to stop.
            View::Plain { out, .. } => drop(writeln!(out, "{line}")),
        }
    }

    /// Says how many steps are done, and the loss where there is one.
    pub fn update(&mut self, done: u64, loss: Option<f32>) {
        self.done = done.min(self.total);
        self.loss = loss.or(self.loss);
        let message = self.message();
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_position(self.done);
                bar.set_message(message);
            }
            View::Plain { out, last, every } => {
                if last.elapsed() >= *every {
                    *last = Instant::now();
                    // Progress must not end a job because nobody reads it.
                    let _ = writeln!(out, "{}: {}/{} {message}", self.label, self.done, self.total);
                }
            }
        }
    }

    /// Ends the job with one line that stays.
    pub fn finish(mut self) {
        let message = self.message();
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("{}: {} steps in {seconds:.1} s, {message}", self.label, self.done);
        match &mut self.view {
            View::Bar(bar) => {
                bar.println(line);
                bar.finish_and_clear();
            }
            View::Plain { out, .. } => {
                let _ = writeln!(out, "{line}");
            }
        }
    }

    fn message(&self) -> String {
        let rate = self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = if rate >= 100.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") };
        match self.loss {
            Some(loss) => format!("{rate} loss {loss:.4}"),
            None => rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(every: Duration) -> Vec<String> {
        let out = Shared::default();
        let mut progress = Progress::plain("train", 10, Box::new(out.clone()), every);
        progress.update(5, Some(1.25));
        progress.update(20, None);
        progress.finish();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn plain_lines_tell_steps_rate_and_loss() {
        let lines = lines(Duration::ZERO);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("train: 5/10 ") && lines[0].ends_with("/s loss 1.2500"));
        assert!(lines[1].starts_with("train: 10/10 ") && lines[1].ends_with("loss 1.2500"));
        assert!(lines[2].starts_with("train: 10 steps in "));
    }

    #[test]
    fn plain_lines_are_rare() {
        assert_eq!(lines(Duration::from_secs(3600)).len(), 1);
    }
}
