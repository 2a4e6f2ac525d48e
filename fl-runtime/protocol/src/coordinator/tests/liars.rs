//! Secure rounds of participants of which a fifth breaks the protocol.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use tern_engine::Device;
use tern_secagg::{Masks, Seed, Session, Unpacker};

use super::dealer::wrong_shares;
use super::liar::{Dealt, Lie, accusation, garbage, other_shares};
use super::*;
use crate::Code;
use crate::participant::{Action, Input, Participant, SavedState};
use crate::plan::{Secure, Task};
use crate::trainer::Trained;
use crate::update::Codec;
use crate::wire::message::Body;

const ELEMENTS: usize = 128;

/// What a client answers to: it says nothing to the others.
type Heard = fn(&What) -> bool;

/// How a client takes part.
#[derive(Clone, Copy)]
enum Manner {
    Honest,
    Lies(Lie),
    /// Deals wrong shares to these in its first session.
    Deals(&'static [usize]),
    HearsOnly(Heard),
}

struct World {
    server: Coordinator,
    clients: Vec<(SigningKey, Participant, Manner)>,
    now: Millis,
    /// What was taken, as the journal has it.
    journal: Vec<wire::Journaled>,
    bodies: BTreeMap<ClientId, Vec<u8>>,
    /// The last instruction's, to tamper with what answers it.
    asked: Option<What>,
    records: Vec<RoundRecord>,
    failed: Vec<FailedAttempt>,
}

/// The model after so many rounds.
fn model(rounds: u32) -> Vec<u8> {
    Codec::full(&[rounds as f32; ELEMENTS])
}

fn update(client: usize) -> Vec<f32> {
    let mut update = vec![0.0; ELEMENTS];
    (update[0], update[1]) = ((client + 1) as f32 / 16.0, -0.25);
    update
}

/// What a client draws in its so manyth session.
fn seed(number: usize, session: u8) -> [u8; 32] {
    [number as u8 * 16 + session; 32]
}

fn ten(rounds: u32) -> Coordinator {
    let mut plan = RunPlan::new("ten", ModelKind::Layers(ModelSpec::mlp(2, &[], 1)), rounds);
    (plan.cohort.size, plan.cohort.minimum) = (10, 7);
    plan.secure = Some(Secure::default());
    Coordinator::new(plan, RUN, Head::initial(Digest::of(&model(0)), Vec::new())).unwrap()
}

fn world(manners: &[(usize, Manner)], rounds: u32) -> World {
    let server = ten(rounds);
    let task = server.plan().task(RUN).unwrap();
    let client = |number: usize| {
        let key = SigningKey::from_bytes(&[number as u8 + 1; 32]);
        let kept = SavedState::default();
        let mut drawn = 0;
        let entropy = move || {
            drawn += 1;
            Ok(Seed::from_bytes(seed(number, drawn)))
        };
        let mut client = Participant::new(&key, task.clone(), &Device::cpu(), kept).unwrap();
        client.set_samples(5);
        let manner = manners.iter().find(|(liar, _)| *liar == number);
        let manner = manner.map_or(Manner::Honest, |(_, manner)| *manner);
        (key, client.with_entropy(Box::new(entropy)), manner)
    };
    World {
        server,
        clients: (0..10).map(client).collect(),
        now: Millis(0),
        journal: Vec::new(),
        bodies: BTreeMap::new(),
        asked: None,
        records: Vec::new(),
        failed: Vec::new(),
    }
}

impl World {
    fn handle(&mut self, event: Event) -> Result<(), Refusal> {
        let journaled = event.to_wire(self.now.0);
        for effect in self.server.handle(self.now, event)? {
            match effect {
                Effect::Committed(record) => self.records.push(*record),
                Effect::Failed(failed) => self.failed.push(failed),
                Effect::Aggregate => self.check_sum(),
                Effect::Add { .. } | Effect::Finished => {}
            }
        }
        self.journal.push(journaled);
        Ok(())
    }

    /// The sum is that of those whose updates are in it, to the last bit.
    fn check_sum(&self) {
        let masking = self.server.masking().unwrap();
        let Code::Fixed(code) = masking.code else { panic!("{:?}", masking.code) };
        let codec = Codec::new(&Device::cpu(), &self.server.plan().check().unwrap()).unwrap();
        let packing = masking.packing;
        let (mut sum, mut expected) = (vec![0u32; packing.words()], vec![0u32; packing.words()]);
        for (client, _) in self.server.accepted() {
            let mut unpacker = Unpacker::new(packing);
            unpacker.add(&self.bodies[client], &mut sum).unwrap();
            unpacker.finish().unwrap();
            let is = |(key, ..): &(SigningKey, Participant, Manner)| {
                key.verifying_key().to_bytes() == client.0
            };
            let number = self.clients.iter().position(is).unwrap();
            let plain = codec.masked(&update(number), code, &Masks::default()).unwrap();
            for (sum, word) in expected.iter_mut().zip(plain) {
                *sum = sum.wrapping_add(word);
            }
        }
        self.server.unmasking().unwrap().masks.add_to(&mut sum);
        assert_eq!(sum, expected);
    }

    fn id(&self, number: usize) -> ClientId {
        ClientId(self.clients[number].0.verifying_key().to_bytes())
    }

    /// One instruction, and all that comes of it.
    fn poll(&mut self, number: usize) {
        let instruction = self.server.instruction(&self.id(number));
        let Some(what) = instruction.what.clone() else { return };
        if let Manner::HearsOnly(hears) = self.clients[number].2
            && !hears(&what)
        {
            return;
        }
        self.asked = Some(what);
        let mut actions = self.clients[number].1.handle(Input::Instruction(instruction)).unwrap();
        while !actions.is_empty() {
            let input = match actions.remove(0) {
                Action::Save | Action::Wait | Action::Stop(_) => continue,
                Action::Fetch(digest) => {
                    Input::Fetched { digest, bytes: model(self.server.turn().round - 1) }
                }
                Action::Train(_) => Input::Trained(Trained::new(update(number), 5, Metrics::new())),
                Action::Send(message) => self.send(number, message),
                Action::Upload => self.upload(number),
                Action::Evaluate(_) => panic!("nothing to evaluate"),
            };
            actions.extend(self.clients[number].1.handle(input).unwrap());
        }
    }

    fn send(&mut self, number: usize, mut message: wire::Message) -> Input {
        let (key, _, manner) = &self.clients[number];
        let turn = Turn::new(message.round, message.attempt);
        match (manner, &mut message.body, &self.asked) {
            (
                Manner::Lies(Lie::Garbage),
                Some(Body::Shares(sent)),
                Some(What::ShareKeys(wire::ShareKeys { roster })),
            ) => sent.shares = garbage(&self.session(turn), roster, key, &sent.shares),
            (
                Manner::Deals(to),
                Some(Body::Shares(sent)),
                Some(What::ShareKeys(wire::ShareKeys { roster })),
            ) => {
                let dealt = Dealt::new(&self.session(turn), roster, key);
                let to: Vec<ClientId> = to.iter().map(|number| self.id(*number)).collect();
                sent.shares = wrong_shares(&dealt, seed(number, 1), roster, &to, &sent.shares);
            }
            (
                Manner::Lies(Lie::Accuses),
                Some(Body::Checked(sent)),
                Some(What::CheckShares(wire::CheckShares { inbox })),
            ) => sent.complaints = accusation(inbox),
            (Manner::Lies(Lie::Reveals), Some(Body::Reveal(sent)), _) => {
                sent.reveal = other_shares(&sent.reveal);
            }
            _ => {}
        }
        let client = self.id(number);
        self.told(Event::Message { client, message })
    }

    fn session(&self, turn: Turn) -> Session {
        let task = Task::from(self.server.plan().task(RUN).unwrap()).digest();
        self.server.masking().unwrap().session(&RUN, &task, turn)
    }

    fn upload(&mut self, number: usize) -> Input {
        let client = self.id(number);
        let pending = self.clients[number].1.kept().pending.clone().unwrap();
        let upload = Upload {
            digest: pending.digest,
            bytes: pending.body.len() as u64,
            samples: pending.samples,
            metrics: pending.metrics.clone(),
            included: pending.included.clone(),
        };
        self.bodies.insert(client, pending.body.clone());
        self.told(Event::Uploaded { client, turn: pending.turn, upload })
    }

    fn told(&mut self, event: Event) -> Input {
        match self.handle(event) {
            Ok(()) => Input::Delivered,
            Err(refusal) => Input::Refused(refusal.name().into()),
        }
    }

    fn run(&mut self) {
        while !self.server.finished() {
            assert!(self.failed.len() < 9, "{:?}", self.failed);
            if self.server.wants_cohort() {
                let mut online: Vec<Candidate> = (0..self.clients.len())
                    .map(|number| Candidate { client: self.id(number), samples: 5 })
                    .collect();
                online.sort_by_key(|candidate| candidate.client);
                self.handle(Event::Start { online, salt: SALT }).unwrap();
            }
            let before = self.journal.len();
            (0..self.clients.len()).for_each(|number| self.poll(number));
            if self.server.combining() {
                let head = Head::initial(Digest::of(&model(self.server.turn().round)), Vec::new());
                self.handle(Event::Aggregated(head)).unwrap();
            } else if self.journal.len() == before {
                self.now = self.server.deadline().unwrap();
                self.handle(Event::Tick).unwrap();
            }
        }
    }

    fn excluded(&self) -> BTreeSet<ClientId> {
        self.server.excluded().keys().copied().collect()
    }

    fn uploaded(&self, round: usize) -> BTreeSet<ClientId> {
        self.records[round].uploads.keys().copied().collect()
    }
}

#[test]
fn a_fifth_that_lies_stops_no_round_and_is_out_of_later_ones() {
    for lies in [
        [Lie::Garbage, Lie::Garbage],
        [Lie::Accuses, Lie::Accuses],
        [Lie::Reveals, Lie::Reveals],
        [Lie::Garbage, Lie::Accuses],
        [Lie::Accuses, Lie::Reveals],
    ] {
        let mut world = world(&[(1, Manner::Lies(lies[0])), (4, Manner::Lies(lies[1]))], 2);
        world.run();
        assert_eq!(world.failed, [], "{lies:?}");
        let liars = BTreeSet::from([world.id(1), world.id(4)]);
        assert_eq!(world.excluded(), liars, "{lies:?}");
        let all: BTreeSet<ClientId> = (0..10).map(|number| world.id(number)).collect();
        let honest: BTreeSet<ClientId> = all.difference(&liars).copied().collect();
        assert!(world.uploaded(0).is_superset(&honest));
        // Who lied before masks were shared was out of this round, too.
        for (number, lie) in [(1, lies[0]), (4, lies[1])] {
            assert_eq!(world.uploaded(0).contains(&world.id(number)), lie == Lie::Reveals);
        }
        assert_eq!(world.uploaded(1), honest);
        // Who it was follows from the journal alone, and from a snapshot.
        let mut again = ten(2);
        for journaled in world.journal {
            let now = Millis(journaled.now);
            again.handle(now, Event::from_wire(journaled).unwrap()).unwrap();
        }
        assert_eq!(again.excluded(), world.server.excluded());
        let plan = world.server.plan().clone();
        let restored = Coordinator::restore(plan, RUN, &world.server.snapshot()).unwrap();
        assert_eq!(restored.excluded(), world.server.excluded());
    }
}

#[test]
fn shares_that_were_dealt_wrong_wait_for_those_that_put_them_right() {
    // Seven of ten shares are enough, of which one is wrong: two more tell which.
    let mut one = world(&[(6, Manner::Deals(&[0]))], 1);
    one.run();
    assert_eq!(one.failed, []);
    assert_eq!(one.uploaded(0).len(), 10);
    assert_eq!(one.excluded(), BTreeSet::from([one.id(6)]));
    // Not of two; whose fault it is, is known.
    let mut two = world(&[(6, Manner::Deals(&[0, 1]))], 1);
    two.run();
    let [failed] = &two.failed[..] else { panic!("{:?}", two.failed) };
    assert!(failed.reason.contains("the round is abandoned"), "{}", failed.reason);
    assert_eq!((failed.turn, failed.phase), (FIRST, "unmask"));
    assert_eq!(two.excluded(), BTreeSet::from([two.id(6)]));
}

#[test]
fn silence_at_any_step_stops_no_round_and_is_no_offense() {
    let hears: [Heard; 6] = [
        |_| false,
        |what| matches!(what, What::Advertise(_)),
        |what| matches!(what, What::Advertise(_) | What::ShareKeys(_)),
        |what| !matches!(what, What::Train(_) | What::ConfirmSet(_) | What::Unmask(_)),
        |what| !matches!(what, What::ConfirmSet(_) | What::Unmask(_)),
        |what| !matches!(what, What::Unmask(_)),
    ];
    for (step, hears) in hears.into_iter().enumerate() {
        let manner = Manner::HearsOnly(hears);
        let mut world = world(&[(2, manner), (7, Manner::Lies(Lie::Garbage))], 1);
        world.run();
        assert_eq!(world.failed, [], "step {step}");
        assert_eq!(world.excluded(), BTreeSet::from([world.id(7)]), "step {step}");
        assert_eq!(world.uploaded(0).contains(&world.id(2)), step > 3, "step {step}");
    }
}

#[test]
fn what_fails_for_too_many_liars_succeeds_without_them() {
    let liars = [0, 3, 5];
    let mut world = world(&liars.map(|liar| (liar, Manner::Lies(Lie::Garbage))), 1);
    world.run();
    let [failed] = &world.failed[..] else { panic!("{:?}", world.failed) };
    let named = liars.map(|liar| world.id(liar));
    assert_eq!(failed.excluded.keys().copied().collect::<BTreeSet<_>>(), named.into());
    let reason = &failed.excluded[&named[0]];
    assert!(reason.starts_with("its envelope for member"), "{reason}");
    assert_eq!(world.records[0].turn, Turn::new(1, 2));
    assert_eq!(world.uploaded(0).len(), 7);
}

#[test]
fn who_is_out_can_do_nothing_more() {
    let mut world = world(&[(1, Manner::Lies(Lie::Garbage))], 1);
    let out = world.id(1);
    while !world.server.excluded().contains_key(&out) {
        if world.server.wants_cohort() {
            let mut online: Vec<Candidate> =
                (0..10).map(|n| Candidate { client: world.id(n), samples: 5 }).collect();
            online.sort_by_key(|candidate| candidate.client);
            world.handle(Event::Start { online, salt: SALT }).unwrap();
        }
        (0..10).for_each(|number| world.poll(number));
    }
    assert!(matches!(world.server.instruction(&out).what, Some(What::Wait(_))));
    let turn = world.server.turn();
    let body = Some(Body::Checked(wire::Checked { complaints: vec![0; 4] }));
    let message = wire::Message { round: turn.round, attempt: turn.attempt, body };
    let refused = world.handle(Event::Message { client: out, message }).unwrap_err();
    assert!(matches!(refused, Refusal::Conflict(_) | Refusal::Unexpected { .. }), "{refused}");
    let upload = Upload {
        digest: Digest([1; 32]),
        bytes: 8,
        samples: 5,
        metrics: Metrics::new(),
        included: Vec::new(),
    };
    let refused = world.handle(Event::Uploaded { client: out, turn, upload }).unwrap_err();
    assert!(matches!(refused, Refusal::NotSelected(_) | Refusal::Unexpected { .. }), "{refused}");
    // Seven others are as many as a round takes, this one doesn't count.
    let mut server =
        Coordinator::restore(world.server.plan().clone(), RUN, &world.server.snapshot()).unwrap();
    let mut online: Vec<Candidate> =
        (1..8).map(|n| Candidate { client: world.id(n), samples: 5 }).collect();
    online.sort_by_key(|candidate| candidate.client);
    let refused = server.handle(Millis(1), Event::Start { online, salt: SALT });
    assert_eq!(refused, Err(Refusal::TooFew { online: 6, needed: 7 }));
}
