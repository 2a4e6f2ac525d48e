//! A person as the user: types, sees three words suggested, and the words change as the client
//! learns. On a terminal they are suggested as one types ([`terminal`]), elsewhere line by line
//! ([`lines`]).

pub mod editor;
pub mod lines;
pub mod screen;
pub mod terminal;
#[cfg(test)]
mod tests;

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use tern_engine::Device;

use tern_fl::methods::personalize::Merge;

use super::client::{Keyboard, Recipe};
use super::predictor::Predictor;
use super::reader::CONTEXT;
use crate::public::PublicModel;
use crate::suggest::{Next, NextChar, Search, end_of_word, partial_word, suggest};

/// Characters typed before the first training: about two minutes of typing.
pub const RECORDS: usize = 400;

/// Characters of a line, which is a batch here: about what a person types before Enter.
const LINE: usize = 40;

/// How little text there is to learn from at a time asks for small steps over it many times.
pub fn recipe(seed: u32) -> Recipe {
    Recipe { rate: 1e-3, passes: 5, batch: 1, seed }
}

/// A word that is suggested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The whole word, as it is shown.
    pub word: String,
    /// What it adds to the text; it begins with a space after a word that is finished.
    pub adds: String,
}

/// Characters that were typed, and the keys that they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// In lines, their ends counted.
    pub characters: usize,
    /// Keys pressed.
    pub pressed: usize,
}

/// How a person types.
pub enum Input<'a> {
    /// Key by key, on the terminal of this process.
    Keys,
    /// Line by line.
    Lines(&'a mut dyn BufRead),
}

/// The device of a person who types.
pub struct Session<'a> {
    public: &'a PublicModel,
    predictor: Predictor,
    keyboard: Keyboard,
    /// Where the device is kept.
    file: &'a Path,
    /// Tokens of the lines before.
    before: Vec<u32>,
    /// Tokens that were read last, and what the model expects after the first of them that are
    /// context, and after each one more: most keys add one to what was read before.
    read: (Vec<u32>, Vec<Next<<Predictor as NextChar>::State>>),
}

/// Lets a person type until they or the input end it. The client trains every `records`
/// characters, and is kept in a file after every line; if the file is there, it goes on from it.
pub fn run(
    device: &Device,
    public: &Arc<PublicModel>,
    file: &Path,
    records: usize,
    recipe: Recipe,
    input: Input<'_>,
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
    let read = (Vec::new(), Vec::new());
    let mut session = Session { public, predictor, keyboard, file, before, read };
    let help = match &input {
        Input::Keys => terminal::HELP,
        Input::Lines(_) => lines::HELP,
    };
    writeln!(out, "\n{help}\nIt learns after {} characters.\n", session.keyboard.missing())?;
    let Typed { characters, pressed } = match input {
        Input::Keys => terminal::talk(session, out)?,
        Input::Lines(input) => lines::talk(&mut session, input, out)?,
    };
    let saved = 100.0 * (1.0 - pressed as f64 / characters.max(1) as f64);
    writeln!(out, "\n{characters} characters with {pressed} keystrokes: {saved:.0} % saved.")?;
    if let (true, Some(folder)) = (file.exists(), file.parent()) {
        writeln!(out, "What it learned stays here; `--out {}` goes on.", folder.display())?;
    }
    Ok(())
}

impl Session<'_> {
    /// Whether a character is one of the model's.
    pub fn knows(&self) -> impl Fn(char) -> bool + Send + Clone + use<> {
        let alphabet = self.public.card.alphabet.clone();
        move |c| alphabet.char(alphabet.token(c)).is_some()
    }

    /// What the model in use suggests after `line`, the most probable first: how the word that
    /// is begun goes on, or the next word where the model expects this one to be over.
    pub fn suggestions(&mut self, line: &str) -> Result<Vec<Offer>> {
        let alphabet = &self.public.card.alphabet;
        let next = self.read(line)?;
        let begins = line.is_empty() || line.ends_with(char::is_whitespace);
        let finished = !begins && end_of_word(&next.log_probs, alphabet) > 0.5;
        let begun = if finished { "" } else { partial_word(line) };
        let gap = if finished { " " } else { "" };
        let next = if finished { self.read(&format!("{line} "))? } else { next };
        let places = [(&next, !begun.is_empty())];
        let alphabet = &self.public.card.alphabet;
        let found = suggest(&mut self.predictor, alphabet, &places, &Search::default())?;
        let offer =
            |rest: &str| Offer { word: format!("{begun}{rest}"), adds: format!("{gap}{rest}") };
        Ok(found.iter().flatten().map(|word| offer(&word.rest)).collect())
    }

    /// What the model expects after a line.
    fn read(&mut self, line: &str) -> Result<Next<<Predictor as NextChar>::State>> {
        let tokens = [self.before.clone(), self.public.card.alphabet.encode(line)].concat();
        let context = self.before.len();
        let (known, states) = &mut self.read;
        let same = tokens.iter().zip(known.iter()).take_while(|(a, b)| a == b).count();
        states.truncate((same + 1).saturating_sub(context));
        if states.is_empty() {
            states.extend(self.predictor.start(&[&self.before])?);
        }
        for token in &tokens[context + states.len() - 1..] {
            let last = states.last().map(|next| next.state.clone());
            let last = last.iter().collect::<Vec<_>>();
            states.extend(self.predictor.step(&last, &[*token])?);
        }
        *known = tokens;
        states.last().cloned().ok_or_else(|| anyhow::anyhow!("the model read nothing"))
    }

    /// 1.5: a line becomes records; 1.6 to 1.8 follow when there are enough. Tells of it.
    pub fn end_line(
        &mut self,
        line: &str,
        tell: &mut dyn FnMut(String) -> Result<()>,
    ) -> Result<()> {
        let text = self.public.card.alphabet.encode(&format!("{line}\n"));
        self.keyboard.type_text(&text)?;
        self.before.extend(&text);
        self.before.drain(..self.before.len().saturating_sub(CONTEXT));
        self.read.1.clear();
        if self.keyboard.is_ready() {
            let words = |offers: Vec<Offer>| {
                offers.into_iter().map(|offer| offer.word).collect::<Vec<_>>().join(", ")
            };
            let old = words(self.suggestions("")?);
            let Some(round) = self.keyboard.customize(&mut || {})? else { return Ok(()) };
            self.predictor.set_weights(self.keyboard.weights())?;
            self.read.1.clear();
            let new = words(self.suggestions("")?);
            tell(format!(
                "\nLearned from {} characters in {:.1} s; loss on those held back {:.2}, before {:.2}: {}.",
                round.records,
                round.work.seconds,
                round.loss_after,
                round.loss_before,
                if round.adopted { "adopted" } else { "not adopted" }
            ))?;
            tell(format!("A line would have begun with {old}; now with {new}.\n"))?;
        }
        self.keyboard.save(self.file)?;
        tell(format!("({} characters until it learns again)", self.keyboard.missing()))
    }
}
