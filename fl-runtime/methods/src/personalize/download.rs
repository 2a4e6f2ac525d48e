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

/// Downloads the newest public model if it is newer than version `after` (0: any), piece by
/// piece. `None` if there is no newer one now.
///
/// # Errors
/// [`DownloadError`].
pub async fn download(http: &Http, after: u32) -> Result<Option<Public>, DownloadError> {
    let damaged = |what: &dyn std::fmt::Display| DownloadError::Damaged(what.to_string());
    let ask = async |ask: Ask| {
        let request = serde_json::to_vec(&ask).map_err(|e| damaged(&e))?;
        Ok::<_, DownloadError>(http.service(SERVICE, request).await?)
    };
    let answer = ask(Ask::Newest { after }).await?;
    let offer: Option<Offer> = serde_json::from_slice(&answer).map_err(|e| damaged(&e))?;
    let Some(Offer { version, bytes: total, digest }) = offer else { return Ok(None) };
    if total > MOST {
        return Err(damaged(&format!("{total} bytes")));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < total {
        let piece = ask(Ask::Piece { version, offset: bytes.len() as u64 }).await?;
        if piece.is_empty() || (bytes.len() + piece.len()) as u64 > total {
            return Err(damaged(&"its pieces don't add up"));
        }
        bytes.extend(piece);
    }
    if Digest::of(&bytes).to_string() != digest {
        return Err(damaged(&"another SHA-256 than announced"));
    }
    let public = Public::decode(&bytes).map_err(|e| damaged(&e))?;
    match public.version == version {
        true => Ok(Some(public)),
        false => Err(damaged(&format!("version {}, expected {version}", public.version))),
    }
}
