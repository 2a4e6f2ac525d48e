//! `tern tokens`: what clients enroll with.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use tern_fl::ClientId;
use tern_fl::config::new_token;
use tern_fl::server::federation::Token;

/// Draws tokens that clients enroll with, each for one client, and prints them.
///
/// The server's file (`tokens_file` in [server.admission]) has their SHA-256 alone, so that who
/// reads it can't enroll. It counts from the server's next start on. A token that was used stays so:
/// a client that is revoked doesn't come back with it.
#[derive(Args, Debug)]
pub struct Options {
    /// File of the server's tokens; lines are added to it.
    #[arg(default_value = "tokens.txt")]
    file: PathBuf,
    /// Tokens to draw.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Clients that may enroll with each of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// The public key of the only client that may enroll with it, as `tern keys` prints it.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["count", "clients"])]
    client: Option<ClientId>,
}

/// Prints the tokens alone, so that they can be handed out line by line.
pub fn run(options: &Options) -> Result<()> {
    let tokens: Vec<String> =
        (0..options.count).map(|_| new_token()).collect::<tern_fl::Result<_>>()?;
    let line = |text: &String| {
        let Token { digest, clients, .. } = Token::new(text, options.clients);
        let only = options.client.map_or(String::new(), |client| format!(" {client}"));
        format!("{digest} {clients}{only}\n")
    };
    let lines: String = tokens.iter().map(line).collect();
    let named = || options.file.display().to_string();
    let mut file =
        OpenOptions::new().create(true).append(true).open(&options.file).with_context(named)?;
    file.write_all(lines.as_bytes()).and_then(|()| file.sync_all()).with_context(named)?;
    tokens.iter().for_each(|token| super::say(format_args!("{token}")));
    Ok(())
}

/// Tokens of a file: a line's SHA-256, how many clients it is for, and the key of the only one if
/// it is for that. Lines that begin with # are comments, and so is what follows # in a line.
pub fn listed(path: &Path) -> Result<Vec<Token>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        if !line.trim().is_empty() {
            tokens.push(token(line).with_context(|| format!("{}:{number}", path.display()))?);
        }
    }
    Ok(tokens)
}

fn token(line: &str) -> Result<Token> {
    let expected = "expected a SHA-256, a number of clients, and a client's key or nothing";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (digest, clients, client) = match fields[..] {
        [digest, clients] => (digest, clients, None),
        [digest, clients, client] => (digest, clients, Some(client)),
        _ => anyhow::bail!("{} words, {expected}", fields.len()),
    };
    let clients = clients.parse().with_context(|| format!("`{clients}`, {expected}"))?;
    let client = client.map(str::parse).transpose()?;
    Ok(Token { digest: digest.parse()?, clients, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_file_has_what_was_drawn_and_not_the_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.txt");
        let draw = |count, clients, client| {
            run(&Options { file: file.clone(), count, clients, client }).unwrap();
        };
        let key = ClientId([5; 32]);
        draw(3, 2, None);
        draw(1, 1, Some(key));
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "\n# Ann's #\n").unwrap();
        let tokens = listed(&file).unwrap();
        let rest: Vec<_> = tokens.iter().map(|token| (token.clients, token.client)).collect();
        assert_eq!(rest, [(2, None), (2, None), (2, None), (1, Some(key))]);
        assert_ne!(tokens[0].digest, tokens[1].digest);
        for (line, expected) in [
            ("abc 1", "SHA-256"),
            ("x", "1 words, expected"),
            (&format!("{} many", tokens[0].digest), "`many`, expected"),
            (&format!("{} 1 key", tokens[0].digest), "client key"),
        ] {
            std::fs::write(&file, line).unwrap();
            let error = format!("{:#}", listed(&file).unwrap_err());
            assert!(error.contains("tokens.txt:1: ") && error.contains(expected), "{error}");
        }
    }
}
