//! A gateway behind HTTP.

use std::sync::PoisonError;

use tern_protocol::auth::{AuthError, Credentials};
use tern_protocol::coordinator::{Event, Progress, Upload};
use tern_protocol::layout::Layout;
use tern_protocol::plan::Task;
use tern_protocol::update::{Format, Kind};
use tern_protocol::wire::instruction::What;
use tern_protocol::{ClientId, Digest, Millis, Refusal, Result, RunPlan, StartId, Turn, wire};
use tern_server::federation::{Incoming, Received, Status};
use tern_server::http::Backend;
use tern_server::journal::CommittedRound;
use tern_server::storage::{Bodies as _, Ledger as _};
use tokio::sync::watch;

use super::Gateway;
use crate::PgLedger;
use crate::error::stored;
use crate::members::{Outcome, SMALL, Taken};
use crate::objects::whole;
use crate::requests::Asked;
use crate::traces::Span;

impl Gateway {
    fn known(&self, client: &ClientId) -> Result<(), Refusal> {
        match self.is_enrolled(client) || self.looks_up(client)? {
            true => Ok(()),
            false => Err(Refusal::Unknown(*client)),
        }
    }

    fn learn(&self, client: ClientId) {
        self.clients.write().unwrap_or_else(PoisonError::into_inner).0.insert(client);
    }

    /// What an update is that the attempt has of a client: the same one or another.
    fn again(there: &wire::Finish, given: &wire::Finish) -> Result<wire::Ack, Refusal> {
        match there == given {
            true => Ok(wire::Ack { repeated: true }),
            false => Err(Refusal::Conflict("upload")),
        }
    }

    /// Why the coordinator, as it is after this write, refuses what the leader refused.
    fn refusal(&self, sequence: i64, event: Event) -> Refusal {
        self.database.wait(self.follow_to(sequence));
        let (mut coordinator, now) = self.look(|found| (found.clone(), found.now()));
        match coordinator.handle(now, event) {
            Err(refusal) => refusal,
            Ok(_) => Refusal::Storage("not taken by the leader, try again".into()),
        }
    }

    /// A checked body is stored, and its client's membership decided.
    fn take(&self, received: &Received, finish: wire::Finish) -> Result<Outcome, Refusal> {
        let Received { incoming, digest } = received;
        let (turn, client) = (incoming.turn(), *incoming.client());
        let body = match incoming.len() <= SMALL {
            true => Some(whole(incoming.partial()).map_err(stored)?),
            false => {
                // Stored before anybody may count it.
                self.objects.accept(incoming.partial(), turn, &client, digest).map_err(stored)?;
                None
            }
        };
        let taken = Taken { client, digest: *digest, bytes: incoming.len(), finish, body };
        self.database.wait(self.members.ask((turn, taken)))
    }
}

impl Backend for Gateway {
    fn plan(&self) -> &RunPlan {
        &self.plan
    }

    fn task(&self) -> &Task {
        &self.task
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn since(&self) -> Millis {
        // Nonces outlive a gateway: what was signed before it started may come.
        Millis(0)
    }

    fn is_enrolled(&self, client: &ClientId) -> bool {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).0.contains(client)
    }

    fn looks_up(&self, client: &ClientId) -> Result<bool, Refusal> {
        let found = self.database.wait(self.database.is_registered(client)).map_err(stored)?;
        if found {
            self.learn(*client);
        }
        Ok(found)
    }

    fn admit(&self, credentials: &Credentials) -> Result<(), AuthError> {
        let nonce = (credentials.key, credentials.nonce);
        match self.database.wait(self.nonces.ask(nonce)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(AuthError::Replayed),
            // Nobody knows then whether it was used, and nothing could be stored either.
            Err(error) => {
                tracing::warn!(%error, "taking a nonce");
                Err(AuthError::Replayed)
            }
        }
    }

    fn start(&self) -> Option<StartId> {
        // Nonces outlive a gateway: a run has one start.
        Some(StartId(self.task.run.0))
    }

    fn enroll(&self, client: ClientId, token: Option<&str>) -> Result<(), Refusal> {
        if self.known(&client).is_ok() {
            return Ok(());
        }
        let enroll = wire::Enroll { token: token.unwrap_or_default().into() };
        let asked = Asked::Enroll(enroll);
        let answer = self.database.wait(self.answers.ask(&client, &asked))?;
        let unclear = || Refusal::Storage(format!("not registered: {}, try again", answer.outcome));
        answer.taken().ok_or_else(unclear)??;
        self.learn(client);
        Ok(())
    }

    fn check_process(&self, client: &ClientId, process: u64) -> Result<(), Refusal> {
        self.known(client)?;
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        match process == 0 || processes.goes_on(*client, process) {
            true => Ok(()),
            false => Err(Refusal::Copied(*client)),
        }
    }

    fn poll(&self, client: &ClientId, samples: u32) -> Result<wire::Instruction, Refusal> {
        self.known(client)?;
        self.noted.heard(*client, samples.min(self.plan.updates.max_samples));
        let now = self.database.now();
        let (mut instruction, turn) = {
            let follower = self.follower();
            let coordinator = &follower.coordinator;
            let mut instruction = coordinator.instruction(client);
            instruction.version = follower.sequence as u64;
            instruction.remaining = coordinator.deadline().map_or(0, |end| end.since(now).max(1));
            (instruction, coordinator.turn())
        };
        // The coordinator hears of updates once the attempt is closed.
        if matches!(instruction.what, Some(What::Train(_)))
            && self.database.wait(self.database.member(turn, client)).map_err(stored)?.is_some()
        {
            instruction.what = Some(What::Wait(wire::Wait {}));
        }
        Ok(instruction)
    }

    fn message(&self, client: &ClientId, message: wire::Message) -> Result<wire::Ack, Refusal> {
        self.known(client)?;
        let asked = Asked::Message(message.clone());
        let answer = self.database.wait(self.answers.ask(client, &asked))?;
        match answer.taken() {
            Some(Ok(repeated)) => {
                // What it is told next follows on this.
                self.database.wait(self.follow_to(answer.sequence));
                Ok(wire::Ack { repeated })
            }
            Some(Err(refusal)) => Err(refusal),
            None => {
                let event = Event::Message { client: *client, message };
                Err(self.refusal(answer.sequence, event))
            }
        }
    }

    fn incoming(&self, client: &ClientId, turn: Turn) -> Result<Incoming, Refusal> {
        self.known(client)?;
        let checked = || self.look(|coordinator| coordinator.check_upload(client, turn, None));
        if checked().is_err() {
            // Another gateway may have asked for it that is ahead of this one.
            self.database.wait(self.follow()).map_err(stored)?;
            checked()?;
        }
        let format = self.folding.format().clone();
        Incoming::open(&*self.objects, turn, *client, format).map_err(stored)
    }

    fn finish(&self, client: &ClientId, mut finish: wire::Finish) -> Result<wire::Ack, Refusal> {
        self.known(client)?;
        let body = std::mem::take(&mut finish.body);
        let turn = Turn::new(finish.round, finish.attempt);
        let digest = Digest::from_slice(&finish.digest).ok_or(Refusal::Malformed("digest"))?;
        let checked = self.incoming(client, turn).and_then(|mut incoming| {
            incoming.complete(&body)?;
            let upload = Upload::announced(digest, incoming.len(), finish.clone());
            self.look(|coordinator| coordinator.check_upload(client, turn, Some(&upload)))?;
            Ok(incoming)
        });
        let incoming = match checked {
            Ok(incoming) => incoming,
            // It may have come to another gateway, or be counted already.
            Err(refusal) => {
                let there = self.database.wait(self.database.member(turn, client));
                return match there.map_err(stored)? {
                    Some(there) => Self::again(&there, &finish),
                    None => Err(refusal),
                };
            }
        };
        let mut span = Span::begin(self.task.run, turn, "update");
        span.set("tern.bytes", incoming.len() as i64);
        let received = incoming.finish(&finish.digest)?;
        let outcome = self.take(&received, finish.clone())?;
        span.set("tern.outcome", outcome.name());
        let mut incoming = received.incoming;
        if let Err(error) = incoming.forget() {
            tracing::debug!(%error, "removing a body that is stored");
        }
        match outcome {
            Outcome::Counted => Ok(wire::Ack { repeated: false }),
            Outcome::Repeated => Ok(wire::Ack { repeated: true }),
            Outcome::Conflict => Err(Refusal::Conflict("upload")),
            Outcome::Closed => {
                let phase = self.look(|coordinator| coordinator.phase());
                Err(Refusal::Unexpected { message: "upload", phase })
            }
        }
    }

    fn length(&self, client: &ClientId, digest: &Digest) -> Result<Option<u64>, Refusal> {
        self.known(client)?;
        let kept = || self.look(|coordinator| coordinator.kept().contains(digest));
        if !kept() {
            // Another gateway may have told of it that is ahead of this one.
            self.database.wait(self.follow()).map_err(stored)?;
            if !kept() {
                return Ok(None);
            }
        }
        self.objects.length(digest).map_err(stored)
    }

    fn piece(&self, digest: &Digest, first: u64, length: usize) -> Result<Vec<u8>> {
        let piece = self.objects.piece(digest, first, length)?;
        self.noted.sent(piece.len() as u64);
        Ok(piece)
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn step(&self) -> Result<()> {
        Ok(())
    }

    fn status(&self) -> Result<Status> {
        let (online, enrolled) = self.database.wait(self.database.counts(self.presence_seconds))?;
        let now = self.database.now();
        let (mut status, turn, collects) = {
            let follower = self.follower();
            let coordinator = &follower.coordinator;
            let status = Status {
                online,
                enrolled,
                stored: self.objects.used(),
                version: follower.sequence as u64,
                ..Status::of(coordinator, self.task.run, now)
            };
            (status, coordinator.turn(), coordinator.awaited().is_some())
        };
        if collects {
            let members = self.database.wait(self.database.member_keys(turn))?;
            for (client, progress) in &mut status.cohort {
                if members.contains(client) {
                    *progress = Progress::Answered;
                }
            }
        }
        Ok(status)
    }

    fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        PgLedger::reading(&self.database).rounds(after)
    }

    fn models(&self) -> Result<[Vec<f32>; 2]> {
        let digests = self.look(|found| [found.head().public, found.best_model()]);
        let format = Format::new(Kind::Full, &self.layout, f32::MAX);
        let model = |digest: &Digest| format.decode(&self.objects.read(digest)?);
        let [last, best] = digests;
        Ok([model(&last)?, model(&best)?])
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
