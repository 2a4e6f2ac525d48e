//! `tern tokens`: what clients enroll with.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use tern_fl::ClientId;
use tern_fl::config::new_token;
use tern_fl::server::federation::Token;
use tern_fl::server::http::Origin;

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
    /// Prints, for each token, the link by which a browser takes part at this server
    /// (`tern server --page`): https://host:port.
    #[arg(long, value_name = "SERVER")]
    page: Option<Origin>,
    /// Prints each link as a QR code, too, for phones to read from the screen.
    #[arg(long, requires = "page")]
    qr: bool,
}

/// The page with a token. Behind `#`, which browsers don't send: it is in no log.
fn link(page: &Origin, token: &str) -> String {
    format!("{page}/page/#token={token}")
}

/// A text as a QR code in dark on light, of half blocks.
fn qr_code(text: &str) -> Result<String> {
    let code = QrCode::new(text).with_context(|| format!("`{text}` as a QR code"))?;
    // Terminals are dark as a rule: what is drawn is the light.
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Ok(code.render::<Dense1x2>().dark_color(dark).light_color(light).build())
}

/// Prints the tokens or links alone, so that they can be handed out line by line.
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
    for token in &tokens {
        let Some(page) = &options.page else {
            super::say(format_args!("{token}"));
            continue;
        };
        let link = link(page, token);
        if options.qr {
            super::say(format_args!("{}", qr_code(&link)?));
        }
        super::say(format_args!("{link}"));
    }
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

    /// What another library reads from the picture, with the quiet zone that readers need.
    #[test]
    fn a_link_comes_back_from_its_qr_code() {
        let page = "https://federation.example:8443".parse().unwrap();
        let link = link(&page, &new_token().unwrap());
        let (token, address) =
            (link.split_once("#token=").unwrap().1, "https://federation.example:8443/page/");
        assert!(link.starts_with(address) && token.len() >= 16, "{link}");
        let text = qr_code(&link).unwrap();
        // Each character is two pixels, one above the other; drawn is light.
        let rows: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        let (width, height) = (rows[0].len(), 2 * rows.len());
        assert!(rows.iter().all(|row| row.len() == width));
        let dark = |x: usize, y: usize| match rows[y / 2][x] {
            ' ' => true,
            '█' => false,
            '▀' => !y.is_multiple_of(2),
            '▄' => y.is_multiple_of(2),
            other => panic!("{other:?} in a QR code"),
        };
        let scale = 4;
        let mut picture =
            rqrr::PreparedImage::prepare_from_greyscale(width * scale, height * scale, |x, y| {
                if dark(x / scale, y / scale) { 0 } else { 255 }
            });
        let found = picture.detect_grids();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].decode().unwrap().1, link);
    }

    #[test]
    fn the_servers_file_has_what_was_drawn_and_not_the_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.txt");
        let draw = |count, clients, client| {
            let (file, page, qr) = (file.clone(), None, false);
            run(&Options { file, count, clients, client, page, qr }).unwrap();
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
