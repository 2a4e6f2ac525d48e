//! Pages of other origins: what a browser asks before it lets one of them call this server.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use tern_protocol::{Error, Result, auth, pace};
use tower_http::cors::CorsLayer;

/// How long a browser may keep the answer.
const KEPT: Duration = Duration::from_secs(600);

/// An origin of pages, as browsers name it: `https://app.example`, with its port where that isn't
/// the scheme's.
///
/// ```
/// use tern_server::http::Origin;
///
/// let origin: Origin = "https://app.example:8443".parse().expect("an origin");
/// assert_eq!(origin.to_string(), "https://app.example:8443");
/// let error = "https://app.example/page".parse::<Origin>().unwrap_err();
/// assert!(error.to_string().contains("https://app.example/page"), "{error}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::value("origin", text, "https://host or https://host:port");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        let own_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(wrong()),
        };
        // A path, a query, a user's name: no part of an origin. A browser's has small letters.
        let origin = format!("{scheme}://{authority}");
        if origin != text || authority.as_str().contains(['@', '*']) || authority.host().is_empty()
        {
            return Err(wrong());
        }
        let origin = match authority.port_u16() {
            Some(port) if port == own_port => {
                origin.strip_suffix(&format!(":{port}")).unwrap_or(&origin).to_owned()
            }
            None if authority.as_str() != authority.host() => return Err(wrong()),
            _ => origin,
        };
        HeaderValue::from_str(&origin.to_ascii_lowercase()).map(Origin).map_err(|_| wrong())
    }
}

/// Lets pages of these origins, and no others, send what clients send and read what they read.
pub(super) fn allow(origins: &[Origin]) -> CorsLayer {
    let sent =
        [auth::KEY, auth::HOST, auth::RUN, auth::START, auth::TIME, auth::NONCE, auth::SIGNATURE];
    let read = [auth::RUN, auth::START, auth::TIME, pace::WAIT, pace::PIECE];
    let sent = sent.map(HeaderName::from_static).into_iter().chain([ACCEPT, CONTENT_TYPE, RANGE]);
    let read = read.map(HeaderName::from_static).into_iter().chain([CONTENT_RANGE, RETRY_AFTER]);
    CorsLayer::new()
        .allow_origin(origins.iter().map(|origin| origin.0.clone()).collect::<Vec<_>>())
        .allow_methods([Method::POST])
        .allow_headers(sent.collect::<Vec<_>>())
        .expose_headers(read.collect::<Vec<_>>())
        .max_age(KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_name_them() {
        for (text, named) in [
            ("https://a.example", "https://a.example"),
            ("https://A.example:443", "https://a.example"),
            ("http://localhost:80", "http://localhost"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), named, "{text}");
        }
        for text in [
            "*",
            "null",
            "",
            "a.example",
            "ftp://a.example",
            "https://",
            "https://a.example/",
            "https://a.example/page",
            "https://me@a.example",
            "https://*.a.example",
            "https://a.example:port",
            "https://a.example:99999",
            "https://a.example?x",
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains("expected https://host"), "{text}: {error}");
        }
    }
}
