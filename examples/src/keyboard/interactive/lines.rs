//! Typing line by line, where the input is no terminal.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};

use super::{Offer, Session, Typed};

/// How it is done.
pub const HELP: &str = "Type, and press Enter to see how the word could go on; \
what you type is taken as it stands, spaces included.\n\
:1 :2 :3 take a suggestion, Enter alone ends the line, :q ends the session.";

/// Lets a person type until `:q` or the end of the input.
pub fn talk(
    session: &mut Session<'_>,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<Typed> {
    let (mut line, mut typed) = (String::new(), Typed::default());
    let mut add = |line: &mut String, text: &str, keys: usize| {
        line.push_str(text);
        typed.characters += text.chars().count();
        typed.pressed += keys;
    };
    loop {
        let offers = session.suggestions(&line)?;
        show(&line, &offers, out)?;
        let mut entered = String::new();
        if input.read_line(&mut entered).context("reading what you type")? == 0 {
            return Ok(typed);
        }
        match entered.trim_end_matches(['\n', '\r']) {
            ":q" => return Ok(typed),
            "" => {
                session.end_line(&line, &mut |said| Ok(writeln!(out, "{said}")?))?;
                add(&mut line, "\n", 1);
                line.clear();
            }
            entered @ (":1" | ":2" | ":3") => {
                let at = usize::from(entered.as_bytes()[1] - b'1');
                match offers.get(at) {
                    Some(offer) => add(&mut line, &format!("{} ", offer.adds), 1),
                    None => writeln!(out, "There is no suggestion {}.", at + 1)?,
                }
            }
            text => add(&mut line, text, text.chars().count()),
        }
    }
}

fn show(line: &str, offers: &[Offer], out: &mut dyn Write) -> Result<()> {
    let numbered = offers.iter().zip(1..).map(|(offer, at)| format!(":{at} {}", offer.word));
    writeln!(out, "    {}", numbered.collect::<Vec<_>>().join("   "))?;
    write!(out, "{line}")?;
    Ok(out.flush()?)
}
