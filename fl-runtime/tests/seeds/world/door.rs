//! Requests have to be their senders', and everybody hears them.

use tern_fl::ClientId;
use tern_fl::auth::{AuthError, Credentials};

use super::World;
use crate::network::{Answer, Event, Request};
use crate::signed::Door;

impl World {
    pub(super) fn open_door(&mut self) {
        let server = self.server.as_ref().filter(|_| self.setup.signed);
        self.door = server
            .map(|server| Door::new(server.task().run, server.coordinator().now(), self.time()));
    }

    /// Whether a request passes; one that doesn't may have been answered.
    pub(super) fn passes(
        &mut self,
        client: usize,
        number: u64,
        request: &Request,
        signed: Credentials,
    ) -> bool {
        let time = self.time();
        let Some(door) = &mut self.door else { return false };
        let judged = door.judge(&signed, request, time);
        match judged {
            Ok(()) => {
                self.summary.note("signed");
                self.overheard.taken(&signed);
            }
            // Whoever replays it gets the answer.
            Err(AuthError::Replayed) => self.summary.note("replayed"),
            Err(error) => {
                let (now, start) = error.told().unwrap_or_else(|| panic!("{client}: {error}"));
                self.summary.note("signed again");
                let answer = Event::Answer { client, number, answer: Answer::Told(now, start) };
                self.queue.send(&mut self.random, &self.weather, self.now, &answer);
            }
        }
        if self.overheard.requests.len() < 1_000 {
            self.overheard.requests.push((client, number, request.clone(), signed));
        }
        judged.is_ok()
    }

    /// Somebody sends again what a client sent, now or later, or something made of it.
    pub(super) fn somebody_replays(&mut self) {
        let count = self.overheard.requests.len() as u64;
        if count == 0 {
            return;
        }
        let (client, number, request, signed) =
            self.overheard.requests[self.random.below(count) as usize].clone();
        if self.random.chance(500) {
            let time = self.now + self.random.below(20_000);
            let signed = Some(Box::new(signed));
            return self.queue.at(time, Event::Request { client, number, request, signed });
        }
        let time = self.time();
        let Some(door) = &mut self.door else { return };
        let mut forged = signed;
        forged.audience.start = Some(door.start());
        forged.time = door.time(time);
        let request = match self.random.below(3) {
            0 => {
                forged.key = ClientId([7; 32]);
                request
            }
            1 => {
                forged.nonce[15] ^= 1;
                request
            }
            _ => match request {
                Request::Poll { samples } => Request::Poll { samples: samples + 1 },
                other => other,
            },
        };
        self.summary.note("forged");
        let judged = door.judge(&forged, &request, time);
        let refused = matches!(judged, Err(AuthError::Signature | AuthError::Replayed));
        assert!(refused, "{forged:?}: {judged:?}");
    }
}
