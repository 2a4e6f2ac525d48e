//! Models that a client fetches, whole or as what differs from the one that it has.

use super::*;
use crate::update::Scales;

/// A later model: what is fetched of it, and its digest.
fn later() -> (Vec<u8>, Digest, Vec<f32>) {
    let p = participant(Encoding::Full);
    let ahead: Vec<f32> = model().iter().map(|x| 0.5 * x).collect();
    let scales = Scales::Own(p.task.updates.ternary);
    let (difference, _) = p.codec.ternary(&ahead, &[0.0; 128], scales, [1, 2, 3]).unwrap();
    let values = add_difference(&p.layout, &model(), &difference).unwrap();
    assert_ne!(values, model());
    (difference, Digest::of(&Codec::full(&values)), values)
}

/// An instruction to train on the later model, which is offered as a difference from `base`, too.
fn offered(
    turn: Turn,
    base: &[f32],
    (difference, digest, _): &(Vec<u8>, Digest, Vec<f32>),
) -> Input {
    let base = Digest::of(&Codec::full(base)).0.to_vec();
    let difference = Digest::of(difference).0.to_vec();
    let model = Some(wire::Model { digest: digest.0.to_vec(), base, difference });
    instruction(turn, What::Train(wire::Train { model, ..Default::default() }))
}

/// A client that has the first model.
fn with_first() -> Participant {
    let mut p = participant(Encoding::Full);
    encoded(&mut p, FIRST, 0.1);
    p
}

fn fetched(p: &mut Participant, digest: Digest, bytes: Vec<u8>) -> Vec<Action> {
    p.handle(Input::Fetched { digest, bytes }).unwrap()
}

#[test]
fn a_difference_is_fetched_where_its_base_is_there() {
    let later = later();
    let (difference, digest, values) = &later;
    // Without the base, or with another model: all of it.
    let mut fresh = participant(Encoding::Full);
    let fetch = fresh.handle(offered(NEXT, &model(), &later)).unwrap();
    assert_eq!(fetch, [Action::Fetch(*digest)]);
    let fetch = with_first().handle(offered(NEXT, &[0.0; 128], &later)).unwrap();
    assert_eq!(fetch.last(), Some(&Action::Fetch(*digest)));
    // Nor is what has no base a difference.
    let Input::Instruction(mut told) = offered(NEXT, &model(), &later) else { return };
    let Some(What::Train(train)) = &mut told.what else { return };
    train.model.as_mut().unwrap().base.clear();
    let fetch = participant(Encoding::Full).handle(Input::Instruction(told)).unwrap();
    assert_eq!(fetch, [Action::Fetch(*digest)]);
    // With it, what differs.
    let mut p = with_first();
    let fetch = p.handle(offered(NEXT, &model(), &later)).unwrap();
    assert_eq!(fetch.last(), Some(&Action::Fetch(Digest::of(difference))));
    let actions = fetched(&mut p, Digest::of(difference), difference.clone());
    let [Action::Train(job)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(&*job.model, values);
}

#[test]
fn what_is_not_what_was_announced_is_not_trained_on() {
    let later = later();
    let (difference, digest, _) = &later;
    let of = Digest::of(difference);
    let mut damaged = difference.clone();
    damaged[0] ^= 1;
    // Other bytes than the digest's.
    let mut p = with_first();
    p.handle(offered(NEXT, &model(), &later)).unwrap();
    assert_eq!(fetched(&mut p, of, damaged.clone()), [Action::Wait]);
    // The next time all of it, and other bytes of that are no model either.
    let fetch = p.handle(offered(NEXT, &model(), &later)).unwrap();
    assert_eq!(fetch.last(), Some(&Action::Fetch(*digest)));
    assert_eq!(fetched(&mut p, *digest, Codec::full(&model())), [Action::Wait]);
    // A difference that is the one announced, and gives another model than announced.
    let mut p = with_first();
    let other = (difference.clone(), Digest::of(b"another model"), Vec::new());
    p.handle(offered(NEXT, &model(), &other)).unwrap();
    assert_eq!(fetched(&mut p, of, difference.clone()), [Action::Wait]);
    // What nobody waits for.
    let mut p = with_first();
    assert_eq!(fetched(&mut p, of, difference.clone()), [Action::Wait]);
    // Something that failed on the way is asked for again.
    let again = offered(NEXT, &model(), &later);
    p.handle(again.clone()).unwrap();
    assert_eq!(p.handle(Input::Failed("no network".into())).unwrap(), [Action::Wait]);
    assert_eq!(p.handle(again).unwrap().last(), Some(&Action::Fetch(of)));
}
