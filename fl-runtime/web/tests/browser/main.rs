//! The package in Chromium, served by a server of its own. `.ci/browser` builds it before and
//! installs what is needed; without Chromium or the package the tests are left out, unless
//! TERN_TEST_BROWSER=1 says that they must run.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod bench;
mod chromium;
mod elsewhere;
mod federation;
mod page;
mod pytorch;
mod training;
mod types;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use chromium::{Browser, Tab};
use serde_json::Value;
use tern_engine::nn::ModelSpec;
use tern_protocol::layout::ModelKind;
use tern_protocol::{RunId, RunPlan};
use tern_server::federation::{Federation, Options as State};
use tern_server::http::{Board, Limits, Options, Origin, Server, Site};
use tokio::sync::oneshot;

/// Where `fl-runtime/web/build` puts the package.
fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pkg")
}

/// Whether there is a browser, and something for it to load.
fn possible() -> bool {
    let lacking = if chromium::executable().is_none() {
        "no chromium on the path, or at TERN_CHROMIUM"
    } else if !package().join("package.json").exists() {
        "no package in fl-runtime/web/pkg, which fl-runtime/web/build makes"
    } else {
        return true;
    };
    let required = std::env::var("TERN_TEST_BROWSER").is_ok_and(|value| value == "1");
    assert!(!required, "TERN_TEST_BROWSER=1, but {lacking}");
    eprintln!("browser tests skipped: {lacking}");
    false
}

/// What is served, and a browser with a new profile, which ends first; `None` where tests in browsers
/// are left out.
fn with_browser<T>(serve: impl FnOnce() -> T) -> Option<(T, Browser)> {
    possible().then(|| (serve(), Browser::new()))
}

/// The run that servers here serve.
const RUN: RunId = RunId([7; 16]);

/// A server in this process, which serves the page.
struct Serving {
    url: String,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// Serves a run that anybody may enroll in.
fn serve(plan: &RunPlan) -> Serving {
    serve_for(plan, Vec::new())
}

/// [`serve`], for pages of these origins, too.
fn serve_for(plan: &RunPlan, origins: Vec<Origin>) -> Serving {
    let folder = tempfile::tempdir().unwrap();
    let initial = plan.check().unwrap().parameters().initial(plan.seed);
    let mut state = State::default();
    state.run = Some(RUN);
    let federation = Federation::open(folder.path(), plan, &initial, state).unwrap();
    let site = Site::read(&package()).unwrap();
    let mut limits = Limits::default();
    limits.requests_per_address = 1e3;
    let options = Options::default()
        .limits(limits)
        .site(site)
        .origins(origins)
        .folder(folder.path().to_path_buf());
    let server = Server::new(federation, Board::new(0), options);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let event_loop = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let serving = server.serve(listener, async { drop(stopped.await) });
    let thread = std::thread::spawn(move || event_loop.block_on(serving).unwrap());
    Serving { url, folder, stop: Some(stop), thread: Some(thread) }
}

/// A server of a run that nobody takes part in, for its page.
fn serve_page() -> Serving {
    serve(&RunPlan::new("page", ModelKind::Layers(ModelSpec::mlp(2, &[], 2)), 1))
}

/// A tab in which `tern` is the module, loaded.
fn tab_with_module<'a>(browser: &'a Browser, serving: &Serving) -> Tab<'a> {
    tab_with(browser, serving, "")
}

/// The builds of the module: the one that a browser here takes, and one without fused operations.
const FUSED: &str = "{ module_or_path: '/page/tern_relaxed.wasm' }";
const UNFUSED: &str = "{ module_or_path: '/page/tern.wasm' }";

/// Devices to compute on. On a GPU shaders compute, so that one build is enough.
const COMPUTING: [(&str, &str); 3] = [("cpu", FUSED), ("cpu", UNFUSED), ("software", FUSED)];

/// [`tab_with_module`], with one of the builds.
fn tab_with<'a>(browser: &'a Browser, serving: &Serving, build: &str) -> Tab<'a> {
    let tab = browser.open(&format!("{}/page/README.md", serving.url));
    let load = format!(
        "import('/page/tern.js').then(async module => {{ await module.default({build}); \
         globalThis.tern = module; }})"
    );
    tab.evaluate(&load).unwrap();
    tab
}

/// Not every browser compiles fused multiply-adds.
#[test]
fn a_browser_takes_the_build_that_it_can_compile() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    for (validates, expected) in [("true", "tern_relaxed.wasm"), ("false", "tern.wasm")] {
        let tab = browser.open(&format!("{}/page/README.md", serving.url));
        let fetched = tab.evaluate(&format!(
            "(async () => {{ const validate = WebAssembly.validate; \
             WebAssembly.validate = bytes => validate(bytes) && {validates}; \
             await (await import('/page/tern.js')).default(); \
             return performance.getEntriesByType('resource').map(entry => entry.name); }})()"
        ));
        let fetched: Vec<String> = serde_json::from_value(fetched.unwrap()).unwrap();
        let builds: Vec<&String> = fetched.iter().filter(|name| name.ends_with(".wasm")).collect();
        assert_eq!(builds, [&format!("{}/page/{expected}", serving.url)]);
        tab.close();
    }
}

/// Floats of an answer.
fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}
