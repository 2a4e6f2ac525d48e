use super::*;
use crate::public::{Card, tiny};
use tern_fl::methods::personalize::Public;

fn session(script: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    session_in(folder.path(), &Arc::new(tiny()), script).unwrap()
}

fn session_in(folder: &Path, public: &Arc<PublicModel>, script: &str) -> Result<String> {
    let mut out = Vec::new();
    let recipe = Recipe { rate: 1e-2, ..recipe(1) };
    let (file, mut script) = (folder.join("you.device"), script.as_bytes());
    let input = Input::Lines(&mut script);
    run(&Device::cpu(), public, &file, 200, recipe, input, &mut out)?;
    Ok(String::from_utf8(out)?)
}

#[test]
fn a_session_goes_on_from_the_one_before() {
    let (folder, public) = (tempfile::tempdir().unwrap(), Arc::new(tiny()));
    let type_in = |public: &_, script: &str| session_in(folder.path(), public, script);
    let file = folder.path().join("you.device");
    let first = type_in(&public, &"so it goes\n\n".repeat(30)).unwrap();
    assert_eq!(first.matches(": adopted.").count(), 1, "{first}");
    assert!(first.contains("What it learned stays here; `--out "));
    // The device has all that the next session needs.
    let public = Arc::new(PublicModel::downloaded(Public::of_device(&file).unwrap()).unwrap());
    let second = type_in(&public, &"so it goes\n\n".repeat(10)).unwrap();
    assert!(second.contains("Goes on after 1 trainings and 121 characters more."), "{second}");
    // All 440 characters as in one session.
    assert_eq!(second.matches("Learned from 209 characters").count(), 1, "{second}");
    let newer = |version, change: f32| {
        let weights = public.weights().iter().map(|x| x + change * x.signum()).collect();
        let card = Card { version, ..public.card.clone() };
        Arc::new(PublicModel::new(card, weights).unwrap())
    };
    let third = type_in(&newer(4, 9.0), ":q\n").unwrap();
    assert!(third.contains("Version 4 of the public model: not taken"), "{third}");
    let third = type_in(&newer(4, 1e-6), "\n").unwrap();
    assert!(third.contains("Version 4 of the public model: "), "{third}");
    for other in [newer(3, 1.0), newer(2, 0.0)] {
        let error = format!("{:#}", type_in(&other, ":q\n").unwrap_err());
        assert!(error.contains("you.device: a device with another public model"), "{error}");
    }
}

#[test]
fn suggestions_change_as_it_learns() {
    let script = "so it goes\n\n".repeat(40);
    let shown = session(&script);
    assert!(shown.contains("It learns after 200 characters."));
    assert_eq!(shown.matches("Learned from 209 characters").count(), 2, "{shown}");
    assert!(shown.contains(": adopted."), "{shown}");
    assert!(shown.contains("440 characters with 440 keystrokes: 0 % saved."), "{shown}");
}

#[test]
fn a_suggestion_taken_costs_one_key() {
    let shown = session("Lo\n:1\n:q\nnever read\n");
    // The prompt after "Lo" was typed; the one before it suggests how a line may begin.
    let offered = shown.lines().find(|line| line.contains(":1 Lo")).unwrap_or_default();
    let word = offered.split_whitespace().nth(1).unwrap_or_default();
    assert!(word.starts_with("Lo") && word.len() > 2, "{shown}");
    let expected = format!("{} characters with 3 keystrokes", word.chars().count() + 1);
    assert!(shown.contains(&expected), "{shown}");
    assert!(!shown.contains("never"));
}

#[test]
fn a_finished_word_is_not_completed_further() {
    let public = Arc::new(tiny());
    let alphabet = public.card.alphabet.clone();
    let mut log_probs = vec![-1e3; alphabet.tokens()];
    for (c, share) in [(' ', 0.3f32), ('.', 0.3), ('s', 0.4)] {
        log_probs[alphabet.token(c) as usize] = share.ln();
    }
    assert!((end_of_word(&log_probs, &alphabet) - 0.6).abs() < 1e-6);

    // A model that has learned one line.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("you.device");
    let device = Device::cpu();
    let recipe = Recipe { rate: 3e-2, passes: 8, ..recipe(1) };
    let keyboard = Keyboard::new(&device, "you", &public, &recipe, (400, 400)).unwrap();
    let predictor = Predictor::new(&device, &public).unwrap();
    let (before, read) = (vec![alphabet.token('\n')], (Vec::new(), Vec::new()));
    let file = file.as_path();
    let mut session = Session { public: &public, predictor, keyboard, file, before, read };
    for _ in 0..40 {
        session.end_line("so it goes on and on", &mut |_| Ok(())).unwrap();
    }
    assert!(session.keyboard.rounds().iter().any(|round| round.adopted));
    // Inside the word it is completed, after it the next one is suggested.
    let first =
        |session: &mut Session<'_>, line: &str| session.suggestions(line).unwrap().remove(0);
    let offer = |word: &str, adds: &str| Offer { word: word.into(), adds: adds.into() };
    assert_eq!(first(&mut session, "so it go"), offer("goes", "es"));
    assert_eq!(first(&mut session, "so it goes"), offer("on", " on"));
    assert_eq!(first(&mut session, "so it goes "), offer("on", "on"));
    // As if each had been read alone.
    session.read = (Vec::new(), Vec::new());
    let alone = session.suggestions("so it goes ").unwrap();
    session.suggestions("so i").unwrap();
    session.suggestions("so it goes on").unwrap();
    assert_eq!(session.suggestions("so it goes ").unwrap(), alone);
}
