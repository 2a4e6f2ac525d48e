//! A client with a simulated network in place of the real one.

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;
use tern_engine::Device;
use tern_fl::host::store::ClientStore;
use tern_fl::methods::align::Node;
use tern_fl::metrics::Metrics;
use tern_fl::participant::{Action, Input, Participant, RequiredSecurity};
use tern_fl::plan::Task;
use tern_fl::trainer::{Job, OptimizerState, Trained, Trainer as _};
use tern_fl::wire::instruction::What;
use tern_fl::wire::message::Body;
use tern_fl::{ClientId, Digest, Ended, Layout, Masking, TaskSpec, Turn, wire};
use tern_secagg::{Message, Roster, Seed};

use crate::liar::{Lie, accusation, garbage, other_shares};
use crate::network::{Answer, Event, Queue, Request, Weather};
use crate::oracle::{Oracle, Plain};
use crate::random::Random;
use crate::setup::loss;
use crate::signed::Signer;

/// Milliseconds without an answer after which a client asks again.
const PATIENCE: u64 = 2_000;
/// How often it asks again before it starts over.
const TRIES: u32 = 3;

/// What a member acts on beside itself.
pub struct Around<'a> {
    pub now: u64,
    pub random: &'a mut Random,
    pub weather: &'a Weather,
    pub queue: &'a mut Queue,
    pub oracle: &'a mut Oracle,
    /// Numbers of requests.
    pub count: &'a mut u64,
    /// Whether requests are signed.
    pub signed: bool,
}

/// A request that is not answered yet.
struct Waiting {
    number: u64,
    request: Request,
    until: u64,
    tries: u32,
}

/// Something that takes time.
enum Busy {
    Training(Job),
    Evaluating(Job),
    Resting,
}

pub struct Member {
    pub index: usize,
    key: SigningKey,
    pub client: ClientId,
    pub samples: u32,
    task: Task,
    store: ClientStore,
    /// What it enrolls with, and whether it has since its process started.
    pub token: Option<String>,
    enrolled: bool,
    /// `None` while its process is not running.
    participant: Option<Participant>,
    life: u32,
    actions: VecDeque<Action>,
    waiting: Option<Waiting>,
    busy: Option<(u64, Busy)>,
    /// The last instruction to train.
    asked: Option<wire::Train>,
    /// How it breaks the protocol of secure aggregation.
    lie: Option<Lie>,
    /// Whether it says that the run is over.
    claims: bool,
    /// The last instruction, which it lies in answer to.
    heard: Option<What>,
    /// The most samples of a member of the last secure session.
    most: u32,
    /// What it asks of sums beside what the run promises: how many clients two differ by.
    difference: u32,
    signer: Signer,
    /// What trains in a run of transfer.
    node: Option<Node>,
    /// What it was told to be the best model when the run was over.
    pub stopped: Option<Digest>,
}

impl Member {
    pub fn new(
        index: usize,
        task: Task,
        store: ClientStore,
        (key, token): (SigningKey, Option<String>),
        (lie, claims, difference): (Option<Lie>, bool, u32),
        node: Option<Node>,
    ) -> Self {
        let client = ClientId(key.verifying_key().to_bytes());
        let signer = Signer::new(key.clone(), task.run);
        let samples = node.as_ref().map_or(3 + 2 * index as u32, Node::samples);
        let (life, actions) = (0, VecDeque::new());
        let (participant, waiting, busy, stopped) = (None, None, None, None);
        Member {
            index,
            key,
            client,
            samples,
            task,
            store,
            token,
            enrolled: false,
            participant,
            life,
            actions,
            waiting,
            busy,
            asked: None,
            lie,
            claims,
            heard: None,
            most: 1,
            difference,
            signer,
            node,
            stopped,
        }
    }

    pub fn running(&self) -> bool {
        self.participant.is_some()
    }

    pub fn lies(&self) -> bool {
        self.lie.is_some()
    }

    /// What it sends in place of a message.
    fn tampered(&self, mut message: wire::Message) -> wire::Message {
        match (self.lie, &mut message.body, &self.heard) {
            (
                Some(Lie::Garbage),
                Some(Body::Shares(sent)),
                Some(What::ShareKeys(wire::ShareKeys { roster })),
            ) => {
                let TaskSpec { secure, updates, cohort, model, run, .. } = &*self.task;
                let (secure, layout) = (secure.as_ref().unwrap(), Layout::of(model).unwrap());
                let masking = Masking::new(secure, updates.uplink, *cohort, &layout).unwrap();
                let turn = Turn::new(message.round, message.attempt);
                let session = masking.session(run, &self.task.digest(), turn);
                sent.shares = garbage(&session, roster, &self.key, &sent.shares);
            }
            (
                Some(Lie::Accuses),
                Some(Body::Checked(sent)),
                Some(What::CheckShares(wire::CheckShares { inbox })),
            ) => sent.complaints = accusation(inbox),
            (Some(Lie::Reveals), Some(Body::Reveal(sent)), _) => {
                sent.reveal = other_shares(&sent.reveal);
            }
            _ => {}
        }
        message
    }

    /// What it says to the first thing that it is asked for in an attempt.
    fn claim(&self, instruction: &wire::Instruction) -> Option<wire::Message> {
        let first = matches!(instruction.what, Some(What::Train(_) | What::Advertise(_)));
        if !self.claims || !first {
            return None;
        }
        let ended = Ended { round: instruction.round + 1, model: Digest([7; 32]) };
        let declined = wire::Declined { ended: Some(ended.into()), ..Default::default() };
        let (round, attempt) = (instruction.round, instruction.attempt);
        Some(wire::Message { round, attempt, body: Some(Body::Declined(declined)) })
    }

    pub fn store(&self) -> &ClientStore {
        &self.store
    }

    /// The process starts.
    pub fn start(&mut self, around: &mut Around<'_>) {
        let kept = self.store.load().unwrap();
        let task = self.task.clone();
        let promised = RequiredSecurity::promised(&task);
        let mut participant = Participant::new(&self.key, task, &Device::cpu(), kept).unwrap();
        if let Some(promised) = promised {
            let required = RequiredSecurity { difference: self.difference, ..promised };
            participant = participant.requiring(required).unwrap();
        }
        let mut random = Random::new(around.random.word());
        let entropy = move || Ok(Seed::from_bytes(std::array::from_fn(|_| random.word() as u8)));
        let mut participant = participant.with_entropy(Box::new(entropy));
        participant.set_samples(self.samples);
        self.participant = Some(participant);
        self.go_on(around);
    }

    /// The process ends, wherever it is.
    pub fn end(&mut self) {
        self.life += 1;
        self.participant = None;
        self.actions.clear();
        self.waiting = None;
        self.busy = None;
        self.enrolled = false;
        self.stopped = None;
        self.signer.forget();
    }

    fn handle(&mut self, input: Input) {
        if let Some(participant) = &mut self.participant {
            self.actions.extend(participant.handle(input).unwrap());
        }
    }

    fn wake(&self, around: &mut Around<'_>, time: u64) {
        around.queue.at(time, Event::Wake { client: self.index, life: self.life });
    }

    fn ask(&mut self, around: &mut Around<'_>, request: Request, tries: u32) {
        *around.count += 1;
        let (number, until) = (*around.count, around.now + PATIENCE);
        let signed = around.signed.then(|| self.signer.sign(around.now, number, &request));
        let (client, request_sent) = (self.index, request.clone());
        let event = Event::Request { client, number, request: request_sent, signed };
        around.queue.send(around.random, around.weather, around.now, &event);
        self.waiting = Some(Waiting { number, request, until, tries });
        self.wake(around, until);
    }

    fn take_time(&mut self, around: &mut Around<'_>, most: u64, busy: Busy) {
        let until = around.now + around.random.within(1..=most);
        self.busy = Some((until, busy));
        self.wake(around, until);
    }

    /// Does what there is to do until something takes time.
    fn go_on(&mut self, around: &mut Around<'_>) {
        while self.running()
            && self.waiting.is_none()
            && self.busy.is_none()
            && self.stopped.is_none()
        {
            match self.actions.pop_front() {
                None if !self.enrolled => {
                    let token = self.token.clone();
                    self.ask(around, Request::Enroll { token }, 0);
                }
                None => {
                    let samples = self.samples;
                    self.ask(around, Request::Poll { samples }, 0);
                }
                Some(Action::Fetch(digest)) => self.ask(around, Request::Fetch(digest), 0),
                Some(Action::Train(job)) => self.take_time(around, 1_500, Busy::Training(job)),
                Some(Action::Evaluate(job)) => self.take_time(around, 300, Busy::Evaluating(job)),
                Some(Action::Save) => self.save(around),
                Some(Action::Send(message)) => {
                    let message = self.tampered(message);
                    self.ask(around, Request::Message(message), 0);
                }
                Some(Action::Upload) => {
                    let kept = self.participant.as_ref().map(Participant::kept);
                    let Some(pending) = kept.and_then(|kept| kept.pending.as_ref()) else {
                        panic!("an upload of nothing");
                    };
                    let request = match pending.whole().filter(|_| around.random.chance(500)) {
                        Some(whole) => Request::Finish(whole),
                        None => Request::Offset(pending.turn),
                    };
                    self.ask(around, request, 0);
                }
                Some(Action::Wait) => self.take_time(around, 400, Busy::Resting),
                Some(Action::Stop(model)) => self.stopped = Some(model),
            }
        }
    }

    fn turn(&self) -> Option<Turn> {
        Some(self.participant.as_ref()?.kept().pending.as_ref()?.turn)
    }

    fn save(&mut self, around: &mut Around<'_>) {
        let Some(participant) = &self.participant else { return };
        if let Some(pending) = &participant.kept().pending {
            around.oracle.encoded(self.client, pending);
        }
        let difference = self.difference as usize;
        around.oracle.revealed(self.client, &participant.kept().sums, difference);
        self.store.save(participant.kept()).unwrap();
    }

    /// Time passed.
    pub fn woken(&mut self, around: &mut Around<'_>, life: u32) {
        if life != self.life || !self.running() {
            return;
        }
        if let Some((until, _)) = &self.busy
            && *until <= around.now
            && let Some((_, busy)) = self.busy.take()
        {
            match busy {
                Busy::Training(job) => {
                    let trained = self.train(&job);
                    if let (Some(participant), Some(train)) = (&self.participant, &self.asked) {
                        let plain = Plain::new(&trained, participant.kept(), train, self.most);
                        around.oracle.trained(self.client, job.turn, plain);
                    }
                    self.handle(Input::Trained(trained));
                }
                Busy::Evaluating(job) => {
                    let metrics = Metrics::from([("loss".into(), loss(&job.model))]);
                    self.handle(Input::Evaluated { samples: self.samples, metrics });
                }
                Busy::Resting => {}
            }
        }
        if self.waiting.as_ref().is_some_and(|waiting| waiting.until <= around.now)
            && let Some(waiting) = self.waiting.take()
        {
            if waiting.tries < TRIES {
                self.ask(around, waiting.request, waiting.tries + 1);
            } else {
                self.start_over("no answer");
            }
        }
        self.go_on(around);
    }

    fn start_over(&mut self, reason: &str) {
        self.actions.clear();
        self.handle(Input::Failed(reason.into()));
    }

    /// The same job gives the same update.
    fn train(&mut self, job: &Job) -> Trained {
        if let Some(node) = &mut self.node {
            return node.train(&self.task, job).unwrap();
        }
        let mut random = Random::new(u64::from(job.seed));
        let mut update: Vec<f32> = job.model.iter().map(|x| -0.25 * x).collect();
        for x in update.iter_mut().filter(|x| **x != 0.0) {
            *x += random.below(2_001) as f32 / 4_000.0 - 0.25;
        }
        let optimizer = self.optimized(job, &mut update);
        let loss = f64::from(job.model.iter().map(|x| x * x).sum::<f32>());
        let metrics = Metrics::from([("loss".to_string(), loss)]);
        Trained { optimizer, ..Trained::new(update, self.samples, metrics) }
    }

    /// Where an optimizer goes on from, it does, and shows in the update.
    fn optimized(&self, job: &Job, update: &mut [f32]) -> OptimizerState {
        let training = &self.task.training;
        if !training.keep_optimizer {
            return OptimizerState::default();
        }
        let mut state = (*job.optimizer).clone();
        state.steps += 1;
        state.moments.resize(training.optimizer.moments().len() * update.len(), 0.0);
        for moments in state.moments.chunks_mut(update.len()) {
            for (moment, x) in moments.iter_mut().zip(update.iter_mut()) {
                *moment = 0.5 * *moment + *x;
                *x += 0.125 * *moment;
            }
        }
        state
    }

    /// An answer to a request arrived; one that nobody waits for any more is ignored.
    pub fn answered(&mut self, around: &mut Around<'_>, number: u64, answer: Answer) {
        if !self.running() || self.waiting.as_ref().is_none_or(|w| w.number != number) {
            return;
        }
        let Some(Waiting { request, tries, .. }) = self.waiting.take() else { return };
        if !matches!(answer, Answer::Told(..)) {
            self.signer.taken();
        }
        match (request, answer) {
            (request, Answer::Told(now, start)) => {
                match self.signer.learn(around.now, now, start) {
                    true => self.ask(around, request, tries),
                    false => self.start_over("not now"),
                }
            }
            (_, Answer::Nothing) | (_, Answer::Refused(_, true)) => self.start_over("not now"),
            (Request::Poll { .. }, Answer::Instruction(instruction)) => {
                self.heard = instruction.what.clone();
                if let Some(What::Train(train)) = &instruction.what {
                    self.asked = Some(train.clone());
                }
                if let Some(What::ShareKeys(asked)) = &instruction.what {
                    let roster = Roster::decode(&asked.roster).unwrap();
                    self.most = roster.members.iter().map(|keys| keys.samples).max().unwrap();
                }
                match self.claim(&instruction) {
                    Some(claim) => self.actions.push_back(Action::Send(claim)),
                    None => self.handle(Input::Instruction(instruction)),
                }
            }
            (Request::Enroll { .. }, Answer::Ack) => self.enrolled = true,
            (Request::Fetch(digest), Answer::Body(bytes)) => {
                self.handle(Input::Fetched { digest, bytes });
            }
            (Request::Offset(_), Answer::Offset(offset))
            | (Request::Append { .. }, Answer::Offset(offset)) => self.upload(around, offset),
            (Request::Offset(_), Answer::Refused("repeated", _)) => self.upload(around, u64::MAX),
            (Request::Append { turn, .. }, Answer::Refused("offset" | "repeated", _)) => {
                self.ask(around, Request::Offset(turn), 0);
            }
            (Request::Finish(_) | Request::Message(_), Answer::Ack) => {
                self.handle(Input::Delivered);
            }
            // What is there is not a whole body yet, or no longer: go on.
            (Request::Finish(_), Answer::Refused("length", _)) => match self.turn() {
                Some(turn) => self.ask(around, Request::Offset(turn), 0),
                None => self.start_over("nothing pending"),
            },
            (_, Answer::Refused(name, _)) => self.handle(Input::Refused(name.into())),
            (request, answer) => panic!("{answer:?} to {request:?}"),
        }
        self.go_on(around);
    }

    /// The server has the body up to `offset`.
    fn upload(&mut self, around: &mut Around<'_>, offset: u64) {
        let Some(pending) = self.participant.as_ref().and_then(|p| p.kept().pending.clone()) else {
            return;
        };
        let rest = pending.body.get(offset as usize..).unwrap_or_default();
        if rest.is_empty() {
            return self.ask(around, Request::Finish(pending.finish()), 0);
        }
        let part = &rest[..rest.len().min(around.random.within(100..=800) as usize)];
        let request = Request::Append { turn: pending.turn, offset, bytes: part.to_vec() };
        self.ask(around, request, 0);
    }
}
