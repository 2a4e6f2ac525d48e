//! What pages of other origins may do: what browsers ask for them, as browsers ask it.

use tern_fl::server::http::Options;
use tern_fl::{auth, pace};

use super::{Running, raw, serve_with};

const LISTED: &str = "https://app.example";

/// Headers of an answer by their small names, with its status.
fn ask(server: &Running, method: &str, headers: &[(&str, &str)]) -> (u16, Vec<(String, String)>) {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} /v1/poll HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n\
         {headers}\r\n",
        server.address
    );
    let (status, text) = raw(server, request.as_bytes());
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    (status, fields.map(|(name, value)| (name.to_lowercase(), value.to_lowercase())).collect())
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn preflight(server: &Running, origin: &str) -> (u16, Vec<(String, String)>) {
    let method = ("access-control-request-method", "POST");
    let headers = ("access-control-request-headers", "content-type,range,tern-key,tern-signature");
    ask(server, "OPTIONS", &[("origin", origin), method, headers])
}

#[test]
fn pages_of_listed_origins_may_send_and_read_what_clients_do() {
    let server = serve_with(Options::default().origins(vec![LISTED.parse().unwrap()]));
    let (status, fields) = preflight(&server, LISTED);
    assert_eq!(status, 200);
    assert_eq!(field(&fields, "access-control-allow-origin"), Some(LISTED));
    assert_eq!(field(&fields, "access-control-allow-methods"), Some("post"));
    assert_eq!(field(&fields, "access-control-allow-credentials"), None);
    let allowed = field(&fields, "access-control-allow-headers").unwrap();
    let sent =
        [auth::KEY, auth::HOST, auth::RUN, auth::START, auth::TIME, auth::NONCE, auth::SIGNATURE];
    for name in sent.into_iter().chain(["content-type", "range", "accept"]) {
        assert!(allowed.split(',').any(|allowed| allowed == name), "{name}: {allowed}");
    }
    // A refusal can be read, too: this request isn't signed.
    let (status, fields) = ask(&server, "POST", &[("origin", LISTED)]);
    assert_eq!(status, 401);
    assert_eq!(field(&fields, "access-control-allow-origin"), Some(LISTED));
    let exposed = field(&fields, "access-control-expose-headers").unwrap();
    for name in [
        auth::RUN,
        auth::START,
        auth::TIME,
        pace::WAIT,
        pace::PIECE,
        "retry-after",
        "content-range",
    ] {
        assert!(exposed.split(',').any(|exposed| exposed == name), "{name}: {exposed}");
    }
}

#[test]
fn pages_of_other_origins_may_not() {
    let none = serve_with(Options::default());
    let one = serve_with(Options::default().origins(vec![LISTED.parse().unwrap()]));
    for (server, origin) in [
        (&none, LISTED),
        (&one, "https://app.example.evil.example"),
        (&one, "http://app.example"),
        (&one, "https://app.example:8443"),
        (&one, "null"),
    ] {
        for (_, fields) in [preflight(server, origin), ask(server, "POST", &[("origin", origin)])] {
            assert_eq!(field(&fields, "access-control-allow-origin"), None, "{origin}");
        }
    }
}
