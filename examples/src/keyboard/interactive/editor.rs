//! The line that is being typed: keys in, text and suggestions out. It knows no terminal.

use unicode_width::UnicodeWidthChar;

use super::{Offer, Typed};
use crate::suggest::in_word;

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Takes the marked suggestion.
    Take,
    /// Marks the next suggestion.
    Next,
    /// Marks the one before.
    Previous,
    /// A character to the left.
    Left,
    /// A character to the right.
    Right,
    /// To the line's beginning.
    Home,
    /// To the line's end.
    End,
    /// Removes what is left of the cursor.
    Backspace,
    /// Removes what is right of the cursor.
    Delete,
    /// Removes the line.
    Clear,
    /// Ends the line.
    Enter,
    /// Ends the session.
    Quit,
}

/// What a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Text and cursor are as they were.
    Nothing,
    /// Other suggestions are due, by [`Editor::asks`].
    Moved,
    /// A line ended.
    Line(String),
    /// The session ends.
    Quit,
}

/// A line, a cursor in it, and suggestions for where the cursor is.
#[derive(Debug, Default)]
pub struct Editor {
    line: String,
    /// The byte of the line that it stands before.
    cursor: usize,
    offers: Vec<Offer>,
    marked: usize,
    /// Whether the space before the cursor came with a word that was taken.
    spaced: bool,
    /// Of lines that ended, and of all keys.
    typed: Typed,
}

impl Editor {
    /// The line as it is.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The byte of the line that the cursor stands before.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// The suggestions, and which of them Tab takes.
    pub fn offers(&self) -> (&[Offer], usize) {
        (&self.offers, self.marked)
    }

    /// What was typed so far, the line included.
    pub fn typed(&self) -> Typed {
        let characters = self.typed.characters + self.line.chars().count();
        Typed { characters, ..self.typed }
    }

    /// The text to suggest words for; none inside a word.
    pub fn asks(&self) -> Option<&str> {
        let inside = self.line[self.cursor..].chars().next().is_some_and(in_word);
        (!inside).then(|| &self.line[..self.cursor])
    }

    /// Takes the suggestions that [`Editor::asks`] asked for.
    pub fn offer(&mut self, offers: Vec<Offer>) {
        self.marked = 0;
        self.offers = offers;
    }

    /// What a key does.
    pub fn press(&mut self, key: Key) -> Outcome {
        if key != Key::Quit {
            self.typed.pressed += 1;
        }
        let spaced = std::mem::take(&mut self.spaced);
        match key {
            Key::Char(c) if c.is_control() => Outcome::Nothing,
            Key::Char(c) => {
                self.insert(c, spaced);
                Outcome::Moved
            }
            Key::Take => self.take(spaced),
            Key::Next | Key::Previous => {
                let count = self.offers.len().max(1);
                let step = if key == Key::Next { 1 } else { count - 1 };
                self.marked = (self.marked + step) % count;
                self.spaced = spaced;
                Outcome::Nothing
            }
            Key::Left => self.go(self.left()),
            Key::Right => self.go(self.right()),
            Key::Home => self.go(0),
            Key::End => self.go(self.line.len()),
            Key::Backspace => self.remove(self.left()..self.cursor),
            Key::Delete => self.remove(self.cursor..self.right()),
            Key::Clear => self.remove(0..self.line.len()),
            // Nothing is learned from nothing.
            Key::Enter if self.line.is_empty() => Outcome::Nothing,
            Key::Enter => {
                self.typed.characters += self.line.chars().count() + 1;
                self.go(0);
                Outcome::Line(std::mem::take(&mut self.line))
            }
            Key::Quit => Outcome::Quit,
        }
    }

    fn insert(&mut self, c: char, spaced: bool) {
        // Of "word ," the space goes.
        if spaced && matches!(c, '.' | ',' | ';' | ':' | '!' | '?') {
            self.cursor -= 1;
            self.line.remove(self.cursor);
        }
        self.line.insert(self.cursor, c);
        self.cursor += c.len_utf8();
        // Words that go on with the character stand until others are found.
        self.offers.retain_mut(|offer| match offer.adds.strip_prefix(c) {
            Some(rest) => {
                let goes_on = !rest.is_empty();
                offer.adds = rest.to_owned();
                goes_on
            }
            None => false,
        });
        self.marked = 0;
    }

    /// Puts the marked word into the line, and a space after it where none is.
    fn take(&mut self, spaced: bool) -> Outcome {
        let Some(offer) = self.offers.get(self.marked) else {
            self.spaced = spaced;
            return Outcome::Nothing;
        };
        self.line.insert_str(self.cursor, &offer.adds);
        let end = self.cursor + offer.adds.len();
        self.spaced = !self.line[end..].starts_with(' ');
        if self.spaced {
            self.line.insert(end, ' ');
        }
        self.go(end + 1)
    }

    fn go(&mut self, to: usize) -> Outcome {
        self.cursor = to;
        self.offer(Vec::new());
        Outcome::Moved
    }

    fn remove(&mut self, part: std::ops::Range<usize>) -> Outcome {
        if part.is_empty() {
            return Outcome::Nothing;
        }
        let start = part.start;
        self.line.replace_range(part, "");
        self.go(start)
    }

    /// Where the character left of the cursor begins, with the marks that stand on it.
    fn left(&self) -> usize {
        let before = self.line[..self.cursor].char_indices().rev();
        let mut marks = before.skip_while(|(_, c)| c.width() == Some(0));
        marks.next().map_or(0, |(at, _)| at)
    }

    /// Where the character right of the cursor ends, with the marks that stand on it.
    fn right(&self) -> usize {
        let after = self.line[self.cursor..].char_indices().skip(1);
        let mut next = after.skip_while(|(_, c)| c.width() == Some(0));
        next.next().map_or(self.line.len(), |(at, _)| self.cursor + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(word: &str, adds: &str) -> Offer {
        Offer { word: word.into(), adds: adds.into() }
    }

    fn type_text(editor: &mut Editor, text: &str) {
        for c in text.chars() {
            assert_eq!(editor.press(Key::Char(c)), Outcome::Moved);
        }
    }

    #[test]
    fn a_suggestion_taken_costs_one_key_and_brings_a_space() {
        let mut editor = Editor::default();
        type_text(&mut editor, "the gov");
        assert_eq!(editor.asks(), Some("the gov"));
        editor.offer(vec![offer("governor", "ernor"), offer("government", "ernment")]);
        assert_eq!(editor.press(Key::Next), Outcome::Nothing);
        assert_eq!(editor.press(Key::Take), Outcome::Moved);
        assert_eq!((editor.line(), editor.cursor()), ("the government ", 15));
        assert_eq!(editor.typed(), Typed { characters: 15, pressed: 9 });
        assert!(editor.offers().0.is_empty(), "they were for another place");
        assert_eq!(editor.press(Key::Take), Outcome::Nothing);
        // A point belongs to the word, another word doesn't.
        editor.press(Key::Char('.'));
        assert_eq!(editor.line(), "the government.");
        editor.offer(vec![offer("It", " It")]);
        editor.press(Key::Take);
        type_text(&mut editor, "i");
        assert_eq!(editor.line(), "the government. It i");
    }

    #[test]
    fn marks_go_round() {
        let mut editor = Editor::default();
        assert_eq!(editor.press(Key::Previous), Outcome::Nothing);
        editor.offer(vec![offer("a", "a"), offer("b", "b"), offer("c", "c")]);
        let marked = |editor: &mut Editor, key| {
            editor.press(key);
            editor.offers().1
        };
        let keys = [Key::Previous, Key::Next, Key::Next, Key::Previous];
        assert_eq!(keys.map(|key| marked(&mut editor, key)), [2, 0, 1, 0]);
    }

    #[test]
    fn words_that_go_on_with_a_character_stand_until_others_come() {
        let mut editor = Editor::default();
        type_text(&mut editor, "go");
        editor.offer(vec![offer("government", "vernment"), offer("gold", "ld"), offer("gov", "v")]);
        editor.press(Key::Char('v'));
        assert_eq!(editor.offers(), (&[offer("government", "ernment")][..], 0));
        editor.press(Key::Backspace);
        assert!(editor.offers().0.is_empty());
    }

    #[test]
    fn the_line_is_edited_anywhere_and_by_whole_characters() {
        let mut editor = Editor::default();
        // The last has its accent as a character of its own.
        type_text(&mut editor, "naïve 你e\u{301}");
        for (key, line) in [
            (Key::Backspace, "naïve 你"),
            (Key::Backspace, "naïve "),
            (Key::Home, "naïve "),
            (Key::Delete, "aïve "),
            (Key::Right, "aïve "),
            (Key::Delete, "ave "),
            (Key::Char('ï'), "aïve "),
            (Key::Left, "aïve "),
            (Key::Backspace, "ïve "),
            (Key::End, "ïve "),
            (Key::Char('x'), "ïve x"),
            (Key::Delete, "ïve x"),
            (Key::Clear, ""),
            (Key::Backspace, ""),
            (Key::Left, ""),
            (Key::Right, ""),
            (Key::Char('\u{7}'), ""),
        ] {
            editor.press(key);
            assert_eq!(editor.line(), line, "{key:?}");
            assert!(editor.line().is_char_boundary(editor.cursor()));
        }
        type_text(&mut editor, "e\u{301}a");
        editor.press(Key::Home);
        editor.press(Key::Right);
        assert_eq!(editor.cursor(), 3);
    }

    #[test]
    fn nothing_is_suggested_inside_a_word_and_no_second_space_is_added() {
        let mut editor = Editor::default();
        type_text(&mut editor, "a to you");
        (0..4).for_each(|_| drop(editor.press(Key::Left)));
        assert_eq!(editor.asks(), Some("a to"));
        editor.offer(vec![offer("town", "wn")]);
        editor.press(Key::Take);
        assert_eq!((editor.line(), editor.cursor()), ("a town you", 7));
        editor.press(Key::Char(','));
        assert_eq!(editor.line(), "a town ,you", "the space wasn't the word's");
        editor.press(Key::Left);
        editor.press(Key::Left);
        editor.press(Key::Left);
        assert_eq!(editor.asks(), None);
    }

    #[test]
    fn enter_ends_the_line() {
        let mut editor = Editor::default();
        assert_eq!(editor.press(Key::Enter), Outcome::Nothing);
        type_text(&mut editor, "so");
        editor.press(Key::Left);
        assert_eq!(editor.press(Key::Enter), Outcome::Line("so".into()));
        assert_eq!((editor.line(), editor.cursor(), editor.asks()), ("", 0, Some("")));
        assert_eq!(editor.press(Key::Quit), Outcome::Quit);
        assert_eq!(editor.typed(), Typed { characters: 3, pressed: 5 });
    }
}
