//! The keyboard on a terminal: keys in, suggestions before the line ends, and the terminal as it
//! was afterwards. The terminal is that of `script` (util-linux).

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than anything waited for, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is run on the terminal: its settings are told before and after the keyboard.
const SCRIPT: &str = r#"
stty rows 20 cols 60
echo "settings $(stty -g)"
sh -c 'echo "process $$"; exec "$KEYBOARD" --interactive --device cpu --out "$REPORT"'
echo "ended with $?"
echo "settings $(stty -g)"
"#;

/// A keyboard on a terminal of its own.
struct Terminal {
    child: Child,
    bytes: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It ended, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Terminal {
    fn start(report: &Path) -> Self {
        let mut child = Command::new("script")
            .args(["--quiet", "--command", SCRIPT, "/dev/null"])
            .env("KEYBOARD", env!("CARGO_BIN_EXE_keyboard"))
            .env("REPORT", report)
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let (send, bytes) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut part) {
                if send.send(part[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { child, bytes, shown: Vec::new() }
    }

    fn keys(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// What was shown so far, without what moves the cursor.
    fn text(&self) -> String {
        let shown = String::from_utf8_lossy(&self.shown);
        let mut parts = shown.split("\x1b[");
        let first = parts.next().unwrap_or_default().to_owned();
        first
            + &parts
                .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
                .map(|part| part.get(1..).unwrap_or_default())
                .collect::<String>()
    }

    /// Waits until something is found in what was shown after the first `from` bytes of it.
    fn wait<T>(&mut self, from: usize, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            let text = self.text();
            if let Some(found) = text.get(from..).and_then(&find) {
                return found;
            }
            match self.bytes.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => panic!("{what}: not in {text}"),
            }
        }
    }

    /// Waits for a suggestion in brackets that begins so, and gives the whole word.
    fn suggested(&mut self, from: usize, begun: &str) -> String {
        let open = format!("[{begun}");
        self.wait(from, &open, |text| {
            let word = text.split(&open).nth(1)?.split_once(']')?.0;
            (!word.is_empty()).then(|| format!("{begun}{word}"))
        })
    }

    /// Waits for the end; the process's status. The terminal's settings are those of before.
    fn ended(&mut self) -> String {
        let twice = |text: &str| {
            (text.matches("settings ").count() == 2 && text.ends_with('\n')).then_some(())
        };
        self.wait(0, "the end", twice);
        let text = self.text();
        let after = |name: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.trim().strip_prefix(name));
            lines.map(str::to_owned).collect()
        };
        let settings = after("settings ");
        assert!(settings.len() == 2 && settings[0] == settings[1], "{text}");
        after("ended with ").concat()
    }
}

#[test]
fn words_are_suggested_as_one_types_and_the_terminal_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(folder.path());
    terminal.suggested(0, "");
    let from = terminal.text().len();
    terminal.keys("gove");
    // Enter was never pressed.
    let word = terminal.suggested(from, "gove");
    let from = terminal.text().len();
    terminal.keys("\t");
    terminal.wait(from, "the word", |text| text.contains(&format!("{word} ")).then_some(()));
    let from = terminal.text().len();
    // Characters of several bytes, one of them unknown, and gone again.
    terminal.keys("é你\x7f");
    terminal.wait(from, "a note", |text| text.contains("is unknown to the model").then_some(()));
    terminal.keys("\x04");
    assert_eq!(terminal.ended(), "0");
    let (characters, text) = (word.chars().count() + 2, terminal.text());
    let told = format!("{characters} characters with 8 keystrokes");
    assert!(text.contains(&told), "{told}: {text}");
}

#[test]
fn a_signal_and_an_error_leave_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut terminal = Terminal::start(&report);
    terminal.suggested(0, "");
    let text = terminal.text();
    let process = text.lines().find_map(|line| line.trim().strip_prefix("process ")).unwrap();
    assert!(Command::new("kill").args(["-TERM", process]).status().unwrap().success());
    assert_eq!(terminal.ended(), "143", "128 and the signal's number");

    let mut terminal = Terminal::start(&report);
    terminal.suggested(0, "");
    // Nothing can be kept any more.
    std::fs::remove_dir_all(&report).unwrap();
    terminal.keys("so\r");
    assert_eq!(terminal.ended(), "1");
    assert!(terminal.text().contains("Error: "), "{}", terminal.text());
}
