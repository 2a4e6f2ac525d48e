//! What a terminal shows of an [`Editor`]: the line, and the suggestions below it.

use std::io::{Result, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::editor::Editor;

/// Rows, and where the cursor is among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From the top; none is wider than the terminal.
    pub rows: Vec<String>,
    /// Row and column, from zero.
    pub cursor: (usize, usize),
}

/// A terminal's columns and rows, and whether it may have colors.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Whether to color.
    pub color: bool,
}

/// Columns that a character takes.
fn width(c: char) -> usize {
    c.width().unwrap_or(0)
}

impl Frame {
    /// What an editor looks like; `known` says which characters the model has.
    pub fn of(editor: &Editor, known: &dyn Fn(char) -> bool, size: Size) -> Self {
        // The last column stays free: terminals differ in what they do after it is written.
        let most = size.columns.saturating_sub(1).max(2);
        let mut frame = Frame { rows: vec![String::new()], cursor: (0, 0) };
        let mut column = 0;
        for (at, c) in editor.line().char_indices() {
            if column + width(c) > most {
                frame.rows.push(String::new());
                column = 0;
            }
            if at == editor.cursor() {
                frame.cursor = (frame.rows.len() - 1, column);
            }
            frame.rows.last_mut().into_iter().for_each(|row| row.push(c));
            column += width(c);
        }
        if editor.cursor() == editor.line().len() {
            frame.cursor = (frame.rows.len() - 1, column);
        }
        if let Some(unknown) = editor.line().chars().find(|c| !known(*c)) {
            let note = format!(
                "({unknown} is unknown to the model, which learns that something was there)"
            );
            frame.words(note.split(' ').map(|word| (word.to_owned(), word.to_owned())), most);
        }
        let (offers, marked) = editor.offers();
        let words = offers.iter().enumerate().map(|(at, offer)| {
            let shown = cut(&offer.word, most.saturating_sub(2).max(1));
            let shown = if at == marked { format!("[{shown}]") } else { format!(" {shown} ") };
            let colored = match (size.color, at == marked) {
                (false, _) => shown.clone(),
                (true, true) => format!("\x1b[36m{shown}\x1b[0m"),
                (true, false) => format!("\x1b[90m{shown}\x1b[0m"),
            };
            (shown, colored)
        });
        frame.words(words, most);
        frame.fit(size.rows)
    }

    /// Adds words, in as many rows as they need: as they count, and as they are written.
    fn words(&mut self, words: impl Iterator<Item = (String, String)>, most: usize) {
        let mut column = usize::MAX;
        for (counted, written) in words {
            let wide = counted.width();
            match self.rows.last_mut() {
                Some(row) if column.saturating_add(1 + wide) <= most => {
                    *row += &format!(" {written}");
                    column += 1 + wide;
                }
                _ => {
                    self.rows.push(written);
                    column = wide;
                }
            }
        }
    }

    /// Leaves out rows at the top, but not the cursor's, then at the end, until `rows` are left.
    fn fit(mut self, rows: usize) -> Self {
        let above = self.rows.len().saturating_sub(rows.max(1)).min(self.cursor.0);
        self.rows.drain(..above);
        self.rows.truncate(rows.max(1));
        self.cursor.0 -= above;
        self
    }
}

/// The beginning of a text, in so many columns.
fn cut(text: &str, columns: usize) -> String {
    let mut left = columns;
    let fits = |c: &char| {
        let fits = width(*c) <= left;
        left = left.saturating_sub(width(*c));
        fits
    };
    text.chars().take_while(fits).collect()
}

/// A frame on a terminal, and what is said above it.
#[derive(Debug, Default)]
pub struct Screen {
    /// The frame that is shown.
    shown: Option<Frame>,
}

impl Screen {
    /// Removes the frame.
    fn clear(&mut self, out: &mut dyn Write) -> Result<()> {
        match self.shown.take().map_or(0, |frame| frame.cursor.0) {
            0 => {}
            row => write!(out, "\x1b[{row}A")?,
        }
        write!(out, "\r\x1b[J")
    }

    /// Replaces the frame by another.
    pub fn show(&mut self, frame: Frame, out: &mut dyn Write) -> Result<()> {
        if self.shown.as_ref() == Some(&frame) {
            return Ok(());
        }
        self.clear(out)?;
        write!(out, "{}", frame.rows.join("\r\n"))?;
        let (row, column) = frame.cursor;
        let below = frame.rows.len().saturating_sub(1 + row);
        if below > 0 {
            write!(out, "\x1b[{below}A")?;
        }
        write!(out, "\r")?;
        if column > 0 {
            write!(out, "\x1b[{column}C")?;
        }
        self.shown = Some(frame);
        out.flush()
    }

    /// Writes lines that stay, in place of the frame, which is below them when it is shown again.
    pub fn say(&mut self, text: &str, out: &mut dyn Write) -> Result<()> {
        self.clear(out)?;
        text.split('\n').try_for_each(|line| write!(out, "{line}\r\n"))?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Offer;
    use super::super::editor::Key;
    use super::*;

    fn editor(text: &str, words: &[&str]) -> Editor {
        let mut editor = Editor::default();
        text.chars().for_each(|c| drop(editor.press(Key::Char(c))));
        let offer = |word: &&str| Offer { word: (*word).into(), adds: (*word).into() };
        editor.offer(words.iter().map(offer).collect());
        editor
    }

    const WIDE: Size = Size { columns: 80, rows: 24, color: false };

    #[test]
    fn suggestions_are_below_the_line_with_one_marked() {
        let mut editor = editor("the go", &["good", "government", "go"]);
        editor.press(Key::Next);
        let frame = Frame::of(&editor, &|_| true, WIDE);
        assert_eq!(frame.rows, ["the go", " good  [government]  go "]);
        assert_eq!(frame.cursor, (0, 6));
        let colored = Frame::of(&editor, &|_| true, Size { color: true, ..WIDE });
        assert_eq!(colored.rows[1].matches("\x1b[0m").count(), 3);
        assert!(colored.rows[1].contains("\x1b[36m[government]\x1b[0m"));
    }

    #[test]
    fn characters_outside_the_alphabet_are_told_of() {
        let frame = Frame::of(&editor("да ok", &[]), &|c| c.is_ascii(), WIDE);
        assert!(frame.rows[1].starts_with("(д is unknown to the model"), "{frame:?}");
        assert_eq!(Frame::of(&editor("ok", &[]), &|c| c.is_ascii(), WIDE).rows, ["ok"]);
    }

    #[test]
    fn no_row_is_wider_than_the_terminal_and_the_cursor_is_where_it_should_be() {
        let text = "so 你好吗 it goes, e\u{301} and on and on";
        for columns in 1..40 {
            let size = Size { columns, rows: 24, color: false };
            let mut editor = editor(text, &["government", "governors", "你好吗"]);
            let frame = Frame::of(&editor, &|c| c.is_ascii(), size);
            let most = columns.saturating_sub(1).max(2);
            // What can't be divided may be wider than a terminal of a few columns.
            for row in frame.rows.iter().filter(|_| columns > 14) {
                assert!(row.width() <= most, "{row:?} in {columns}");
            }
            let joined = Frame::of(&editor, &|_| true, Size { rows: 99, ..size }).rows.concat();
            assert!(joined.starts_with(text), "{joined}");
            // Over all places, the cursor has exactly what is before it above and left of it.
            editor.press(Key::Home);
            while editor.cursor() < text.len() {
                let frame = Frame::of(&editor, &|_| true, Size { rows: 99, ..size });
                let (row, column) = frame.cursor;
                let above: usize = frame.rows[..row].iter().map(|row| row.width()).sum();
                assert_eq!(above + column, text[..editor.cursor()].width(), "{columns}");
                editor.press(Key::Right);
            }
        }
    }

    #[test]
    fn a_low_terminal_shows_the_cursors_row() {
        let size = Size { columns: 6, rows: 3, color: false };
        let mut editor = editor("aaaaabbbbbcccccddddd", &["e"]);
        let frame = Frame::of(&editor, &|_| true, size);
        assert_eq!(
            (frame.rows.clone(), frame.cursor.0),
            (vec!["ccccc".into(), "ddddd".into(), "[e]".into()], 1)
        );
        editor.press(Key::Home);
        let frame = Frame::of(&editor, &|_| true, size);
        assert_eq!((frame.rows[0].as_str(), frame.cursor, frame.rows.len()), ("aaaaa", (0, 0), 3));
    }

    #[test]
    fn a_frame_is_replaced_from_its_first_row() {
        let mut screen = Screen::default();
        let mut show = |rows: &[&str], cursor| {
            let mut out = Vec::new();
            let rows = rows.iter().map(|row| (*row).to_owned()).collect();
            screen.show(Frame { rows, cursor }, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(show(&["ab", "c", "[d]"], (1, 1)), "\r\x1b[Jab\r\nc\r\n[d]\x1b[1A\r\x1b[1C");
        assert_eq!(show(&["a"], (0, 0)), "\x1b[1A\r\x1b[Ja\r");
        assert_eq!(show(&["a"], (0, 0)), "", "it is there already");
        let mut out = Vec::new();
        screen.say("one\ntwo", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\r\x1b[Jone\r\ntwo\r\n");
    }
}
