//! A page for browsers, with what it loads: files of a folder, which are read when the server
//! starts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path as Place, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use tern_protocol::{Digest, Error, Result};

use super::App;
use super::reply::Denied;

/// Where it is served.
pub(super) const PAGE: &str = "/page/";
/// What is served for the folder itself.
const INDEX: &str = "index.html";

/// Scripts, styles, workers and requests of this server alone; WebAssembly is compiled.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; worker-src 'self'; \
                      manifest-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The files of a page, in memory.
#[derive(Clone, Debug, Default)]
pub struct Site(Arc<BTreeMap<String, Stored>>);

#[derive(Debug)]
struct Stored {
    kind: &'static str,
    /// Of the bytes, in quotes.
    tag: String,
    bytes: Bytes,
    compressed: Bytes,
}

impl Site {
    /// Reads all files of a folder and of those in it.
    ///
    /// # Errors
    /// [`Error::File`] for one that can't be read, or a folder without `index.html`.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        gather(folder, "", &mut files)?;
        match files.contains_key(INDEX) {
            true => Ok(Site(Arc::new(files))),
            false => Err(Error::file(folder, format!("has no {INDEX}, expected a page"))),
        }
    }
}

fn gather(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Stored>) -> Result<()> {
    let failed = |e: std::io::Error| Error::file(folder, e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name());
        // Names that an address can't have are no part of a page.
        let Some(name) = name.to_str().map(|name| format!("{prefix}{name}")) else { continue };
        if path.is_dir() {
            gather(&path, &format!("{name}/"), files)?;
        } else {
            let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
            files.insert(name, Stored::new(&path, bytes)?);
        }
    }
    Ok(())
}

impl Stored {
    fn new(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let compressed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
        let kind = match path.extension().and_then(|end| end.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("json") => "application/json",
            Some("wasm") => "application/wasm",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("txt" | "md" | "ts") => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        };
        Ok(Stored {
            kind,
            tag: format!("\"{}\"", Digest::of(&bytes)),
            compressed: compressed.map_err(|e| Error::file(path, e))?.into(),
            bytes: bytes.into(),
        })
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let fixed = [
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
            // Asked for again each time, and sent only if it is another.
            (CACHE_CONTROL, "no-cache"),
            (VARY, "accept-encoding"),
            (ETAG, &self.tag),
        ];
        let has = |name, text: &str| {
            let value = asked.get(name).and_then(|value| value.to_str().ok());
            value.is_some_and(|value| value.contains(text))
        };
        if has(IF_NONE_MATCH, &self.tag) {
            return (StatusCode::NOT_MODIFIED, fixed).into_response();
        }
        let kind = [(CONTENT_TYPE, self.kind)];
        match has(ACCEPT_ENCODING, "gzip") && self.compressed.len() < self.bytes.len() {
            true => {
                let encoding = [(CONTENT_ENCODING, "gzip")];
                (fixed, kind, encoding, self.compressed.clone()).into_response()
            }
            false => (fixed, kind, self.bytes.clone()).into_response(),
        }
    }
}

pub(super) async fn index(state: State<Arc<App>>, asked: HeaderMap) -> Response {
    file(state, Place(INDEX.into()), asked).await
}

pub(super) async fn file(
    State(app): State<Arc<App>>,
    Place(name): Place<String>,
    asked: HeaderMap,
) -> Response {
    match app.site.as_ref().and_then(|site| site.0.get(&name)) {
        Some(file) => file.answer(&asked),
        None => {
            let denied = Denied::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here");
            app.deny(denied, &asked)
        }
    }
}

/// Its files are named from the folder on.
pub(super) async fn folder() -> Redirect {
    Redirect::permanent(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compressed_where_that_is_asked_for_and_sent_once() {
        let folder = tempfile::tempdir().unwrap();
        let error = Site::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no index.html"), "{error}");
        let text = "a page ".repeat(100);
        std::fs::write(folder.path().join(INDEX), &text).unwrap();
        std::fs::create_dir(folder.path().join("snippets")).unwrap();
        std::fs::write(folder.path().join("snippets/a.js"), "1").unwrap();
        let site = Site::read(folder.path()).unwrap();
        let file = &site.0[INDEX];
        let asked = |headers: &[(axum::http::HeaderName, &str)]| {
            let pairs = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            file.answer(&HeaderMap::from_iter(pairs))
        };
        let plain = asked(&[]);
        assert_eq!(plain.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(plain.headers().get(CONTENT_ENCODING).is_none());
        assert!(plain.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().contains("'none'"));
        let packed = asked(&[(ACCEPT_ENCODING, "br, gzip")]);
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        let mut unpacked = String::new();
        let mut reader = flate2::read::GzDecoder::new(&*file.compressed);
        std::io::Read::read_to_string(&mut reader, &mut unpacked).unwrap();
        assert_eq!(unpacked, text);
        let tag = plain.headers()[ETAG].to_str().unwrap();
        assert_eq!(asked(&[(IF_NONE_MATCH, tag)]).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(site.0["snippets/a.js"].kind, "text/javascript; charset=utf-8");
    }
}
