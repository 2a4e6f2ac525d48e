//! What the operator of a server chooses beside the plan; may change from start to start.

use std::collections::BTreeMap;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tern_protocol::metrics::Metrics;
use tern_protocol::{ClientId, Digest, Refusal, Result, RunId, Strategy};

use tern_host::files::{Durability, Faults};

/// Who may take part.
#[derive(Clone, Debug, Default)]
pub enum Admission {
    /// Everyone.
    #[default]
    Open,
    /// Who knows a token, as many as it is for.
    Tokens(Vec<Token>),
    /// These.
    List(Vec<ClientId>),
}

/// What clients enroll with; the server needs no more than its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of it.
    pub digest: Digest,
    /// Clients that may enroll with it.
    pub clients: u32,
    /// The client that it is for; anybody who has it if not given.
    pub client: Option<ClientId>,
}

impl Token {
    /// A token for so many clients.
    pub fn new(text: &str, clients: u32) -> Self {
        Token { digest: Digest::of(text.as_bytes()), clients, client: None }
    }
}

impl Admission {
    /// Whether a client may be registered, and by which token. `used` says how many have been by
    /// one.
    fn admits(
        &self,
        client: &ClientId,
        token: Option<&str>,
        used: &BTreeMap<Digest, u32>,
    ) -> Result<Option<Digest>, Refusal> {
        match self {
            Admission::Open => Ok(None),
            Admission::Tokens(tokens) => {
                // Digests, so that neither time nor length tells anything.
                let given = Digest::of(token.unwrap_or_default().as_bytes());
                let is_given = |token: &&Token| bool::from(token.digest.0.ct_eq(&given.0));
                let found = tokens.iter().find(is_given);
                let Token { digest, clients, .. } = *found
                    .filter(|token| token.client.is_none_or(|only| only == *client))
                    .ok_or(Refusal::NotAdmitted)?;
                match used.get(&digest).is_none_or(|used| *used < clients) {
                    true => Ok(Some(digest)),
                    false => Err(Refusal::TokenUsed(clients)),
                }
            }
            Admission::List(list) if list.contains(client) => Ok(None),
            Admission::List(_) => Err(Refusal::NotAdmitted),
        }
    }
}

impl Options {
    /// With those who may take part.
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// Without these clients, whatever admits them.
    pub fn revoked(mut self, revoked: Vec<ClientId>) -> Self {
        self.revoked = revoked;
        self
    }

    /// With what acknowledged data survives.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// With at most so many bytes of bodies on disk.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// With updates that stay after their round, or without.
    pub fn keep_uploads(mut self, keep_uploads: bool) -> Self {
        self.keep_uploads = keep_uploads;
        self
    }

    /// With clients offline after so many milliseconds of silence.
    pub fn presence_ms(mut self, presence_ms: u64) -> Self {
        self.presence_ms = presence_ms;
        self
    }

    /// With an identifier of a new run, or one that is drawn.
    pub fn run(mut self, run: impl Into<Option<RunId>>) -> Self {
        self.run = run.into();
        self
    }

    /// With draws that follow from a seed, so that all of a run does: for simulations, since who
    /// knows the seed knows who will be drawn.
    pub fn simulated(mut self, seed: impl Into<Option<u32>>) -> Self {
        self.simulated = seed.into();
        self
    }

    /// With at most so many registered clients.
    pub fn max_clients(mut self, max_clients: usize) -> Self {
        self.max_clients = max_clients;
        self
    }

    /// With updates that are taken and added up by other processes, or by this one.
    pub fn fleet(mut self, fleet: bool) -> Self {
        self.fleet = fleet;
        self
    }

    /// With a strategy that the plan names.
    pub fn strategy(mut self, strategy: impl Into<Option<Arc<dyn Strategy>>>) -> Self {
        self.strategy = strategy.into();
        self
    }

    /// With central evaluation, or without.
    pub fn evaluator(mut self, evaluator: impl Into<Option<Arc<dyn Evaluator>>>) -> Self {
        self.evaluator = evaluator.into();
        self
    }

    /// With failing writes, for tests.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Whether a client that asks with this token, if any, may be registered, and by which.
    pub(super) fn admits(
        &self,
        client: &ClientId,
        token: Option<&str>,
        used: &BTreeMap<Digest, u32>,
    ) -> Result<Option<Digest>, Refusal> {
        match self.revoked.contains(client) {
            true => Err(Refusal::NotAdmitted),
            false => self.admission.admits(client, token, used),
        }
    }

    /// Whether one that was registered still is; tokens are asked for once.
    pub(super) fn keeps(&self, client: &ClientId) -> bool {
        let listed = match &self.admission {
            Admission::List(list) => list.contains(client),
            Admission::Open | Admission::Tokens(_) => true,
        };
        listed && !self.revoked.contains(client)
    }
}

/// Evaluates models on data that the server has.
pub trait Evaluator: Send + Sync {
    /// Measures a model, a flat vector: `loss`, `accuracy`.
    ///
    /// # Errors
    /// If it can't; the round waits until it can.
    fn evaluate(&self, round: u32, model: &[f32]) -> Result<Metrics>;
}

/// What the operator of a server chooses beside the plan.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Who may take part.
    pub admission: Admission,
    /// Who may not any more, whatever admits them.
    pub revoked: Vec<ClientId>,
    /// What acknowledged data survives.
    pub durability: Durability,
    /// Most bytes of bodies on disk.
    pub max_bytes: u64,
    /// Whether updates stay after their round, so that it can be checked.
    pub keep_uploads: bool,
    /// Milliseconds after which a silent client is no longer online.
    pub presence_ms: u64,
    /// Identifier of a new run; `None` draws one.
    pub run: Option<RunId>,
    /// Seed of draws in a simulation; else the system's entropy, which no client can know.
    pub simulated: Option<u32>,
    /// Most clients that are registered, whatever admits them.
    pub max_clients: usize,
    /// Whether other processes take updates and add them up: they come by
    /// [`Federation::collected`](super::Federation::collected), and their sum by
    /// [`Federation::summed`](super::Federation::summed).
    pub fleet: bool,
    /// A strategy that the plan names.
    pub strategy: Option<Arc<dyn Strategy>>,
    /// Central evaluation.
    pub evaluator: Option<Arc<dyn Evaluator>>,
    /// Failing writes, for tests.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            admission: Admission::Open,
            revoked: Vec::new(),
            durability: Durability::Process,
            max_bytes: u64::MAX,
            keep_uploads: false,
            presence_ms: 60_000,
            run: None,
            simulated: None,
            max_clients: 1 << 17,
            fleet: false,
            strategy: None,
            evaluator: None,
            faults: Faults::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_admitted_by_token_or_list() {
        let [ann, bob] = [1, 2].map(|number| ClientId([number; 32]));
        let two = Token::new("secret", 2);
        let for_ann = Token { client: Some(ann), ..Token::new("for Ann", 1) };
        let tokens = Admission::Tokens(vec![two, for_ann]);
        let mut used = BTreeMap::from([(two.digest, 1)]);
        let admits = |client, token, used: &BTreeMap<_, _>| {
            tokens.admits(client, token, used).map_err(|refusal| refusal.name())
        };
        assert_eq!(admits(&bob, Some("secret"), &used), Ok(Some(two.digest)));
        for token in [Some("secreu"), Some(""), Some("for Ann"), None] {
            assert_eq!(admits(&bob, token, &used), Err("not_admitted"), "{token:?}");
        }
        assert_eq!(admits(&ann, Some("for Ann"), &used), Ok(Some(for_ann.digest)));
        used.insert(two.digest, 2);
        assert_eq!(admits(&bob, Some("secret"), &used), Err("token_used"));
        assert_eq!(Admission::List(vec![ann]).admits(&ann, None, &used), Ok(None));
        assert!(Admission::List(vec![]).admits(&ann, Some("secret"), &used).is_err());
        let revoked = Options { admission: tokens, revoked: vec![ann], ..Options::default() };
        assert!(revoked.admits(&ann, Some("for Ann"), &used).is_err() && !revoked.keeps(&ann));
    }
}
