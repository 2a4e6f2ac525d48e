//! Chromium without a window, driven by its DevTools protocol over a pipe.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest time that a call may take: the slowest page computes for minutes in software.
const PATIENCE: Duration = Duration::from_secs(900);

/// WebGPU by SwiftShader, and nothing that talks to the network by itself.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
];

type Waiting = Arc<Mutex<HashMap<u64, Sender<Value>>>>;
/// Errors that pages reported, by session.
type Complaints = Arc<Mutex<Vec<(String, String)>>>;

/// Where Chromium is: `TERN_CHROMIUM`, or by its name on the path.
pub fn executable() -> Option<PathBuf> {
    let named = std::env::var_os("TERN_CHROMIUM").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = || {
        let mut folders = std::env::split_paths(&paths);
        folders.find_map(|folder| Some(folder.join("chromium")).filter(|path| path.exists()))
    };
    named.or_else(found)
}

/// A running browser.
pub struct Browser {
    /// A folder of its own, which goes with it.
    _profile: Option<TempDir>,
    process: Child,
    input: Mutex<(ChildStdin, u64)>,
    waiting: Waiting,
    complaints: Complaints,
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A tab.
pub struct Tab<'a> {
    browser: &'a Browser,
    target: String,
    session: String,
}

impl Browser {
    /// Starts one with a new profile.
    pub fn new() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Browser::start(profile.path());
        browser._profile = Some(profile);
        browser
    }

    /// Starts one whose profile, with what its pages store, is in a folder.
    pub fn start(profile: &Path) -> Browser {
        let executable = executable().expect("chromium");
        // DevTools reads what is asked from file 3 and answers on file 4.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#])
            .arg(executable)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = Mutex::new((process.stdin.take().unwrap(), 0));
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (waiting, complaints) = (Waiting::default(), Complaints::default());
        let (answered, complained) = (waiting.clone(), complaints.clone());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while output.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
                bytes.pop();
                let message = serde_json::from_slice(&bytes).unwrap_or_default();
                hear(&message, &answered, &complained);
                bytes.clear();
            }
            // Who waits for an answer hears that there is none.
            answered.lock().unwrap().clear();
        });
        Browser { _profile: None, process, input, waiting, complaints }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Result<Value, String> {
        let (answer, answered) = channel();
        {
            let (input, last) = &mut *self.input.lock().unwrap();
            *last += 1;
            let mut message = json!({ "id": *last, "method": method, "params": params });
            if let Some(session) = session {
                message["sessionId"] = session.into();
            }
            self.waiting.lock().unwrap().insert(*last, answer);
            write!(input, "{message}\0").map_err(|e| format!("{method}: {e}"))?;
        }
        let answer = answered.recv_timeout(PATIENCE).map_err(|e| format!("{method}: {e}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}")),
            None => Ok(answer["result"].clone()),
        }
    }

    /// Opens a page.
    pub fn open(&self, url: &str) -> Tab<'_> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let target = text(&target.unwrap()["targetId"]);
        let attach = json!({ "targetId": target, "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach).unwrap();
        let tab = Tab { browser: self, target, session: text(&session["sessionId"]) };
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            tab.call(domain, json!({})).unwrap();
        }
        tab.call("Page.navigate", json!({ "url": url })).unwrap();
        tab.evaluate(
            "(async () => { while (location.href === 'about:blank' || document.readyState !== \
             'complete') await new Promise(done => setTimeout(done, 20)); })()",
        )
        .unwrap();
        tab
    }
}

/// Hands an answer to who asked, and prints what pages say.
fn hear(message: &Value, waiting: &Waiting, complaints: &Complaints) {
    if let Some(id) = message["id"].as_u64() {
        if let Some(asked) = waiting.lock().unwrap().remove(&id) {
            // Who asked may have stopped waiting.
            let _ = asked.send(message.clone());
        }
        return;
    }
    let (params, session) = (&message["params"], message["sessionId"].as_str());
    let say = |text: String, wrong: bool| {
        eprintln!("page: {text}");
        if wrong {
            complaints.lock().unwrap().push((session.unwrap_or_default().into(), text));
        }
    };
    match message["method"].as_str() {
        Some("Runtime.consoleAPICalled") => {
            let args = params["args"].as_array().cloned().unwrap_or_default();
            let text = |arg: &Value| arg["value"].as_str().map_or(arg.to_string(), str::to_owned);
            let said: Vec<String> = args.iter().map(text).collect();
            say(said.join(" "), params["type"] == "error");
        }
        Some("Runtime.exceptionThrown") => say(params["exceptionDetails"].to_string(), true),
        Some("Log.entryAdded") => {
            let entry = &params["entry"];
            say(entry["text"].to_string(), entry["level"] == "error");
        }
        _ => {}
    }
}

impl Tab<'_> {
    fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.browser.call(Some(&self.session), method, params)
    }

    /// Waits until an expression holds, and gives it; where that takes too long, `told` is what the
    /// page says of it.
    pub fn wait_for(&self, expression: &str, patience: Duration, told: &str) -> Value {
        let began = Instant::now();
        loop {
            let value = self.evaluate(expression).unwrap();
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            let said = || self.evaluate(told).unwrap();
            assert!(began.elapsed() < patience, "{expression}: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What an expression, or the promise that it is, comes to.
    pub fn evaluate(&self, expression: &str) -> Result<Value, String> {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = loop {
            match self.call("Runtime.evaluate", params.clone()) {
                // The page that was there before has gone.
                Err(error) if error.contains("context was destroyed") => {}
                answer => break answer?,
            }
        };
        match answer.get("exceptionDetails") {
            Some(details) => {
                let said = &details["exception"]["description"];
                Err(said.as_str().map_or_else(|| details.to_string(), str::to_owned))
            }
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// What the page has complained of: exceptions, errors, what its policy of content refused.
    pub fn complaints(&self) -> Vec<String> {
        let all = self.browser.complaints.lock().unwrap();
        all.iter().filter(|(of, _)| *of == self.session).map(|(_, said)| said.clone()).collect()
    }

    /// Its controls as a screen reader has them.
    pub fn controls(&self) -> Vec<Value> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).unwrap();
        let role = |node: &&Value| {
            let role = node["role"]["value"].as_str();
            matches!(role, Some("button" | "textbox" | "combobox" | "link" | "image"))
        };
        tree["nodes"].as_array().unwrap().iter().filter(role).cloned().collect()
    }

    /// A picture of the page, as PNG in base 64, on a screen of this size.
    pub fn picture(&self, [width, height]: [u32; 2], dark: bool) -> String {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).unwrap();
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).unwrap();
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).unwrap();
        picture["data"].as_str().unwrap().to_owned()
    }

    /// Closes it.
    pub fn close(self) {
        let target = json!({ "targetId": self.target });
        self.browser.call(None, "Target.closeTarget", target).unwrap();
    }
}
