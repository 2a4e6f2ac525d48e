//! Clients that enroll by tokens, and strangers that try to.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use tern_fl::ClientId;
use tern_fl::server::federation::{Federation, Token};

use super::{World, id, key};

/// What strangers may have got hold of, for so many of them.
const SPARE: &str = "spare";
const SPARE_CLIENTS: u32 = 1;
/// Strangers there are.
const STRANGERS: u64 = 4;

/// A client's own.
pub(super) fn token(client: usize) -> String {
    format!("token of client {client}")
}

/// Those of a server.
pub(super) fn tokens(clients: usize) -> Vec<Token> {
    let own = (0..clients).map(|client| {
        let only = Some(id(&key(client)));
        Token { client: only, ..Token::new(&token(client), 1) }
    });
    own.chain([Token::new(SPARE, SPARE_CLIENTS)]).collect()
}

/// Those that were let in.
#[derive(Default)]
pub(super) struct Strangers(BTreeSet<ClientId>);

impl Strangers {
    /// Who was told to be enrolled is, and they are no more than the token is for.
    pub fn check(&self, server: &Federation) {
        assert!(self.0.len() <= SPARE_CLIENTS as usize, "{:?} are let in", self.0);
        assert!(self.0.iter().all(|client| server.is_enrolled(client)), "{:?}", self.0);
    }

    /// A journal was repaired, which may have lost who came last.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

impl World {
    /// Somebody tries a token, of a client or the spare one.
    pub(super) fn a_stranger_comes(&mut self) {
        let number = self.random.below(STRANGERS);
        let stranger = id(&SigningKey::from_bytes(&[200 + number as u8; 32]));
        let of = self.random.below(2 * self.setup.clients as u64) as usize;
        let text = if of < self.setup.clients { token(of) } else { SPARE.into() };
        let enrolled = self.on_server(|server, time| server.enroll(time, stranger, Some(&text)));
        match enrolled {
            Some(Ok(())) => {
                self.say(|| format!("stranger {number} is let in by {text}"));
                self.summary.note("strangers let in");
                self.strangers.0.insert(stranger);
                let server = self.server.as_ref().unwrap();
                self.strangers.check(server);
            }
            Some(Err(_)) => self.summary.note("strangers sent away"),
            None => {}
        }
    }
}
