//! A person as the user: types, sees three words suggested, and the words change as the client
//! learns.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tern_engine::Device;

use tern_fl::methods::personalize::Merge;

use super::client::{Keyboard, Recipe};
use super::predictor::Predictor;
use super::reader::CONTEXT;
use crate::public::PublicModel;
use crate::suggest::{NextChar, Search, Suggestion, partial_word, suggest};

/// Characters typed before the first training: about two minutes of typing.
pub const RECORDS: usize = 400;

const HELP: &str = "Type, and press Enter to see how the word could go on; \
what you type is taken as it stands, spaces included.\n\
:1 :2 :3 take a suggestion, Enter alone ends the line, :q ends the session.";

/// Characters of a line, which is a batch here: about what a person types before Enter.
const LINE: usize = 40;

/// How little text there is to learn from at a time asks for small steps over it many times.
pub fn recipe(seed: u32) -> Recipe {
    Recipe { rate: 1e-3, passes: 5, batch: 1, seed }
}

/// A person typing.
struct Session<'a> {
    public: &'a PublicModel,
    predictor: Predictor,
    keyboard: Keyboard,
    /// Where the device is kept.
    file: &'a Path,
    /// The line so far.
    line: String,
    /// Tokens of the lines before it.
    before: Vec<u32>,
    /// Characters in finished lines and the line, and keys that they took.
    characters: usize,
    pressed: usize,
}

/// Lets a person type until `:q` or the end of the input. The client trains every `records`
/// characters, and is kept in a file after every line; if the file is there, it goes on from it.
pub fn run(
    device: &Device,
    public: &Arc<PublicModel>,
    file: &Path,
    records: usize,
    recipe: Recipe,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    let mut predictor = Predictor::new(device, public)?;
    let sizes = (records, records.div_ceil(LINE));
    let keyboard = if file.exists() {
        let (keyboard, merge) = Keyboard::load(device, ("you", file), public, &recipe, sizes)?;
        let (rounds, collected) = (keyboard.rounds().len(), keyboard.collected());
        writeln!(out, "Goes on after {rounds} trainings and {collected} characters more.")?;
        if let Some(Merge { version, adopted, .. }) = merge {
            let became = if adopted { "taken" } else { "not taken: it does worse on your text" };
            writeln!(out, "Version {version} of the public model: {became}.")?;
        }
        keyboard
    } else {
        Keyboard::new(device, "you", public, &recipe, sizes)?
    };
    predictor.set_weights(keyboard.weights())?;
    let before = vec![public.card.alphabet.token('\n')];
    let mut session = Session {
        public,
        predictor,
        keyboard,
        file,
        line: String::new(),
        before,
        characters: 0,
        pressed: 0,
    };
    writeln!(out, "\n{HELP}")?;
    writeln!(out, "It learns after {} characters.\n", session.keyboard.missing())?;
    session.talk(input, out)?;
    let saved = 100.0 * (1.0 - session.pressed as f64 / session.characters.max(1) as f64);
    writeln!(
        out,
        "\n{} characters with {} keystrokes: {saved:.0} % saved.",
        session.characters, session.pressed
    )?;
    if let (true, Some(folder)) = (file.exists(), file.parent()) {
        writeln!(out, "What it learned stays here; `--out {}` goes on.", folder.display())?;
    }
    Ok(())
}

impl Session<'_> {
    fn talk(&mut self, input: &mut dyn BufRead, out: &mut dyn Write) -> Result<()> {
        loop {
            let offers = self.suggestions()?;
            self.show(&offers, out)?;
            let mut entered = String::new();
            if input.read_line(&mut entered).context("reading what you type")? == 0 {
                return Ok(());
            }
            let entered = entered.trim_end_matches(['\n', '\r']);
            match entered {
                ":q" => return Ok(()),
                "" => self.end_line(out)?,
                ":1" | ":2" | ":3" => {
                    let at = usize::from(entered.as_bytes()[1] - b'1');
                    match offers.get(at) {
                        Some(word) => self.add(&format!("{} ", word.rest), 1),
                        None => writeln!(out, "There is no suggestion {}.", at + 1)?,
                    }
                }
                text => self.add(text, text.chars().count()),
            }
        }
    }

    fn add(&mut self, text: &str, keys: usize) {
        self.line += text;
        self.characters += text.chars().count();
        self.pressed += keys;
    }

    /// What the model in use suggests where the line ends now.
    fn suggestions(&mut self) -> Result<Vec<Suggestion>> {
        let alphabet = &self.public.card.alphabet;
        let mut context = self.before.clone();
        context.extend(alphabet.encode(&self.line));
        let next = self.predictor.start(&[&context])?.remove(0);
        let inside = !partial_word(&self.line).is_empty();
        let places = [(&next, inside)];
        let mut words = suggest(&mut self.predictor, alphabet, &places, &Search::default())?;
        Ok(words.pop().unwrap_or_default())
    }

    fn words(&self, offers: &[Suggestion]) -> Vec<String> {
        let begun = partial_word(&self.line);
        offers.iter().map(|word| format!("{begun}{}", word.rest)).collect()
    }

    fn show(&self, offers: &[Suggestion], out: &mut dyn Write) -> Result<()> {
        let words = self.words(offers).into_iter().zip(1..);
        let list: Vec<_> = words.map(|(word, number)| format!(":{number} {word}")).collect();
        writeln!(out, "    {}", list.join("   "))?;
        write!(out, "{}", self.line)?;
        Ok(out.flush()?)
    }

    /// 1.5: the line becomes records; 1.6 to 1.8 follow when there are enough.
    fn end_line(&mut self, out: &mut dyn Write) -> Result<()> {
        let alphabet = &self.public.card.alphabet;
        let text = alphabet.encode(&format!("{}\n", self.line));
        self.add("\n", 1);
        self.line.clear();
        self.keyboard.type_text(&text)?;
        self.before.extend(&text);
        self.before.drain(..self.before.len().saturating_sub(CONTEXT));
        if self.keyboard.is_ready() {
            let old = self.suggestions()?;
            let Some(round) = self.keyboard.customize(&mut || {})? else { return Ok(()) };
            self.predictor.set_weights(self.keyboard.weights())?;
            let new = self.suggestions()?;
            writeln!(
                out,
                "\nLearned from {} characters in {:.1} s; loss on those held back {:.2}, before {:.2}: {}.",
                round.records,
                round.work.seconds,
                round.loss_after,
                round.loss_before,
                if round.adopted { "adopted" } else { "not adopted" }
            )?;
            let (old, new) = (self.words(&old).join(", "), self.words(&new).join(", "));
            writeln!(out, "A line would have begun with {old}; now with {new}.\n")?;
        }
        self.keyboard.save(self.file)?;
        writeln!(out, "({} characters until it learns again)", self.keyboard.missing())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::{Card, tiny};
    use tern_fl::methods::personalize::Public;

    fn session(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        session_in(folder.path(), &Arc::new(tiny()), script).unwrap()
    }

    fn session_in(folder: &Path, public: &Arc<PublicModel>, script: &str) -> Result<String> {
        let mut out = Vec::new();
        let recipe = Recipe { rate: 1e-2, ..recipe(1) };
        let (file, mut script) = (folder.join("you.device"), script.as_bytes());
        run(&Device::cpu(), public, &file, 200, recipe, &mut script, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn a_session_goes_on_from_the_one_before() {
        let (folder, public) = (tempfile::tempdir().unwrap(), Arc::new(tiny()));
        let type_in = |public: &_, script: &str| session_in(folder.path(), public, script);
        let file = folder.path().join("you.device");
        let first = type_in(&public, &"so it goes\n\n".repeat(30)).unwrap();
        assert_eq!(first.matches(": adopted.").count(), 1, "{first}");
        assert!(first.contains("What it learned stays here; `--out "));
        // The device has all that the next session needs.
        let public = Arc::new(PublicModel::downloaded(Public::of_device(&file).unwrap()).unwrap());
        let second = type_in(&public, &"so it goes\n\n".repeat(10)).unwrap();
        assert!(second.contains("Goes on after 1 trainings and 121 characters more."), "{second}");
        // All 440 characters as in one session.
        assert_eq!(second.matches("Learned from 209 characters").count(), 1, "{second}");
        let newer = |version, change: f32| {
            let weights = public.weights().iter().map(|x| x + change * x.signum()).collect();
            let card = Card { version, ..public.card.clone() };
            Arc::new(PublicModel::new(card, weights).unwrap())
        };
        let third = type_in(&newer(4, 9.0), ":q\n").unwrap();
        assert!(third.contains("Version 4 of the public model: not taken"), "{third}");
        let third = type_in(&newer(4, 1e-6), "\n").unwrap();
        assert!(third.contains("Version 4 of the public model: "), "{third}");
        for other in [newer(3, 1.0), newer(2, 0.0)] {
            let error = format!("{:#}", type_in(&other, ":q\n").unwrap_err());
            assert!(error.contains("you.device: a device with another public model"), "{error}");
        }
    }

    #[test]
    fn suggestions_change_as_it_learns() {
        let script = "so it goes\n\n".repeat(40);
        let shown = session(&script);
        assert!(shown.contains("It learns after 200 characters."));
        assert_eq!(shown.matches("Learned from 209 characters").count(), 2, "{shown}");
        assert!(shown.contains(": adopted."), "{shown}");
        assert!(shown.contains("440 characters with 440 keystrokes: 0 % saved."), "{shown}");
    }

    #[test]
    fn a_suggestion_taken_costs_one_key() {
        let shown = session("Lo\n:1\n:q\nnever read\n");
        // The prompt after "Lo" was typed; the one before it suggests how a line may begin.
        let offered = shown.lines().find(|line| line.contains(":1 Lo")).unwrap_or_default();
        let word = offered.split_whitespace().nth(1).unwrap_or_default();
        assert!(word.starts_with("Lo") && word.len() > 2, "{shown}");
        let expected = format!("{} characters with 3 keystrokes", word.chars().count() + 1);
        assert!(shown.contains(&expected), "{shown}");
        assert!(!shown.contains("never"));
    }
}
