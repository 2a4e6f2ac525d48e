//! A page that another server has: it takes part where its origin is listed. And when a page may.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tern_engine::nn::ModelSpec;
use tern_protocol::RunPlan;
use tern_protocol::layout::ModelKind;

use crate::chromium::Tab;
use crate::{package, serve_for, serve_page, tab_with_module, with_browser};

const PATIENCE: Duration = Duration::from_secs(60);

/// Serves the package's files to anybody and for as long as this process lives; says where.
fn files() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut line = String::new();
            let mut request = BufReader::new(&mut stream);
            if request.read_line(&mut line).is_err() {
                continue;
            }
            let mut header = String::new();
            while request.read_line(&mut header).is_ok_and(|bytes| bytes > 2) {
                header.clear();
            }
            let name = line.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, body) = match std::fs::read(package().join(&name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let kind = match name.rsplit_once('.') {
                Some((_, "js")) => "text/javascript",
                Some((_, "wasm")) => "application/wasm",
                _ => "text/plain",
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            // A browser may leave before the end.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

fn wait_for(tab: &Tab<'_>, expression: &str) -> Value {
    tab.wait_for(expression, PATIENCE, "location.href")
}

fn plan() -> RunPlan {
    let mut plan = RunPlan::new("elsewhere", ModelKind::Layers(ModelSpec::mlp(2, &[], 2)), 2);
    (plan.cohort.size, plan.cohort.minimum) = (1, 1);
    plan
}

#[test]
fn a_page_of_a_listed_origin_takes_part_and_no_other() {
    let Some((origin, browser)) = with_browser(files) else { return };
    for listed in [false, true] {
        let origins = if listed { vec![origin.parse().unwrap()] } else { Vec::new() };
        let serving = serve_for(&plan(), origins);
        let tab = browser.open(&format!("{origin}/README.md"));
        let options = json!({ "server": serving.url, "folder": format!("listed {listed}") });
        tab.evaluate(&format!(
            "(async () => {{ globalThis.tern = await import('/tern.js'); await tern.default(); \
             globalThis.events = []; globalThis.outcome = null; \
             const device = await tern.Device.open('cpu'); \
             const samples = await tern.Samples.rows(device, new Float32Array([0, 1, 1, 0]), 2, \
             new Uint32Array([0, 1]), 2); \
             globalThis.client = await tern.Client.open({options}, event => events.push(event)); \
             client.allowed = false; \
             client.run(device, samples).then(end => {{ outcome = end.finished; }}); }})()"
        ))
        .unwrap();
        if listed {
            // It enrolls, and waits until it may train.
            wait_for(&tab, "events.some(event => event.event === 'enrolled')");
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(tab.evaluate("events.length").unwrap(), 1, "not allowed to train yet");
            tab.evaluate("client.allowed = true").unwrap();
            assert_eq!(wait_for(&tab, "outcome"), true);
        } else {
            let waiting = wait_for(&tab, "events.find(event => event.event === 'waiting')");
            assert!(waiting["reason"].as_str().unwrap().contains("/v1/"), "{waiting}");
            assert_eq!(tab.evaluate("outcome").unwrap(), Value::Null);
        }
        tab.close();
    }
}

/// By a browser that says what a device may say: power, network and sight.
#[test]
fn conditions_are_told_when_they_change() {
    let Some((serving, browser)) = with_browser(serve_page) else { return };
    let tab = tab_with_module(&browser, &serving);
    tab.evaluate(
        "(async () => { \
         globalThis.battery = new EventTarget(); battery.charging = false; \
         globalThis.network = new EventTarget(); network.type = 'cellular'; \
         navigator.getBattery = async () => battery; \
         Object.defineProperty(navigator, 'connection', { value: network }); \
         globalThis.told = []; \
         const { known, watch } = await import('/page/conditions.js'); \
         globalThis.knows = ['charging', 'unmetered', 'visible'].map(known); \
         const asked = { charging: true, unmetered: true, visible: true }; \
         globalThis.end = await watch(asked, lacking => told.push(lacking.join())); })()",
    )
    .unwrap();
    assert_eq!(tab.evaluate("knows").unwrap(), json!([true, true, true]));
    tab.evaluate(
        "battery.charging = true; battery.dispatchEvent(new Event('chargingchange')); \
         network.dispatchEvent(new Event('change')); \
         network.type = 'wifi'; network.dispatchEvent(new Event('change')); \
         network.saveData = true; network.dispatchEvent(new Event('change')); \
         end(); network.saveData = false; network.dispatchEvent(new Event('change')); ",
    )
    .unwrap();
    let told = tab.evaluate("told").unwrap();
    assert_eq!(told, json!(["charging,unmetered", "unmetered", "", "unmetered"]));
    // What isn't asked for doesn't matter.
    tab.evaluate(
        "import('/page/conditions.js').then(({ watch }) => watch({}, l => told.push(l.length)))",
    )
    .unwrap();
    assert_eq!(wait_for(&tab, "told.length === 5 && [told[4]]"), json!([0]));
}
