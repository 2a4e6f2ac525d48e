//! Typing key by key, on a terminal. Words are found on a thread of their own, so that keys never
//! wait for them.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal;
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::{flag, low_level};

use super::editor::{Editor, Key, Outcome};
use super::screen::{Frame, Screen, Size};
use super::{Offer, Session, Typed};

/// How it is done.
pub const HELP: &str = "Type: words are suggested below the line. Tab takes the one in brackets, \
↓ and ↑ choose another,\nEnter ends the line, Ctrl-U erases it, Ctrl-D ends the session.";

/// How long a key is waited for before words that were found are looked for.
const SOON: Duration = Duration::from_millis(10);
/// The same where none are due: signals are noticed so soon.
const IDLE: Duration = Duration::from_millis(200);
/// How long Tab waits for words where none are shown yet.
const PATIENCE: Duration = Duration::from_millis(300);

/// Whether a person can type key by key: input and output are a terminal that can move its cursor.
pub fn is_there() -> bool {
    let able = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    able && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// For the thread that has the model.
enum Ask {
    /// Words for a text, and the number of the question.
    Words(String, u64),
    /// A line that ended.
    Line(String),
}

/// From the thread that has the model.
enum Answer {
    /// Words, and the number of the question.
    Words(Vec<Offer>, u64),
    /// What is to be told.
    Said(String),
}

/// Lets a person type until they end it. The terminal is as it was afterwards, whatever ends it.
///
/// # Errors
/// Of the model and the terminal.
pub fn talk(session: Session<'_>, out: &mut dyn Write) -> Result<Typed> {
    let known = session.knows();
    let signals = Signals::listen().context("listening to signals")?;
    let (ask, asked) = channel();
    let (answer, answers) = channel();
    let typed = std::thread::scope(|scope| {
        let worker = scope.spawn(move || work(session, &asked, &answer));
        let raw = Raw::enter().context("the terminal's raw mode");
        let typed = raw.and_then(|_raw| {
            // No color where the user wants none (https://no-color.org).
            let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let loops = Loop {
                editor: Editor::default(),
                screen: Screen::default(),
                ask,
                due: None,
                asked: 0,
            };
            loops.run(&answers, &signals, (&known, color), out)
        });
        // What the thread fails with is why the keys ended, too.
        let worked = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.and(typed)
    })?;
    signals.obey()?;
    Ok(typed)
}

/// The thread that has the model: answers until nobody asks any more.
fn work(mut session: Session<'_>, asked: &Receiver<Ask>, answer: &Sender<Answer>) -> Result<()> {
    // Nobody listens any more once the keys have ended.
    let send = |what| drop(answer.send(what));
    let mut next = asked.recv().ok();
    while let Some(ask) = next {
        match ask {
            Ask::Words(line, number) => match asked.try_recv() {
                // There is another key by now.
                Ok(later) => {
                    next = Some(later);
                    continue;
                }
                Err(_) => send(Answer::Words(session.suggestions(&line)?, number)),
            },
            Ask::Line(line) => session.end_line(&line, &mut |said| {
                send(Answer::Said(said));
                Ok(())
            })?,
        }
        next = asked.recv().ok();
    }
    Ok(())
}

/// Keys and answers come in, rows go out.
struct Loop {
    editor: Editor,
    screen: Screen,
    ask: Sender<Ask>,
    /// The question whose words are still to come.
    due: Option<u64>,
    /// Questions so far.
    asked: u64,
}

impl Loop {
    fn run(
        mut self,
        answers: &Receiver<Answer>,
        signals: &Signals,
        (known, color): (&dyn Fn(char) -> bool, bool),
        out: &mut dyn Write,
    ) -> Result<Typed> {
        self.ask_for_words();
        loop {
            self.show(known, color, out)?;
            let wait = if self.due.is_some() { SOON } else { IDLE };
            // All keys that are there, and a picture of where they led.
            let mut wait = Some(wait);
            while event::poll(wait.take().unwrap_or_default()).context("waiting for keys")? {
                let event = event::read().context("reading keys")?;
                if self.happen(&event, answers, out)? {
                    self.leave(out)?;
                    return Ok(self.editor.typed());
                }
            }
            let there = self.listen(answers, Duration::ZERO, out)?;
            if signals.came().is_some() || !there {
                self.leave(out)?;
                return Ok(self.editor.typed());
            }
        }
    }

    /// Takes what came; whether that ends the session.
    fn happen(
        &mut self,
        event: &Event,
        answers: &Receiver<Answer>,
        out: &mut dyn Write,
    ) -> Result<bool> {
        let Event::Key(event) = event else { return Ok(false) };
        let Some(key) = key_of(event) else { return Ok(false) };
        if key == Key::Take && self.editor.offers().0.is_empty() {
            let mut there = true;
            while there && self.due.is_some() {
                there = self.listen(answers, PATIENCE, out)? && self.editor.offers().0.is_empty();
            }
        }
        match self.editor.press(key) {
            Outcome::Nothing => {}
            Outcome::Moved => self.ask_for_words(),
            Outcome::Line(line) => {
                self.screen.say(&line, out)?;
                // The thread ended if this fails, which the answers tell.
                drop(self.ask.send(Ask::Line(line)));
                self.ask_for_words();
            }
            Outcome::Quit => return Ok(true),
        }
        Ok(false)
    }

    fn ask_for_words(&mut self) {
        self.due = None;
        if let Some(text) = self.editor.asks() {
            self.asked += 1;
            self.due = Some(self.asked);
            drop(self.ask.send(Ask::Words(text.to_owned(), self.asked)));
        }
    }

    /// Takes the answers that are there, or the first to come; whether there may be others.
    fn listen(
        &mut self,
        answers: &Receiver<Answer>,
        patience: Duration,
        out: &mut dyn Write,
    ) -> Result<bool> {
        let mut answer = answers.recv_timeout(patience);
        loop {
            match answer {
                Ok(Answer::Words(offers, number)) if self.due == Some(number) => {
                    self.due = None;
                    self.editor.offer(offers);
                }
                // Of where the cursor was before.
                Ok(Answer::Words(..)) => {}
                Ok(Answer::Said(text)) => self.screen.say(&text, out)?,
                Err(RecvTimeoutError::Timeout) => return Ok(patience.is_zero()),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
            answer = match answers.try_recv() {
                Ok(answer) => Ok(answer),
                Err(_) => return Ok(true),
            };
        }
    }

    fn show(
        &mut self,
        known: &dyn Fn(char) -> bool,
        color: bool,
        out: &mut dyn Write,
    ) -> Result<()> {
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        let size = Size { columns: columns.into(), rows: rows.into(), color };
        Ok(self.screen.show(Frame::of(&self.editor, known, size), out)?)
    }

    /// Leaves the line where it is, without suggestions.
    fn leave(&mut self, out: &mut dyn Write) -> Result<()> {
        Ok(self.screen.say(self.editor.line(), out)?)
    }
}

/// What a key means here.
fn key_of(event: &KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let command = event.modifiers.contains(KeyModifiers::CONTROL)
        // Together they are a way to characters on some keyboards.
        && !event.modifiers.contains(KeyModifiers::ALT);
    Some(match event.code {
        KeyCode::Char(c) if command => match c.to_ascii_lowercase() {
            'c' | 'd' => Key::Quit,
            'u' => Key::Clear,
            'h' => Key::Backspace,
            'j' | 'm' => Key::Enter,
            'a' => Key::Home,
            'e' => Key::End,
            _ => return None,
        },
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Tab => Key::Take,
        KeyCode::Down => Key::Next,
        KeyCode::Up | KeyCode::BackTab => Key::Previous,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Delete,
        KeyCode::Enter => Key::Enter,
        _ => return None,
    })
}

/// A terminal that gives keys as they are pressed, until this is dropped or the process panics.
struct Raw;

impl Raw {
    fn enter() -> Result<Self> {
        // Before the message of a panic, which needs a terminal that ends lines.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            drop(terminal::disable_raw_mode());
            hook(panic);
        }));
        terminal::enable_raw_mode()?;
        Ok(Raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        drop(terminal::disable_raw_mode());
    }
}

/// Signals that ask the process to end: the first is kept, and the second does at once what it
/// does by default.
struct Signals(Arc<AtomicUsize>);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let (again, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        #[cfg(unix)]
        let hangup = [signal_hook::consts::SIGHUP];
        #[cfg(not(unix))]
        let hangup = [];
        for signal in TERM_SIGNALS.iter().copied().chain(hangup) {
            flag::register_conditional_default(signal, again.clone())?;
            flag::register(signal, again.clone())?;
            flag::register_usize(signal, number.clone(), signal.unsigned_abs() as usize)?;
        }
        Ok(Signals(number))
    }

    /// The signal that came.
    fn came(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }

    /// Ends the process as the signal would have, if one came.
    fn obey(&self) -> std::io::Result<()> {
        self.came().map_or(Ok(()), low_level::emulate_default_handler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_they_do_in_a_shell() {
        let key = |code, modifiers| key_of(&KeyEvent::new(code, modifiers));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (c, expected) in [
            ('c', Some(Key::Quit)),
            ('D', Some(Key::Quit)),
            ('u', Some(Key::Clear)),
            ('h', Some(Key::Backspace)),
            ('x', None),
        ] {
            assert_eq!(key(KeyCode::Char(c), control), expected, "{c}");
        }
        assert_eq!(key(KeyCode::Char('c'), none), Some(Key::Char('c')));
        assert_eq!(key(KeyCode::Char('@'), control | KeyModifiers::ALT), Some(Key::Char('@')));
        assert_eq!(key(KeyCode::F(1), none), None);
        let kind = KeyEventKind::Release;
        let released = KeyEvent::new_with_kind(KeyCode::Tab, none, kind);
        assert_eq!(key_of(&released), None);
    }
}
