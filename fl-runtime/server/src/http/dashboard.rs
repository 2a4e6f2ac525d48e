//! What people and monitoring look at.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::response::{IntoResponse, Response};

use super::App;

/// The page; it asks for `/status.json` every two seconds and nothing else.
const PAGE: &str = include_str!("dashboard.html");

/// Scripts and styles of the page itself, and requests to this server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) async fn page() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Response {
    let text = serde_json::to_string(&*app.board.page()).unwrap_or_default();
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let gauges = app.board.page().gauges();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.text(&gauges)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_self_contained() {
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            let found = PAGE.matches(outside).count();
            // The names of the namespaces of SVG.
            let names =
                if outside == "http://" { PAGE.matches("http://www.w3.org/").count() } else { 0 };
            assert_eq!(found, names, "{outside}");
        }
        // What comes from elsewhere is only ever put in as text.
        assert!(!PAGE.contains("innerHTML") && !PAGE.contains("insertAdjacent"));
        assert!(PAGE.contains("prefers-color-scheme: dark") && PAGE.contains("width=device-width"));
    }
}
