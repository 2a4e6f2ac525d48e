//! Answers: messages, and refusals that a program and a person can read.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use prost::Message;

use tern_protocol::auth::{self, AuthError};
use tern_protocol::{Refusal, StartId, wire};

/// Why a request is not answered as it hoped.
#[derive(Debug)]
pub(super) struct Denied {
    pub status: StatusCode,
    /// Stable name, counted in the metrics.
    pub name: &'static str,
    pub reason: String,
    /// When to try again.
    pub wait: Option<Duration>,
    /// The server's time and start, for who is off.
    told: Option<(u64, StartId)>,
}

impl Denied {
    pub fn new(status: StatusCode, name: &'static str, reason: impl Into<String>) -> Self {
        Denied { status, name, reason: reason.into(), wait: None, told: None }
    }

    /// Too much at once: try again after a while.
    pub fn busy(name: &'static str, wait: Duration) -> Self {
        let reason = "too many requests, try again later";
        Denied { wait: Some(wait), ..Denied::new(StatusCode::TOO_MANY_REQUESTS, name, reason) }
    }

    /// A body of more bytes than may come in one request.
    pub fn too_large(bytes: impl std::fmt::Display, most: usize) -> Self {
        let reason = format!("the body has {bytes} bytes, expected at most {most}");
        Denied::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason)
    }

    /// As protobuf, or as JSON for who asks for that.
    pub fn answer(self, headers: &HeaderMap) -> Response {
        let Denied { status, name, reason, wait, told } = self;
        let wants_json = |accept: &HeaderValue| {
            accept.to_str().is_ok_and(|a| a.contains("application/json") || a.contains("text/"))
        };
        let (kind, body) = match headers.get(ACCEPT).is_some_and(wants_json) {
            true => {
                let body = serde_json::json!({ "name": name, "reason": reason });
                ("application/json", body.to_string().into_bytes())
            }
            false => {
                let refused = wire::Refused { name: name.into(), reason };
                ("application/x-protobuf", refused.encode_to_vec())
            }
        };
        let mut answer = (status, [(CONTENT_TYPE, kind)], Body::from(body)).into_response();
        if let Some(wait) = wait {
            // Whole seconds, not too early.
            let seconds = HeaderValue::from(wait.as_secs_f64().ceil() as u64);
            answer.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if let Some((time, start)) = told {
            answer.headers_mut().insert(auth::TIME, HeaderValue::from(time));
            if let Ok(start) = HeaderValue::try_from(start.to_string()) {
                answer.headers_mut().insert(auth::START, start);
            }
        }
        answer
    }
}

impl From<AuthError> for Denied {
    fn from(error: AuthError) -> Self {
        let told = error.told();
        Denied { told, ..Denied::new(StatusCode::UNAUTHORIZED, error.name(), error.to_string()) }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Unknown(_)
            | Refusal::NotAdmitted
            | Refusal::TokenUsed(_)
            | Refusal::Full(_) => StatusCode::FORBIDDEN,
            Refusal::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::NotSelected(_)
            | Refusal::Late { .. }
            | Refusal::Early { .. }
            | Refusal::Unexpected { .. }
            | Refusal::Repeated
            | Refusal::Conflict(_)
            | Refusal::Copied(_)
            | Refusal::Offset { .. }
            | Refusal::Finished => StatusCode::CONFLICT,
            _ => StatusCode::BAD_REQUEST,
        };
        Denied::new(status, refusal.name(), refusal.to_string())
    }
}

/// A message of the protocol.
pub(super) fn message(message: &impl Message) -> Response {
    let kind = [(CONTENT_TYPE, "application/x-protobuf")];
    (kind, message.encode_to_vec()).into_response()
}
