//! The page that takes part: what it shows, to whom, and that it does what it says.

use std::time::{Duration, Instant};

use serde_json::json;
use tern_engine::nn::ModelSpec;
use tern_protocol::RunPlan;
use tern_protocol::layout::ModelKind;
use tern_protocol::tokens::Tokens;

use crate::chromium::Tab;
use crate::{serve, with_browser};

const PATIENCE: Duration = Duration::from_secs(300);
const TEXT: &str = "The sun was warm and the wind was mild, and the boats lay still in the bay. ";

fn plan() -> RunPlan {
    let tokens = Tokens::Ascii;
    let model = ModelSpec::language_model(tokens.vocabulary(), 8, 32, 1);
    let mut plan = RunPlan::new("keyboard", ModelKind::Layers(model), 3);
    (plan.cohort.size, plan.cohort.minimum) = (1, 1);
    plan.training.batch = 4;
    plan.tokens = Some(tokens);
    plan
}

fn text(tab: &Tab<'_>, id: &str) -> String {
    let value = tab.evaluate(&format!("document.getElementById('{id}').textContent")).unwrap();
    value.as_str().unwrap().to_owned()
}

fn wait_for(tab: &Tab<'_>, expression: &str) {
    let began = Instant::now();
    while tab.evaluate(expression).unwrap() != true {
        assert!(began.elapsed() < PATIENCE, "{expression}: {}", text(tab, "state"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Keeps a picture where somebody wants to look at it.
fn picture(tab: &Tab<'_>, name: &str, size: [u32; 2], dark: bool) {
    let picture = tab.picture(size, dark);
    if let Ok(folder) = std::env::var("TERN_BROWSER_REPORTS") {
        let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, picture).unwrap();
    }
}

#[test]
fn a_visitor_writes_takes_part_and_is_forgotten() {
    let Some((serving, browser)) = with_browser(|| serve(&plan())) else { return };
    let began = Instant::now();
    let tab = browser.open(&format!("{}/page/#token=unused&device=cpu", serving.url));
    wait_for(&tab, "document.getElementById('device').textContent !== '–'");
    eprintln!("interactive after {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(text(&tab, "name"), "keyboard");
    assert!(text(&tab, "masked").contains("in the clear"), "{}", text(&tab, "masked"));
    let disabled = |id: &str| tab.evaluate(&format!("document.getElementById('{id}').disabled"));
    assert_eq!(disabled("join").unwrap(), true, "nothing is written yet");
    // Writing, and a suggestion by its key.
    tab.evaluate(&format!(
        "(() => {{ const text = document.getElementById('text'); text.value = {}; \
         text.dispatchEvent(new Event('input')); }})()",
        json!(TEXT.repeat(8))
    ))
    .unwrap();
    wait_for(&tab, "document.querySelectorAll('#suggestions button').length === 3");
    tab.evaluate(
        "document.dispatchEvent(new KeyboardEvent('keydown', { key: '1', altKey: true }))",
    )
    .unwrap();
    let written = tab.evaluate("document.getElementById('text').value.length").unwrap();
    assert!(written.as_u64().unwrap() > 8 * TEXT.len() as u64, "{written}");
    // Every control says to a screen reader what it is.
    for control in tab.controls() {
        assert!(!control["name"]["value"].as_str().unwrap_or_default().is_empty(), "{control}");
    }
    assert_eq!(disabled("join").unwrap(), false);
    tab.evaluate("document.getElementById('join').click()").unwrap();
    wait_for(&tab, "document.getElementById('state').textContent.startsWith('the run is over')");
    assert_eq!((text(&tab, "updates"), text(&tab, "round")), ("3".into(), "3".into()));
    let label = tab.evaluate("document.getElementById('chart').getAttribute('aria-label')");
    assert!(label.unwrap().as_str().unwrap().contains("after round 3"));
    for (name, size, dark) in [
        ("desktop-light", [1280, 800], false),
        ("desktop-dark", [1280, 800], true),
        ("phone-light", [360, 780], false),
        ("phone-dark", [360, 780], true),
    ] {
        picture(&tab, name, size, dark);
        let width = tab.evaluate("document.scrollingElement.scrollWidth").unwrap();
        assert!(width.as_u64().unwrap() <= u64::from(size[0]), "{name} is {width} wide");
    }
    let id = text(&tab, "id");
    tab.evaluate("document.getElementById('forget').click()").unwrap();
    wait_for(&tab, "document.getElementById('state').textContent.startsWith('forgotten')");
    assert_ne!(text(&tab, "id"), id);
    assert_eq!(tab.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_of_the_suite_shows_kernels_and_times_and_makes_a_report() {
    let Some((serving, browser)) = with_browser(|| serve(&plan())) else { return };
    let tab = browser.open(&format!("{}/page/bench.html", serving.url));
    tab.evaluate(
        "document.getElementById('device').value = 'cpu'; \
         document.querySelectorAll('[type=checkbox]').forEach(box => { box.checked = true; }); \
         document.getElementById('run').click()",
    )
    .unwrap();
    wait_for(&tab, "document.getElementById('rows').children.length > 10");
    picture(&tab, "bench", [360, 780], false);
    wait_for(&tab, "!document.getElementById('report').hidden");
    let kernels = tern_shaders::kernels().count();
    assert_eq!(text(&tab, "state"), format!("{kernels} kernels, 0 wrong, on Cpu"));
    let timed = tab.evaluate("document.getElementById('timed').children.length").unwrap();
    assert!(timed.as_u64().unwrap() > kernels as u64, "{timed} of {kernels} kernels are timed");
    picture(&tab, "times", [1280, 900], false);
    // The page's policy lets nobody fetch it, but it can be saved.
    let link = "(({ href, download }) => [href.split(':')[0], download])";
    let link = tab.evaluate(&format!("{link}(document.getElementById('report'))"));
    assert_eq!(link.unwrap(), json!(["blob", "report.json"]));
    assert_eq!(tab.complaints(), Vec::<String>::new());
}
