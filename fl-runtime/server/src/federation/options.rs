//! What the operator of a server chooses beside the plan; may change from start to start.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use tern_protocol::metrics::Metrics;
use tern_protocol::{ClientId, Digest, Result, RunId, Strategy};

use tern_host::files::{Durability, Faults};

/// Who may take part.
#[derive(Clone, Debug, Default)]
pub enum Admission {
    /// Everyone.
    #[default]
    Open,
    /// Who knows a token.
    Token(String),
    /// These.
    List(Vec<ClientId>),
}

impl Admission {
    fn admits(&self, client: &ClientId, token: Option<&str>) -> bool {
        match self {
            Admission::Open => true,
            // Digests, so that neither time nor length tells anything.
            Admission::Token(expected) => token.is_some_and(|token| {
                let digests = [token, expected].map(|text| Digest::of(text.as_bytes()).0);
                digests[0].ct_eq(&digests[1]).into()
            }),
            Admission::List(list) => list.contains(client),
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

    /// Whether a client that asks with this token, if any, may be registered.
    pub(super) fn admits(&self, client: &ClientId, token: Option<&str>) -> bool {
        !self.revoked.contains(client) && self.admission.admits(client, token)
    }

    /// Whether one that was registered still is; tokens are asked for once.
    pub(super) fn keeps(&self, client: &ClientId) -> bool {
        let listed = match &self.admission {
            Admission::List(list) => list.contains(client),
            Admission::Open | Admission::Token(_) => true,
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
        let ann = ClientId([1; 32]);
        let token = Admission::Token("secret".into());
        assert!(token.admits(&ann, Some("secret")));
        assert!(!token.admits(&ann, Some("secreu")) && !token.admits(&ann, None));
        assert!(Admission::List(vec![ann]).admits(&ann, None));
        assert!(!Admission::List(vec![]).admits(&ann, Some("secret")));
        let revoked = Options { admission: token, revoked: vec![ann], ..Options::default() };
        assert!(!revoked.admits(&ann, Some("secret")) && !revoked.keeps(&ann));
    }
}
