use tern_engine::Device;

use super::*;
use crate::keyboard::public::{Card, tiny};
use crate::keyboard::workbench::{Recipe, Workbench};

const GENTLE: Recipe = Recipe { rate: 1e-2, passes: 8, batch: 4, seed: 1 };

fn bench() -> Workbench {
    Workbench::with_replicas(&Device::cpu(), &Arc::new(tiny()), 2).unwrap()
}

/// Somebody who has one thing to say.
fn text(public: &PublicModel, saying: &str, characters: usize) -> Vec<u32> {
    let chars = saying.chars().cycle().take(characters).collect::<String>();
    public.card.alphabet.encode(&chars)
}

#[test]
fn records_accumulate_until_the_preset_count_and_again_after_it() {
    let mut bench = bench();
    let public = bench.public().clone();
    let mut client = Client::new("ann", &public, 400);
    let text = text(&public, "so it goes\n", 1000);
    observe(&mut bench, &mut [&mut client], &[&text[..300]]).unwrap();
    assert_eq!((client.collected(), client.missing(), client.is_ready()), (300, 100, false));
    customize(&mut bench, &mut [&mut client], &GENTLE, |_, _| {}).unwrap();
    assert!(client.rounds().is_empty() && client.collected() == 300, "not ready yet");

    observe(&mut bench, &mut [&mut client], &[&text[300..450]]).unwrap();
    assert!(client.is_ready());
    let cold = client.typed();
    customize(&mut bench, &mut [&mut client], &GENTLE, |_, _| {}).unwrap();
    let [round] = client.rounds() else { panic!("one round") };
    assert!(round.adopted && client.is_customized(), "{round:?}");
    assert!(round.loss_after < round.loss_before - 0.5, "{round:?}");
    assert_eq!(round.records, 400);
    assert_eq!(client.collected(), 50, "what came after the preset count opens the next");
    assert_eq!(client.held_back[0].tokens.len() - client.held_back[0].from, 50);

    observe(&mut bench, &mut [&mut client], &[&text[450..800]]).unwrap();
    customize(&mut bench, &mut [&mut client], &GENTLE, |_, _| {}).unwrap();
    let [_, second] = client.rounds() else { panic!("two rounds") };
    assert!(second.typed_top1 > cold.top1() + 0.2, "{second:?} after {cold:?}");
    assert_eq!(client.held_back.len(), 2);
}

#[test]
fn records_hold_what_the_model_expected_and_what_was_typed() {
    let mut bench = bench();
    let public = bench.public().clone();
    let mut whole = Client::new("ann", &public, 400);
    let mut parts = Client::new("bob", &public, 400);
    let text = text(&public, "a rose is a rose\n", 120);
    observe(&mut bench, &mut [&mut whole], &[&text]).unwrap();
    for part in text.chunks(50) {
        observe(&mut bench, &mut [&mut parts], &[part]).unwrap();
    }
    assert_eq!(whole.records.iter().map(|r| r.typed).collect::<Vec<_>>(), text);
    let within = CONTEXT.min(50);
    assert_eq!(whole.records[..within], parts.records[..within], "the same input, the same output");
    let vocabulary = public.card.alphabet.tokens() as u32;
    for record in &whole.records {
        let [a, b, c] = record.predicted;
        assert!(a != b && b != c && a != c && a.max(b).max(c) < vocabulary);
    }
}

#[test]
fn a_customized_model_that_does_worse_is_not_adopted() {
    let mut bench = bench();
    let public = bench.public().clone();
    let mut client = Client::new("ann", &public, 400);
    let text = text(&public, "so it goes\n", 900);
    observe(&mut bench, &mut [&mut client], &[&text[..400]]).unwrap();
    let wild = Recipe { rate: 30.0, ..GENTLE };
    customize(&mut bench, &mut [&mut client], &wild, |_, _| {}).unwrap();
    assert!(!client.rounds()[0].adopted && !client.is_customized(), "{:?}", client.rounds());
    assert_eq!(client.weights(), public.weights());
    assert_eq!(client.collected(), 0, "collection starts again all the same");

    observe(&mut bench, &mut [&mut client], &[&text[400..]]).unwrap();
    customize(&mut bench, &mut [&mut client], &GENTLE, |_, _| {}).unwrap();
    assert!(client.rounds()[1].adopted && client.is_customized());
    // A loss that is no number is worse than any.
    let mine = client.weights().to_vec();
    let round = Round { loss_after: f64::NAN, ..client.rounds()[1].clone() };
    client.decide(vec![f32::NAN; mine.len()], round);
    assert_eq!(client.weights(), mine);
}

#[test]
fn clients_side_by_side_learn_from_their_own_records() {
    let mut bench = bench();
    let public = bench.public().clone();
    let sayings = ["so it goes\n", "never say never\n", "to be or not\n"];
    let texts = sayings.map(|saying| text(&public, saying, 400));
    let mut clients = sayings.map(|name| Client::new(name, &public, 400));
    let mut all: Vec<&mut Client> = clients.iter_mut().collect();
    let lines: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    observe(&mut bench, &mut all, &lines).unwrap();
    customize(&mut bench, &mut all, &GENTLE, |_, _| {}).unwrap();
    for (own, client) in clients.iter().enumerate() {
        let passages = texts.each_ref().map(|t| Passage { tokens: t.clone(), from: 1 });
        let jobs = passages.each_ref().map(|p| (client.weights(), std::slice::from_ref(p)));
        let losses = bench.read(&jobs).unwrap();
        let best = (0..3).min_by(|a, b| losses[*a].scores.loss.total_cmp(&losses[*b].scores.loss));
        assert_eq!(best, Some(own), "{}", client.name());
    }
}

#[test]
fn a_newer_public_model_is_merged_where_that_does_better() {
    let mut bench = bench();
    let public = bench.public().clone();
    let newer = |change: f32| {
        let weights = public.weights().iter().map(|x| x + change * x.signum()).collect();
        let card = Card { version: public.card.version + 1, ..public.card.clone() };
        Arc::new(PublicModel::new(card, weights).unwrap())
    };
    let mut fresh = Client::new("bob", &public, 400);
    let mut client = Client::new("ann", &public, 400);
    let text = text(&public, "so it goes\n", 400);
    observe(&mut bench, &mut [&mut client], &[&text]).unwrap();
    customize(&mut bench, &mut [&mut client], &GENTLE, |_, _| {}).unwrap();
    let own = client.weights().to_vec();
    let far = newer(3.0);
    merge(&mut bench, &mut [&mut client, &mut fresh], &far).unwrap();
    let merged = client.merged().unwrap();
    assert!(!merged.adopted && merged.loss_merged > merged.loss_before, "{merged:?}");
    assert!(client.weights() == own);
    assert!(fresh.merged().unwrap().adopted && !fresh.is_customized(), "it has nothing to lose");
    assert_eq!(fresh.weights(), far.weights());
    // One that is what this client has now keeps what it knows.
    let card = Card { version: public.card.version + 1, ..public.card.clone() };
    let better = Arc::new(PublicModel::new(card, own.clone()).unwrap());
    merge(&mut bench, &mut [&mut client], &better).unwrap();
    let merged = client.merged().unwrap();
    assert_eq!(merged.loss_public, merged.loss_before, "{merged:?}");
    assert_eq!(merged.adopted, merged.loss_merged < merged.loss_before);
    assert!(merge(&mut bench, &mut [&mut fresh], &better).is_err(), "no newer than what it has");
}
