//! Secure rounds, with real participants.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use tern_engine::Device;

use super::*;
use crate::participant::{Action, Input, Participant, RequiredSecurity, SavedState};
use crate::plan::Encoding;
use crate::trainer::Trained;
use crate::update::Codec;

const MODEL: [f32; 128] = [0.0; 128];

/// A server that knows of its clients only whom they start from.
pub(super) fn first(plan: RunPlan) -> Coordinator {
    let tensors = plan.check().unwrap().tensors();
    let scales = match plan.updates.uplink {
        Encoding::Ternary => vec![0.5; tensors],
        _ => Vec::new(),
    };
    let head = Head::initial(Digest::of(&Codec::full(&MODEL)), scales);
    Coordinator::new(plan, RUN, head).unwrap()
}

pub(super) struct Session {
    pub coordinator: Coordinator,
    pub participants: Vec<Participant>,
    samples: Vec<u32>,
    /// What clients declined with.
    pub reasons: Vec<String>,
    /// The model, all of whose elements are this.
    model: f32,
}

impl Session {
    /// Of clients with these samples, of which two in five may drop out.
    pub fn new(samples: &[u32], rounds: u32) -> Self {
        Session::among(samples, rounds, (0.0, 0.4))
    }

    /// Of which so many may be corrupt, or drop out.
    pub fn among(samples: &[u32], rounds: u32, assumed: (f64, f64)) -> Self {
        Session::with(samples, rounds, assumed, |_| ())
    }

    /// Of a plan that is changed.
    pub fn with(
        samples: &[u32],
        rounds: u32,
        (corrupt, dropout): (f64, f64),
        change: impl FnOnce(&mut RunPlan),
    ) -> Self {
        let coordinator = coordinator(|plan| {
            plan.rounds = rounds;
            let size = samples.len() as u32;
            (plan.cohort.size, plan.cohort.minimum) = (size, size.min(4) - 1);
            let secure = crate::plan::Secure { corrupt, dropout, honest: 2, ..Default::default() };
            plan.secure = Some(secure);
            change(plan);
        });
        let coordinator = first(coordinator.plan().clone());
        let task = coordinator.plan().task(RUN).unwrap();
        let participant = |number: usize| {
            let key = SigningKey::from_bytes(&[number as u8 + 1; 32]);
            let new = Participant::new(&key, task.clone(), &Device::cpu(), SavedState::default());
            let required = RequiredSecurity { corrupt: 0.0, ..RequiredSecurity::of(2) };
            let mut participant = new.unwrap().requiring(required).unwrap();
            participant.set_samples(samples[number]);
            participant
        };
        let participants = (0..samples.len()).map(participant).collect();
        Session {
            coordinator,
            participants,
            samples: samples.to_vec(),
            reasons: Vec::new(),
            model: 0.0,
        }
    }

    /// Who is online, in order of their keys.
    pub fn online(&self, numbers: &[usize]) -> Event {
        let candidate = |number: &usize| Candidate {
            client: *self.participants[*number].client(),
            samples: self.samples[*number],
        };
        let mut online: Vec<Candidate> = numbers.iter().map(candidate).collect();
        online.sort_by_key(|candidate| candidate.client);
        Event::Start { online, salt: SALT }
    }

    /// An attempt among these.
    pub fn begin(&mut self, numbers: &[usize]) {
        let start = self.online(numbers);
        self.coordinator.handle(Millis(1), start).unwrap();
    }

    /// Each of these clients asks once and does as it is told.
    pub fn pass(&mut self, numbers: &[usize]) {
        for number in numbers {
            let client = *self.participants[*number].client();
            let instruction = self.coordinator.instruction(&client);
            let mut inputs = vec![Input::Instruction(instruction)];
            while let Some(input) = inputs.pop() {
                for action in self.participants[*number].handle(input).unwrap() {
                    inputs.extend(self.act(*number, client, action));
                }
            }
        }
    }

    fn act(&mut self, number: usize, client: ClientId, action: Action) -> Option<Input> {
        let event = match action {
            Action::Fetch(digest) => {
                let bytes = Codec::full(&[self.model; MODEL.len()]);
                return Some(Input::Fetched { digest, bytes });
            }
            Action::Train(_) => {
                let metrics = Metrics::from([("loss".to_string(), 0.5)]);
                let update = vec![0.25; MODEL.len()];
                return Some(Input::Trained(Trained::new(update, self.samples[number], metrics)));
            }
            Action::Send(message) => {
                if let Some(wire::message::Body::Declined(declined)) = &message.body {
                    self.reasons.push(declined.reason.clone());
                }
                Event::Message { client, message }
            }
            Action::Upload => self.upload(number),
            _ => return None,
        };
        let taken = self.coordinator.handle(Millis(1), event);
        Some(
            taken
                .map_or_else(|refusal| Input::Refused(refusal.name().into()), |_| Input::Delivered),
        )
    }

    fn upload(&self, number: usize) -> Event {
        let pending = self.participants[number].kept().pending.clone().unwrap();
        let upload = Upload {
            digest: pending.digest,
            bytes: pending.body.len() as u64,
            samples: pending.samples,
            metrics: pending.metrics,
            included: pending.included,
        };
        let client = *self.participants[number].client();
        Event::Uploaded { client, turn: pending.turn, upload }
    }

    /// A session of these clients, up to a phase.
    pub fn until(&mut self, numbers: &[usize], phase: &str) {
        self.begin(numbers);
        for _ in 0..6 {
            if self.coordinator.phase() != phase {
                self.pass(numbers);
            }
        }
        assert_eq!(self.coordinator.phase(), phase);
    }

    /// The round's model is this one.
    pub fn commit(&mut self, model: f32) {
        self.model = model;
        let digest = Digest::of(&Codec::full(&[model; MODEL.len()]));
        let head = Event::Aggregated(Head::initial(digest, Vec::new()));
        self.coordinator.handle(Millis(1), head).unwrap();
    }

    /// Sets of sums differ by so many, beside those that may be corrupt.
    pub fn require(&mut self, difference: u32) {
        let required = RequiredSecurity { corrupt: 0.0, difference, ..RequiredSecurity::of(2) };
        for participant in self.participants.drain(..).collect::<Vec<_>>() {
            self.participants.push(participant.requiring(required).unwrap());
        }
    }

    /// Time passes the deadline.
    pub fn wait(&mut self) -> Vec<Effect> {
        let deadline = self.coordinator.deadline().unwrap();
        self.coordinator.handle(deadline, Event::Tick).unwrap()
    }
}

pub(super) const ALL: [usize; 5] = [0, 1, 2, 3, 4];

#[test]
fn a_round_whose_shares_were_asked_for_has_no_other_attempt() {
    let mut session = Session::new(&[8; 5], 3);
    session.until(&ALL, "unmask");
    // Two reveal, where three would have to.
    session.pass(&[0, 1]);
    let effects = session.wait();
    let [Effect::Failed(failed)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((failed.turn, failed.phase), (FIRST, "unmask"));
    assert!(failed.reason.contains("the round is abandoned"), "{}", failed.reason);
    assert_eq!(session.coordinator.turn(), Turn::new(2, 1));
    // The server goes on from its snapshot.
    let plan = session.coordinator.plan().clone();
    let snapshot = session.coordinator.snapshot();
    session.coordinator = Coordinator::restore(plan, RUN, &snapshot).unwrap();
    assert_eq!(session.coordinator.known.sums()[0].len(), 5);
    // Without one of those whose sum may be known, the two that revealed take no part, and too few
    // are left.
    session.until(&[0, 1, 2, 3], "collect");
    session.pass(&[0, 1]);
    assert_eq!(session.reasons.len(), 2);
    assert!(session.reasons[0].contains("a sum of this model"), "{:?}", session.reasons);
    let effects = session.wait();
    assert!(matches!(effects[..], [Effect::Failed(_)]), "{effects:?}");
    // All five may be summed, and then the model is another.
    session.until(&ALL, "combine");
    session.coordinator.handle(Millis(1), head(7)).unwrap();
    assert_eq!(session.coordinator.turn(), Turn::new(3, 1));
    assert!(session.coordinator.known.sums().is_empty());
}

#[test]
fn a_set_whose_sum_may_be_known_is_summed_again_and_nobody_with_it() {
    let mut session = Session::new(&[8; 3], 2);
    session.until(&ALL[..3], "collect");
    // The third drops out, and the second reveals nothing.
    session.pass(&[0, 1]);
    session.wait();
    session.pass(&[0, 1]);
    assert_eq!(session.coordinator.phase(), "unmask");
    session.pass(&[0]);
    session.wait();
    assert_eq!(session.coordinator.turn(), Turn::new(2, 1));
    // A sum of all three, less that of two, would be the third's update.
    session.until(&ALL[..3], "combine");
    let counted: BTreeSet<ClientId> = session.coordinator.accepted().map(|(c, _)| *c).collect();
    assert_eq!(counted, [0, 1].map(|number| *session.participants[number].client()).into());
    assert!(session.reasons.is_empty(), "{:?}", session.reasons);
}

#[test]
fn the_last_round_may_be_abandoned() {
    let mut session = Session::new(&[8; 5], 1);
    session.until(&ALL, "unmask");
    let effects = session.wait();
    assert!(matches!(effects[..], [Effect::Failed(_), Effect::Finished]), "{effects:?}");
    assert!(session.coordinator.finished());
}

#[test]
fn who_would_be_most_of_the_sum_is_left_out() {
    let mut session = Session::new(&[8, 9, 1 << 20, 10, 11], 1);
    session.until(&ALL, "combine");
    let heavy = *session.participants[2].client();
    let counted: Vec<ClientId> =
        session.coordinator.accepted().map(|(client, _)| *client).collect();
    assert!(counted.len() == 4 && !counted.contains(&heavy));
    assert_eq!(session.coordinator.unmasking().unwrap().max_samples, 11);
    assert!(session.reasons.is_empty(), "{:?}", session.reasons);
}

#[test]
fn an_upload_says_no_more_than_its_keys_did() {
    let mut session = Session::new(&[8; 5], 1);
    session.begin(&ALL);
    (0..3).for_each(|_| session.pass(&ALL));
    assert_eq!(session.coordinator.phase(), "collect");
    session.pass(&ALL[..4]);
    // The last one has encoded its update, and says something else of it.
    let client = *session.participants[4].client();
    let mut inputs = vec![Input::Instruction(session.coordinator.instruction(&client))];
    while let Some(input) = inputs.pop() {
        for action in session.participants[4].handle(input).unwrap() {
            if !matches!(action, Action::Upload) {
                inputs.extend(session.act(4, client, action));
            }
        }
    }
    let refused = |session: &mut Session, change: fn(&mut Upload)| {
        let Event::Uploaded { client, turn, mut upload } = session.upload(4) else { panic!() };
        change(&mut upload);
        let event = Event::Uploaded { client, turn, upload };
        session.coordinator.handle(Millis(1), event).unwrap_err()
    };
    let weight = refused(&mut session, |upload| upload.samples = 7);
    assert_eq!(weight, Refusal::Weight { given: 7, signed: 8 });
    let metrics = refused(&mut session, |upload| {
        upload.metrics = Metrics::from([("loss".to_string(), 0.5)]);
    });
    assert_eq!(metrics.name(), "metrics");
    let event = session.upload(4);
    session.coordinator.handle(Millis(1), event).unwrap();
    assert_eq!(session.coordinator.phase(), "confirm");
}

#[test]
fn a_reveal_waits_for_no_more_than_it_needs() {
    let mut session = Session::new(&[8; 5], 1);
    session.until(&ALL, "unmask");
    session.pass(&ALL[..2]);
    assert_eq!(session.coordinator.phase(), "unmask");
    session.pass(&ALL[2..3]);
    assert_eq!(session.coordinator.phase(), "combine");
}

#[test]
fn what_was_accepted_is_found_in_every_phase_that_has_it() {
    let mut session = Session::new(&[8; 5], 1);
    let has = |session: &Session, number: usize| {
        let client = *session.participants[number].client();
        let found = session.coordinator.accepted_of(&client);
        let listed = session.coordinator.accepted().find(|(of, _)| **of == client);
        assert_eq!(found, listed.map(|(_, upload)| upload));
        found.is_some()
    };
    session.until(&ALL, "collect");
    session.pass(&ALL[..4]);
    assert!(has(&session, 3) && !has(&session, 4));
    session.wait();
    for phase in ["confirm", "unmask", "combine"] {
        assert_eq!(session.coordinator.phase(), phase);
        assert!(has(&session, 3) && !has(&session, 4), "{phase}");
        session.pass(&ALL[..4]);
    }
    session.commit(1.0);
    assert!(!has(&session, 3));
}

#[test]
fn another_model_in_an_attempt_is_none_that_was_agreed_on() {
    let mut session = Session::new(&[8; 5], 1);
    session.until(&ALL, "collect");
    let client = *session.participants[0].client();
    let mut instruction = session.coordinator.instruction(&client);
    let handle = |session: &mut Session, instruction: &wire::Instruction| {
        session.participants[0].handle(Input::Instruction(instruction.clone())).unwrap()
    };
    // The model isn't here yet; and the same again.
    for _ in 0..2 {
        let actions = handle(&mut session, &instruction);
        assert!(matches!(actions[..], [.., Action::Fetch(_)]), "{actions:?}");
    }
    let Some(What::Train(train)) = &mut instruction.what else { panic!("{instruction:?}") };
    train.model.as_mut().unwrap().digest[0] ^= 1;
    let actions = handle(&mut session, &instruction);
    let [Action::Send(message)] = &actions[..] else { panic!("{actions:?}") };
    let Some(wire::message::Body::Declined(declined)) = &message.body else {
        panic!("{message:?}")
    };
    assert!(declined.reason.contains("another model or scales than before"), "{declined:?}");
}

#[test]
fn others_fill_up_a_session_of_those_that_meet_alone() {
    let all: Vec<usize> = (0..10).collect();
    for known in 3..=10 {
        let mut session = Session::among(&[8; 10], 3, (0.1, 0.3));
        session.coordinator.known.add(session.ids(&all[..known]));
        session.begin(&all);
        let cohort = session.cohort();
        assert!(cohort.is_superset(&session.ids(&all[..known])));
        // At most so many that those that meet are enough where three in ten drop out.
        let fits = |members: &usize| members - members * 3 / 10 <= known;
        assert_eq!(Some(cohort.len()), (known..=10).rev().find(fits), "{known}");
    }
}
