//! Taking uploads: in steps, so that the heavy ones need no lock around the federation.

use tern_protocol::coordinator::{Event, Upload};
use tern_protocol::{ClientId, Digest, Millis, Refusal, Turn, wire};

use super::{Federation, Incoming, Received, stored};

impl Federation {
    /// Where an upload goes, if one of this client would be taken; its body is received and
    /// checked outside of the federation.
    ///
    /// # Errors
    /// Why it would not be taken; [`Refusal::Repeated`] if it already was.
    pub fn incoming(&mut self, client: &ClientId, turn: Turn) -> Result<Incoming, Refusal> {
        self.known(client)?;
        if let Err(refusal) = self.coordinator.check_upload(client, turn, None) {
            return self.refuse(refusal);
        }
        let format = self.context.folding.format().clone();
        match Incoming::open(&*self.bodies, turn, *client, format) {
            Ok(incoming) => Ok(incoming),
            Err(error) => self.refuse(stored(error)),
        }
    }

    /// An upload whose client says that all of it is sent, if it would be taken as far as that can
    /// be told without reading it, which takes long.
    ///
    /// # Errors
    /// As [`Federation::incoming`], and why what is announced would not be taken.
    pub fn finishing(
        &mut self,
        client: &ClientId,
        finish: &wire::Finish,
    ) -> Result<Incoming, Refusal> {
        let turn = Turn::new(finish.round, finish.attempt);
        let mut incoming = self.incoming(client, turn)?;
        let announced = Digest::from_slice(&finish.digest).ok_or(Refusal::Malformed("digest"));
        let checked = incoming.complete(&finish.body).and(announced).and_then(|digest| {
            let upload = Upload::announced(digest, incoming.len(), finish.clone());
            self.coordinator.check_upload(client, turn, Some(&upload))
        });
        match checked {
            Ok(()) => Ok(incoming),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Takes a received and checked body. `finish` must announce its digest.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn accept(
        &mut self,
        now: Millis,
        received: Received,
        finish: wire::Finish,
    ) -> Result<wire::Ack, Refusal> {
        let now = self.clock.read(now);
        let Received { incoming, digest } = received;
        let (turn, client) = (incoming.turn(), *incoming.client());
        if finish.digest != digest.0 {
            return self.refuse(Refusal::Hash);
        }
        let upload = Upload::announced(digest, incoming.len(), finish);
        // Nothing is stored of an upload that would not be taken.
        match self.coordinator.check_upload(&client, turn, Some(&upload)) {
            Err(Refusal::Repeated) => return Ok(wire::Ack { repeated: true }),
            Err(refusal) => return self.refuse(refusal),
            Ok(()) => {}
        }
        if let Err(error) = self.bodies.accept(incoming.partial(), turn, &client, &digest) {
            return self.refuse(stored(error));
        }
        self.uploaded += upload.bytes;
        self.acknowledge(now, Event::Uploaded { client, turn, upload })
    }

    /// Bytes of an upload that the server has: where its client goes on.
    ///
    /// # Errors
    /// As [`Federation::incoming`].
    pub fn upload_offset(&mut self, client: &ClientId, turn: Turn) -> Result<u64, Refusal> {
        Ok(self.incoming(client, turn)?.len())
    }

    /// Takes a part of a body; returns how much of it the server has.
    ///
    /// # Errors
    /// As [`Incoming::append`].
    pub fn upload_append(
        &mut self,
        client: &ClientId,
        turn: Turn,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, Refusal> {
        let appended = self.incoming(client, turn)?.append(offset, bytes);
        appended.or_else(|refusal| self.refuse(refusal))
    }

    /// Checks a complete body and takes it.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn upload_finish(
        &mut self,
        now: Millis,
        client: &ClientId,
        finish: wire::Finish,
    ) -> Result<wire::Ack, Refusal> {
        let turn = Turn::new(finish.round, finish.attempt);
        let incoming = match self.finishing(client, &finish) {
            Err(Refusal::Repeated) => return self.finish_again(client, turn, &finish),
            other => other?,
        };
        match incoming.finish(&finish.digest) {
            Ok(received) => self.accept(now, received, finish),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// An upload of this client is in already: is it the same?
    ///
    /// # Errors
    /// [`Refusal::Conflict`] if it is another.
    pub fn finish_again(
        &mut self,
        client: &ClientId,
        turn: Turn,
        finish: &wire::Finish,
    ) -> Result<wire::Ack, Refusal> {
        let same = self.coordinator.accepted_of(client).is_some_and(|upload| {
            upload.digest.0 == finish.digest[..]
                && upload.samples == finish.samples
                && upload.metrics == finish.metrics
        });
        if same && turn == self.coordinator.turn() {
            return Ok(wire::Ack { repeated: true });
        }
        self.refuse(Refusal::Conflict("upload"))
    }
}
