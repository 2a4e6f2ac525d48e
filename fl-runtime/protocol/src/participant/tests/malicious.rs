//! Real participants, and a server that does with their sessions what it likes.

use std::collections::BTreeMap;

use tern_secagg::{
    Advertisement, Complaints, Confirmation, Included, Message, Reveal, Shares, Unpacker, server,
};

use super::*;
use crate::masking::job;
use crate::plan::Task;
use crate::update::Codec;

/// A run of clients with these samples, none of them corrupt, of which two in five may drop out.
struct Run {
    plan: RunPlan,
    task: Task,
    participants: Vec<Participant>,
}

/// How a session ended.
#[derive(Debug)]
struct Sum {
    /// Of the updates, each times its client's weight.
    values: Vec<f32>,
    /// Means of what was measured.
    metrics: Metrics,
}

/// Why clients left a session, by their places.
type Left = BTreeMap<usize, String>;

fn secret(place: usize) -> SigningKey {
    SigningKey::from_bytes(&[place as u8 + 1; 32])
}

/// A client that asks for nobody's honesty but two others', and otherwise for what all ask.
fn started(task: &Task, place: usize, kept: SavedState) -> Participant {
    let new = Participant::new(&secret(place), task.clone(), &Device::cpu(), kept).unwrap();
    new.requiring(RequiredSecurity { corrupt: 0.0, ..RequiredSecurity::of(2) }).unwrap()
}

impl Run {
    fn new(samples: &[u32]) -> Self {
        let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), 9);
        (plan.cohort.size, plan.cohort.minimum) = (samples.len() as u32, 2);
        let (corrupt, dropout, honest) = (0.0, 0.4, 2);
        plan.secure = Some(crate::plan::Secure { corrupt, dropout, honest, ..Default::default() });
        let task = Task::from(plan.task(RunId([1; 16])).unwrap());
        let participants =
            (0..samples.len()).map(|place| started(&task, place, SavedState::default()));
        let mut participants: Vec<Participant> = participants.collect();
        for (participant, samples) in participants.iter_mut().zip(samples) {
            participant.set_samples(*samples);
        }
        Run { plan, task, participants }
    }

    /// A client's process ends, and starts from what it kept.
    fn restart(&mut self, place: usize) {
        let (kept, samples) = {
            let before = &self.participants[place];
            (before.kept.clone(), before.samples)
        };
        self.participants[place] = started(&self.task, place, kept);
        self.participants[place].set_samples(samples);
    }

    /// What a client answers; `None` if it leaves.
    fn ask(&mut self, place: usize, turn: Turn, what: What, left: &mut Left) -> Option<Body> {
        let actions = self.participants[place].handle(instruction(turn, what)).unwrap();
        let Some(Action::Send(wire::Message { body: Some(body), .. })) = actions.last() else {
            panic!("{actions:?}")
        };
        if let Body::Declined(declined) = body {
            left.insert(place, declined.reason.clone());
            return None;
        }
        Some(body.clone())
    }

    /// A session of these clients about a model, in which client `place` makes the update
    /// `update(place)`; to the end, if enough stay. Those who drop out upload nothing.
    fn session(
        &mut self,
        (places, dropped): (&[usize], &[usize]),
        turn: Turn,
        model: &[f32],
        update: &dyn Fn(usize) -> Vec<f32>,
    ) -> (Option<Sum>, Left) {
        let mut left = Left::new();
        let masking = self.plan.masking(&self.plan.check().unwrap()).unwrap().unwrap();
        let session = masking.session(&self.task.run, &self.task.digest(), turn);
        let mut advertising = server::Advertising::new(session);
        for place in places {
            let asked = What::Advertise(wire::Advertise {});
            let Some(Body::Keys(keys)) = self.ask(*place, turn, asked, &mut left) else { continue };
            let keys = Advertisement::decode(&keys.advertisement).unwrap();
            advertising.advertise(keys).unwrap();
        }
        let Ok((mut sharing, roster)) = advertising.close() else { return (None, left) };
        let number = |sharing: &server::Sharing, place: usize| {
            sharing.number(secret(place).verifying_key().as_bytes())
        };
        let mut numbers = BTreeMap::new();
        for place in places {
            let Some(of) = number(&sharing, *place) else { continue };
            numbers.insert(of, *place);
            let asked = What::ShareKeys(wire::ShareKeys { roster: roster.encode() });
            let Some(Body::Shares(shares)) = self.ask(*place, turn, asked, &mut left) else {
                continue;
            };
            sharing.share(of, Shares::decode(&shares.shares).unwrap()).unwrap();
        }
        let body = Codec::full(model);
        let digest = Digest::of(&body);
        let Ok((mut checking, inboxes)) = sharing.close() else { return (None, left) };
        for (of, inbox) in inboxes {
            let asked = What::CheckShares(wire::CheckShares { inbox: inbox.encode() });
            let answer = self.ask(numbers[&of], turn, asked, &mut left);
            let Some(Body::Checked(checked)) = answer else { continue };
            let complaints = Complaints::decode(&checked.complaints).unwrap();
            assert!(checking.check(of, complaints).unwrap().is_empty());
        }
        let Ok((mut collecting, partners)) = checking.close(job(&digest, &[])) else {
            return (None, left);
        };
        let mut words = vec![0; masking.packing.words()];
        for (of, partners) in partners {
            let place = numbers[&of];
            if dropped.contains(&place) {
                continue;
            }
            let participant = &mut self.participants[place];
            let model = Some(wire::Model { digest: digest.0.to_vec(), ..Default::default() });
            let asked = wire::Train { model, partners: partners.encode(), ..Default::default() };
            let mut actions = participant.handle(instruction(turn, What::Train(asked))).unwrap();
            if let Some(Action::Fetch(digest)) = actions.last().cloned() {
                let bytes = body.clone();
                actions = participant.handle(Input::Fetched { digest, bytes }).unwrap();
            }
            match actions.last() {
                Some(Action::Train(_)) => {}
                Some(Action::Send(wire::Message { body: Some(Body::Declined(d)), .. })) => {
                    left.insert(place, d.reason.clone());
                    continue;
                }
                _ => panic!("{actions:?}"),
            }
            let samples = participant.samples;
            let metrics = Metrics::from([("loss".to_string(), place as f64 / 8.0)]);
            let trained = Trained::new(update(place), samples, metrics);
            participant.handle(Input::Trained(trained)).unwrap();
            let pending = participant.kept().pending.clone().unwrap();
            assert_eq!(pending.finish().metrics, Metrics::new(), "a client's own");
            let mut unpacker = Unpacker::new(masking.packing);
            unpacker.add(&pending.body, &mut words).unwrap();
            collecting.upload(of, Included::decode(&pending.included).unwrap()).unwrap();
        }
        let Ok((mut confirming, survivors)) = collecting.close() else { return (None, left) };
        for of in survivors.members.iter().copied() {
            let asked = What::ConfirmSet(wire::ConfirmSet { survivors: survivors.encode() });
            let answer = self.ask(numbers[&of], turn, asked, &mut left);
            let Some(Body::Confirmation(signed)) = answer else { continue };
            let signed = Confirmation::decode(&signed.confirmation).unwrap();
            confirming.confirm(of, signed).unwrap();
        }
        let Ok((mut unmasking, requests)) = confirming.close() else { return (None, left) };
        for (of, request) in requests {
            let asked = What::Unmask(wire::Unmask { request: request.encode() });
            let Some(Body::Reveal(reveal)) = self.ask(numbers[&of], turn, asked, &mut left) else {
                continue;
            };
            unmasking.reveal(of, Reveal::decode(&reveal.reveal).unwrap()).unwrap();
        }
        let Ok(unmasked) = unmasking.close().1 else { return (None, left) };
        unmasked.masks.add_to(&mut words);
        let crate::Code::Fixed(code) = masking.code else { panic!("no fixed point") };
        let layout = self.plan.check().unwrap();
        let codec = Codec::new(&Device::cpu(), &layout).unwrap();
        let measured = words.split_off(masking.vector_words());
        let values = codec.unmasked(&words, code).unwrap();
        (Some(Sum { values, metrics: masking.measured.means(&measured, 1 << 20) }), left)
    }
}

/// Of full batches: the same in each session.
fn full_batches(place: usize) -> Vec<f32> {
    (0..128).map(|i| ((i * 7 + place * 13) % 29) as f32 / 100.0 - 0.14).collect()
}

/// How far a vector is from another, as a part of it.
fn error(found: &[f32], right: &[f32]) -> f32 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut found.iter().zip(right).map(|(a, b)| a - b)) / norm(&mut right.iter().copied())
}

const ALL: [usize; 5] = [0, 1, 2, 3, 4];
/// Without the client that the server is after.
const OTHERS: [usize; 4] = [0, 1, 2, 3];

#[test]
fn what_was_answered_is_sent_again_and_not_made_anew() {
    let mut run = Run::new(&[8; 3]);
    let mut advertise = |turn| {
        let what = What::Advertise(wire::Advertise {});
        run.participants[0].handle(instruction(turn, what)).unwrap()
    };
    let [Action::Save, Action::Send(first)] = &advertise(FIRST)[..] else { panic!() };
    assert_eq!(advertise(FIRST), [Action::Send(first.clone())]);
    // Other keys in another attempt.
    let [Action::Save, Action::Send(other)] = &advertise(Turn::new(1, 2))[..] else { panic!() };
    assert_eq!((other.round, other.attempt), (1, 2));
    assert_ne!(other.body, first.body);
}

#[test]
fn no_second_sum_of_a_round_tells_a_client_from_the_others() {
    let mut run = Run::new(&[8; 5]);
    let (first, left) = run.session((&ALL, &[]), FIRST, &model(), &full_batches);
    let first = first.unwrap();
    assert_eq!(left, Left::new());
    // Nothing of the session stays in memory once its shares are taken.
    for participant in &mut run.participants {
        assert!(participant.secure.as_ref().unwrap().session.is_some());
        participant.handle(instruction(FIRST, What::Wait(wire::Wait {}))).unwrap();
        assert!(participant.secure.as_ref().unwrap().session.is_none());
    }
    // It says that the attempt failed, and asks again without its target. With the second sum it
    // would have the target's update to 5e-7 of it.
    let again = Turn::new(1, 2);
    let (second, left) = run.session((&OTHERS, &[]), again, &model(), &full_batches);
    if let Some(second) = second {
        let difference: Vec<f32> =
            first.values.iter().zip(&second.values).map(|(a, b)| a - b).collect();
        panic!("the target's update to {}", error(&difference, &full_batches(4)));
    }
    assert_eq!(left.len(), 4);
    for reason in left.values() {
        assert!(reason.contains("shares were revealed in round 1"), "{reason}");
    }
    // A client that was started again has not forgotten it.
    OTHERS.iter().for_each(|place| run.restart(*place));
    let (second, left) = run.session((&OTHERS, &[]), Turn::new(1, 3), &model(), &full_batches);
    assert!(second.is_none() && left.len() == 4, "{left:?}");
}

#[test]
fn another_round_on_the_same_model_is_no_way_around_it() {
    let mut run = Run::new(&[8; 5]);
    run.session((&ALL, &[]), FIRST, &model(), &full_batches).0.unwrap();
    // The next round, and the same model.
    let (second, left) = run.session((&OTHERS, &[]), NEXT, &model(), &full_batches);
    assert!(second.is_none() && left.len() == 4, "{left:?}");
    assert!(left[&0].contains("a set that differs by 1"), "{}", left[&0]);
    // Nor is a roster that has the target, if the target is then said to have dropped out.
    OTHERS.iter().for_each(|place| run.restart(*place));
    let turn = Turn::new(3, 1);
    let (second, left) = run.session((&ALL, &[4]), turn, &model(), &full_batches);
    assert!(second.is_none() && left.len() == 4, "{left:?}");
    // The same set of clients, whose sum tells nothing new, and another model.
    let mut run = Run::new(&[8; 5]);
    run.session((&ALL, &[]), FIRST, &model(), &full_batches).0.unwrap();
    assert!(run.session((&ALL, &[]), NEXT, &model(), &full_batches).0.is_some());
    let mut next = model();
    next[0] += 0.25;
    assert!(run.session((&OTHERS, &[]), Turn::new(3, 1), &next, &full_batches).0.is_some());
}

#[test]
fn sets_of_different_models_keep_apart_where_it_is_asked_for() {
    let mut next = model();
    next[0] += 0.25;
    for (difference, joined) in [(0, true), (1, true), (2, false)] {
        let mut run = Run::new(&[8; 5]);
        let required = RequiredSecurity { corrupt: 0.0, difference, ..RequiredSecurity::of(3) };
        for participant in &mut run.participants {
            let new = started(&run.task, 0, SavedState::default());
            let old = std::mem::replace(participant, new);
            *participant = old.requiring(required).unwrap();
        }
        run.session((&ALL, &[]), FIRST, &model(), &full_batches).0.unwrap();
        let (second, left) = run.session((&OTHERS, &[]), NEXT, &next, &full_batches);
        assert_eq!(second.is_some(), joined, "{difference} {left:?}");
    }
}

#[test]
fn no_client_is_made_to_stand_out_by_its_weight() {
    // One that has as many samples as the others hides behind them.
    let mut run = Run::new(&[40, 10, 12, 9, 11]);
    let (sum, left) = run.session((&ALL, &[]), FIRST, &model(), &full_batches);
    let Sum { values: sum, metrics } = sum.unwrap();
    assert_eq!(left, Left::new());
    let loss = (10.0 + 2.0 * 12.0 + 3.0 * 9.0 + 4.0 * 11.0) / 8.0 / 82.0;
    assert!((metrics["loss"] - loss).abs() < 1e-9, "{metrics:?}");
    let weights = [1.0, 0.25, 0.3, 0.225, 0.275];
    let mut expected = vec![0.0; 128];
    for (place, weight) in weights.into_iter().enumerate() {
        let update = full_batches(place);
        expected.iter_mut().zip(update).for_each(|(x, y)| *x += weight * y);
    }
    assert!(error(&sum, &expected) < 1e-5);
    assert!(error(&sum, &full_batches(0)) > 0.3);
    // One that has nearly all samples would be the sum. So would, of the others, whoever has the
    // most, if a member of the server's claimed so many that theirs came to nothing.
    for samples in [[2_000, 10, 12, 9, 11], [1 << 20, 4_000, 12, 9, 11]] {
        let mut run = Run::new(&samples);
        let (sum, left) = run.session((&ALL, &[]), FIRST, &model(), &full_batches);
        assert!(sum.is_none() && left.len() == 5, "{left:?}");
        assert!(left[&1].contains("more than 0.8 of"), "{}", left[&1]);
    }
    // The others may be there at first, and be said to drop out.
    let mut run = Run::new(&[95, 30, 3, 20, 20]);
    let (sum, left) = run.session((&ALL, &[1, 3]), FIRST, &model(), &full_batches);
    assert!(sum.is_none() && left.len() == 3, "{left:?}");
    assert!(left[&0].contains("95 samples are more than 0.8 of 118"), "{}", left[&0]);
}

#[test]
fn a_client_of_a_secure_run_tells_no_measurement_of_its_own() {
    let mut run = Run::new(&[8; 5]);
    let mut left = Left::new();
    let digest = Digest::of(&Codec::full(&model())).0.to_vec();
    let model = Some(wire::Model { digest, ..Default::default() });
    let asked = What::Evaluate(wire::Evaluate { model });
    assert!(run.ask(0, FIRST, asked, &mut left).is_none());
    assert!(left[&0].contains("in sums alone"), "{}", left[&0]);
}

#[test]
fn what_a_client_counts_for_is_signed() {
    let mut run = Run::new(&[8; 5]);
    let mut keys = Vec::new();
    let mut left = Left::new();
    for place in ALL {
        let asked = What::Advertise(wire::Advertise {});
        let Some(Body::Keys(of)) = run.ask(place, FIRST, asked, &mut left) else { panic!() };
        keys.push(Advertisement::decode(&of.advertisement).unwrap());
    }
    keys.sort_by_key(|keys| keys.identity);
    assert!(keys.iter().all(|keys| keys.samples == 8));
    // The server says that one has 2^30, so that the others' words are zero.
    keys[2].samples = 1 << 30;
    let changed = secret(0).verifying_key().to_bytes() == keys[2].identity;
    let roster = tern_secagg::Roster { members: keys }.encode();
    let asked = What::ShareKeys(wire::ShareKeys { roster });
    assert!(run.ask(0, FIRST, asked, &mut left).is_none());
    let expected = if changed { "doesn't hold the keys" } else { "the signature of member 2" };
    assert!(left[&0].contains(expected), "{}", left[&0]);
}

#[test]
fn a_session_is_of_the_bytes_that_were_told() {
    let run = Run::new(&[8; 5]);
    let masking = run.plan.masking(&run.plan.check().unwrap()).unwrap().unwrap();
    let taken = |told: &Task, read: &Task| {
        let mut participant = started(read, 0, SavedState::default());
        participant.set_samples(8);
        let asked = instruction(FIRST, What::Advertise(wire::Advertise {}));
        let actions = participant.handle(asked).unwrap();
        let [Action::Save, Action::Send(wire::Message { body: Some(Body::Keys(keys)), .. })] =
            &actions[..]
        else {
            panic!("{actions:?}")
        };
        let session = masking.session(&told.run, &told.digest(), FIRST);
        let keys = Advertisement::decode(&keys.advertisement).unwrap();
        server::Advertising::new(session).advertise(keys).is_ok()
    };
    // A field that this version doesn't know: read, the two tasks are the same.
    let more = run.task.text().replacen('{', "{\"other\":1,", 1);
    let more = Task::read(&more).unwrap();
    assert_eq!(*run.task, *more);
    assert!(taken(&run.task, &run.task) && taken(&more, &more));
    assert!(!taken(&run.task, &more) && !taken(&more, &run.task));
}
