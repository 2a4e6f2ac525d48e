use super::*;
use crate::public::{Card, tiny};

const GENTLE: Recipe = Recipe { rate: 1e-2, passes: 16, batch: 4, seed: 1 };

fn keyboard(public: &Arc<PublicModel>, recipe: &Recipe) -> Keyboard {
    Keyboard::new(&Device::cpu(), "ann", public, recipe, (400, 5)).unwrap()
}

/// Somebody who has one thing to say.
fn text(public: &PublicModel, saying: &str, characters: usize) -> Vec<u32> {
    let chars = saying.chars().cycle().take(characters).collect::<String>();
    public.card.alphabet.encode(&chars)
}

#[test]
fn every_character_is_a_record_once_however_the_text_comes() {
    let public = Arc::new(tiny());
    let text = text(&public, "a rose is a rose\n", 390);
    let counted = |pieces: usize| {
        let mut keyboard = keyboard(&public, &GENTLE);
        for piece in text.chunks(pieces) {
            keyboard.type_text(piece).unwrap();
        }
        assert_eq!((keyboard.missing(), keyboard.is_ready()), (10, false));
        keyboard.client.expected()
    };
    let (whole, parts) = (counted(390), counted(50));
    assert_eq!((whole.targets, parts.targets), (390, 390));
    assert!(whole.top3 >= whole.top1);
    let shape = Shape { rows: 2, length: CONTEXT + WINDOW };
    let batches = typed(&text[..100], &text[100..], shape).unwrap();
    assert_eq!(batches.iter().map(Batch::counted).sum::<usize>(), 290);
    assert_eq!(batches.len(), 2, "80 of a window count");
}

#[test]
fn records_accumulate_until_the_preset_count_and_again_after_it() {
    let public = Arc::new(tiny());
    let mut keyboard = keyboard(&public, &GENTLE);
    let text = text(&public, "so it goes\n", 1000);
    keyboard.type_text(&text[..300]).unwrap();
    assert_eq!((keyboard.missing(), keyboard.is_ready()), (100, false));
    assert!(keyboard.customize(&mut || {}).unwrap().is_none(), "not ready yet");
    assert_eq!(keyboard.missing(), 100);

    keyboard.type_text(&text[300..450]).unwrap();
    let cold = keyboard.client.expected();
    let mut updates = 0;
    let round = keyboard.customize(&mut || updates += 1).unwrap().unwrap();
    assert!(round.adopted && keyboard.is_customized(), "{round:?}");
    assert!(round.loss_after < round.loss_before - 0.5, "{round:?}");
    assert_eq!((round.records, round.work.updates, keyboard.missing()), (450, updates, 400));
    let places = u64::from(updates) * (CONTEXT + WINDOW) as u64;
    assert_eq!(keyboard.training_flops(), places * public.training_flops());

    keyboard.type_text(&text[450..900]).unwrap();
    let second = keyboard.customize(&mut || {}).unwrap().unwrap();
    assert!(second.expected.top1_rate() > cold.top1_rate() + 0.2, "{second:?} after {cold:?}");
    assert_eq!(keyboard.rounds(), [round, second]);
}

#[test]
fn a_customized_model_that_does_worse_is_not_adopted() {
    let public = Arc::new(tiny());
    let mut keyboard = keyboard(&public, &Recipe { rate: 1e4, ..GENTLE });
    // What is held back has nothing to do with what came before.
    keyboard.type_text(&text(&public, "so it goes\n", 340)).unwrap();
    keyboard.type_text(&text(&public, "never say never\n", 60)).unwrap();
    let round = keyboard.customize(&mut || {}).unwrap().unwrap();
    assert!(!round.adopted && !keyboard.is_customized(), "{round:?}");
    assert_eq!(keyboard.weights(), public.weights());
    assert_eq!(keyboard.missing(), 400, "collection starts again all the same");
}

#[test]
fn a_newer_public_model_is_merged_where_that_does_better() {
    let public = Arc::new(tiny());
    let newer = |weights: Vec<f32>| {
        let card = Card { version: public.card.version + 1, ..public.card.clone() };
        PublicModel::new(card, weights).unwrap()
    };
    let mut fresh = keyboard(&public, &GENTLE);
    let mut own = keyboard(&public, &GENTLE);
    own.type_text(&text(&public, "so it goes\n", 400)).unwrap();
    own.customize(&mut || {}).unwrap();
    let mine = own.weights().to_vec();
    let far = newer(public.weights().iter().map(|x| x + 3.0 * x.signum()).collect());
    let merged = own.merge(&far).unwrap();
    let taken = fresh.merge(&far).unwrap();
    assert!(!merged.adopted && merged.loss_merged > merged.loss_before, "{merged:?}");
    assert!(own.weights() == mine);
    assert!(taken.adopted && !fresh.is_customized(), "it has nothing to lose");
    assert_eq!(fresh.weights(), far.weights());
    // One that is what this client has now keeps what it knows.
    let better = newer(mine);
    let merged = own.merge(&better).unwrap();
    assert_eq!(merged.loss_public, merged.loss_before, "{merged:?}");
    assert_eq!(merged.adopted, merged.loss_merged < merged.loss_before);
    assert!(fresh.merge(&better).is_err(), "no newer than what it has");
}

#[test]
fn few_records_make_narrow_batches() {
    let rows = |records| GENTLE.shape(records).rows;
    assert_eq!([MIN_RECORDS, 1279, 1280, 2560, 20_000].map(rows), [1, 1, 2, 4, 4]);
    assert_eq!([200, 2560, 20_000].map(|records| GENTLE.batches(records)), [3, 8, 63]);
    let recipe = GENTLE.for_batches(16);
    assert_eq!(recipe.schedule.decay, Decay::Linear { total: 16 * 14, floor: 5e-4 });
}
