//! A client's part of the network: it downloads the public model, and sends nothing else.

use tern_client::{CallError, Http};
use tern_protocol::Digest;

use super::{Ask, Offer, Public, SERVICE};

/// Most bytes that a model may take.
const MOST: u64 = 4 << 30;

/// Why a model isn't downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server wasn't reached, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What came is no model.
    #[error("a damaged public model: {0}")]
    Damaged(String),
}

fn damaged(what: impl std::fmt::Display) -> DownloadError {
    DownloadError::Damaged(what.to_string())
}

/// A download without its network: what to ask the service for next, and what its answers come to.
#[derive(Debug)]
pub struct Download {
    after: u32,
    offer: Option<Offer>,
    bytes: Vec<u8>,
}

/// How far a [`Download`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Downloaded {
    /// There is more to ask for.
    Part,
    /// There is no newer model now.
    Nothing,
    /// The model.
    All(Public),
}

impl Download {
    /// Of the newest public model if it is newer than version `after`; 0 for any.
    pub fn new(after: u32) -> Self {
        Download { after, offer: None, bytes: Vec::new() }
    }

    /// The next request to [`SERVICE`].
    ///
    /// # Errors
    /// [`DownloadError::Damaged`] if it can't be written.
    pub fn request(&self) -> Result<Vec<u8>, DownloadError> {
        let ask = match &self.offer {
            None => Ask::Newest { after: self.after },
            Some(offer) => Ask::Piece { version: offer.version, offset: self.bytes.len() as u64 },
        };
        serde_json::to_vec(&ask).map_err(damaged)
    }

    /// Takes the answer to [`Download::request`].
    ///
    /// # Errors
    /// [`DownloadError::Damaged`]; the download is none any more then.
    pub fn answered(&mut self, answer: &[u8]) -> Result<Downloaded, DownloadError> {
        let Some(offer) = &self.offer else {
            self.offer = serde_json::from_slice(answer).map_err(damaged)?;
            return match &self.offer {
                Some(Offer { bytes, .. }) if *bytes > MOST => {
                    Err(damaged(format!("{bytes} bytes")))
                }
                Some(_) => Ok(Downloaded::Part),
                None => Ok(Downloaded::Nothing),
            };
        };
        let Offer { version, bytes: total, digest } = offer;
        if answer.is_empty() || (self.bytes.len() + answer.len()) as u64 > *total {
            return Err(damaged("its pieces don't add up"));
        }
        self.bytes.extend(answer);
        if (self.bytes.len() as u64) < *total {
            return Ok(Downloaded::Part);
        }
        if Digest::of(&self.bytes).to_string() != *digest {
            return Err(damaged("another SHA-256 than announced"));
        }
        let public = Public::decode(&self.bytes).map_err(damaged)?;
        match public.version == *version {
            true => Ok(Downloaded::All(public)),
            false => Err(damaged(format!("version {}, expected {version}", public.version))),
        }
    }
}

/// Downloads the newest public model if it is newer than version `after` (0: any), piece by
/// piece. `None` if there is no newer one now.
///
/// # Errors
/// [`DownloadError`].
pub async fn download(http: &Http, after: u32) -> Result<Option<Public>, DownloadError> {
    let mut download = Download::new(after);
    loop {
        let answer = http.service(SERVICE, download.request()?).await?;
        match download.answered(&answer)? {
            Downloaded::Part => {}
            Downloaded::Nothing => return Ok(None),
            Downloaded::All(public) => return Ok(Some(public)),
        }
    }
}
