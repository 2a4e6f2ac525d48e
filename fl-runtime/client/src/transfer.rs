//! Bodies up and down, in pieces that go on where they broke off.

use std::time::Duration;

use tern_protocol::participant::{Input, Pending};
use tern_protocol::{Digest, Refusal, Turn, wire};

use super::{CallError, Client, Event, Session};

/// Bytes of the smallest piece.
const LEAST: usize = 1 << 10;
/// Bytes that a model's body may have beyond its elements.
const MARGIN: u64 = 4096;

/// Refusals of a body that comes with the message that ends its upload, but not of pieces: the server
/// allows messages less, or looks for pieces.
const PIECES: [&str; 2] = ["length", "too_large"];

/// A body that is being fetched.
pub(super) struct Download {
    digest: Digest,
    bytes: Vec<u8>,
}

impl Client {
    pub(super) async fn fetch<T>(
        &self,
        session: &mut Session<T>,
        digest: Digest,
    ) -> Result<Input, CallError> {
        match self.download(session, digest).await {
            Ok(bytes) => Ok(Input::Fetched { digest, bytes }),
            // The round went on meanwhile; the next instruction names another model.
            Err(error) if error.name() == Some("no_blob") => Ok(Input::Failed(error.to_string())),
            Err(error) => Err(error.for_now()),
        }
    }

    /// All of a body, which may be another than that of its digest. What came of it stays with the
    /// session if the network fails.
    pub(super) async fn download<T>(
        &self,
        session: &mut Session<T>,
        digest: Digest,
    ) -> Result<Vec<u8>, CallError> {
        let most = 4 * session.layout.elements() as u64 + MARGIN;
        let kept = session.download.take().filter(|download| download.digest == digest);
        let mut download = kept.unwrap_or(Download { digest, bytes: Vec::new() });
        loop {
            let part = match self.http.part(digest, download.bytes.len() as u64).await {
                Ok(part) if part.total <= most => part,
                Ok(_) => return Err(CallError::blob(digest, "a body as long as a model")),
                Err(error) => {
                    session.download = Some(download);
                    return Err(error);
                }
            };
            download.bytes.extend_from_slice(&part.bytes);
            if download.bytes.len() as u64 == part.total {
                return Ok(download.bytes);
            }
        }
    }

    /// Uploads the pending update, from where the server has it.
    pub(super) async fn upload<T>(&self, session: &mut Session<T>) -> Result<Input, CallError> {
        self.send_pending(session).await.map_err(elsewhere)
    }

    async fn send_pending<T>(&self, session: &mut Session<T>) -> Result<Input, CallError> {
        let Some(pending) = &session.participant.kept().pending else {
            return Ok(Input::Failed("there is no update to upload".into()));
        };
        let turn = pending.turn;
        if let Some(whole) = pending.whole() {
            match self.http.call("/v1/finish", &whole, Duration::ZERO).await {
                // A server that takes pieces alone.
                Err(error) if error.name().is_some_and(|name| PIECES.contains(&name)) => {}
                answer => return Ok(self.uploaded(pending, &answer?)),
            }
        }
        let place = format!("/v1/upload?round={}&attempt={}", turn.round, turn.attempt);
        let ask = self.http.post::<wire::Received>(&place, Vec::new(), Duration::ZERO).await;
        let mut offset = match ask {
            Ok(received) => received.offset,
            // All of it is there: finishing again says whether it is the same.
            Err(error) if error.name() == Some("repeated") => pending.body.len() as u64,
            Err(error) => return Err(error),
        };
        let mut most = usize::MAX;
        while let Some(rest) = rest(&pending.body, offset) {
            // The server says how much, piece by piece.
            let piece = self.http.piece().min(most);
            let bytes = rest[..rest.len().min(piece)].to_vec();
            let target = format!("{place}&offset={offset}");
            match self.http.post::<wire::Received>(&target, bytes, Duration::ZERO).await {
                Ok(received) => offset = received.offset,
                Err(error) if error.name() == Some("too_large") && piece > LEAST => {
                    most = piece / 2;
                }
                Err(error) => return Err(error),
            }
        }
        let ack = self.http.call("/v1/finish", &pending.finish(), Duration::ZERO).await?;
        Ok(self.uploaded(pending, &ack))
    }

    fn uploaded(&self, pending: &Pending, ack: &wire::Ack) -> Input {
        let (Turn { round, attempt }, bytes) = (pending.turn, pending.body.len());
        tracing::info!(round, attempt, bytes, repeated = ack.repeated, "uploaded");
        self.tell(&Event::Uploaded(pending.turn, bytes));
        Input::Delivered
    }
}

/// The server has other bytes of a body than its client thinks: it is asked again, after a while,
/// where to go on.
fn elsewhere(error: CallError) -> CallError {
    match error.name().is_some_and(|name| Refusal::RESUMED.contains(&name)) {
        true => error.for_now(),
        false => error,
    }
}

/// What the server lacks of a body; `None` if nothing.
fn rest(body: &[u8], offset: u64) -> Option<&[u8]> {
    body.get(usize::try_from(offset).ok()?..).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_is_elsewhere_is_tried_again() {
        let refused = |name: &str| CallError::Refused {
            target: "/v1/upload".into(),
            name: name.into(),
            reason: "offset 7, expected 0".into(),
        };
        for name in Refusal::RESUMED {
            let error = elsewhere(refused(name));
            assert_eq!((error.retry(), error.name()), (Some(Duration::ZERO), None), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(elsewhere(refused("number")).name(), Some("number"));
    }
}
