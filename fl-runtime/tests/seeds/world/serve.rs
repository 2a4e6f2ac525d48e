//! What the server does with requests, and beside them, in the steps between which it lets go of
//! the lock around the run: others' messages come between them.

use std::collections::BTreeMap;

use tern_fl::server::federation::{Aggregated, Aggregation, Federation, Incoming, Received};
use tern_fl::{ClientId, Digest, Millis, Refusal, Turn, wire};

use super::World;
use crate::disk;
use crate::network::{Answer, Event, Request};

/// Longest time between two steps, in milliseconds.
const BETWEEN: u64 = 2_000;

/// Uploads that the server is in the middle of, by client; further requests about a client's upload
/// wait until it is done.
#[derive(Default)]
pub(super) struct InHand {
    now: BTreeMap<usize, (u64, Upload)>,
    waiting: Vec<(usize, u64, Request)>,
}

/// What comes next of an upload.
enum Upload {
    Append { incoming: Incoming, offset: u64, bytes: Vec<u8> },
    Check { incoming: Incoming, finish: wire::Finish },
    Accept { received: Received, finish: wire::Finish },
}

/// What came of a step.
enum Step {
    Answer(Answer),
    /// An update is taken, which its client is told.
    Taken(Turn, Digest),
    Next(Box<Upload>),
}

/// A model on its way.
pub(super) enum Making {
    Due(Box<Aggregation>),
    Done(Box<tern_fl::Result<Aggregated>>),
}

impl World {
    /// A request arrives.
    pub(super) fn serve(&mut self, client: usize, number: u64, request: Request) {
        if request.uploads() && self.in_hand.now.contains_key(&client) {
            self.summary.note("waiting");
            return self.in_hand.waiting.push((client, number, request));
        }
        let id = self.members[client].client;
        if let Some(step) = self.on_server(|server, time| begin(server, time, &id, request)) {
            self.go_on(client, number, step);
        }
    }

    /// The next step of an upload is due, unless the server ended meanwhile.
    pub(super) fn step(&mut self, client: usize, number: u64) {
        if self.in_hand.now.get(&client).is_some_and(|(of, _)| *of == number)
            && let Some((_, upload)) = self.in_hand.now.remove(&client)
        {
            self.take_step(client, number, upload);
        }
    }

    fn take_step(&mut self, client: usize, number: u64, upload: Upload) {
        if let Some(step) = self.on_server(|server, time| upload.step(server, time)) {
            self.go_on(client, number, step);
        }
    }

    fn go_on(&mut self, client: usize, number: u64, step: Step) {
        let answer = match step {
            Step::Next(upload) if self.random.chance(self.weather.between) => {
                self.summary.note("in steps");
                self.in_hand.now.insert(client, (number, *upload));
                let time = self.now + 1 + self.random.below(BETWEEN);
                return self.queue.at(time, Event::Step { client, number });
            }
            Step::Next(upload) => return self.take_step(client, number, *upload),
            Step::Taken(turn, digest) => {
                self.oracle.acknowledged(self.members[client].client, turn, digest);
                self.say(|| format!("client {client} uploaded for {turn}"));
                Answer::Ack
            }
            Step::Answer(answer) => answer,
        };
        if let Answer::Refused(name, _) = &answer {
            self.summary.note("refused");
            self.say(|| format!("client {client} is refused: {name}"));
        }
        let answer = Event::Answer { client, number, answer };
        self.queue.send(&mut self.random, &self.weather, self.now, &answer);
        // Who waited for that goes on.
        let next = self.in_hand.waiting.extract_if(.., |(of, ..)| *of == client);
        for (client, number, request) in next {
            let signed = None;
            self.queue.at(self.now, Event::Request { client, number, request, signed });
        }
    }

    pub(super) fn ticked(&mut self) {
        if self.weather.harm > 0 && self.server.is_some() && self.random.chance(30) {
            self.earlier = disk::copy(&self.folder);
        }
        let ticked = self.on_server(|server, time| server.advance(time).map(|()| server.work()));
        match ticked {
            Some(Ok(Some(work))) => self.make(Making::Due(Box::new(work))),
            Some(Err(error)) => self.excuse(&error),
            Some(Ok(None)) | None => {}
        }
        let Some(server) = &self.server else { return };
        // Models and states of strategies, and for each client that was asked an update and a
        // partial one.
        let most =
            (24 + 2 * u64::from(self.setup.plan.cohort.asked())) * 4 * self.initial.len() as u64;
        let stored = server.status().stored;
        assert!(stored <= most, "{stored} bytes of bodies, at most {most}");
    }

    /// Goes on with a model, or a while later.
    pub(super) fn make(&mut self, making: Making) {
        if self.random.chance(self.weather.between) {
            self.summary.note("made in steps");
            self.making = Some(making);
            let time = self.now + 1 + self.random.below(BETWEEN);
            return self.queue.at(time, Event::Make);
        }
        match making {
            Making::Due(work) => {
                if let Some(done) = self.on_server(|_, _| work.run()) {
                    self.make(Making::Done(Box::new(done)));
                }
            }
            Making::Done(done) => {
                let completed = self.on_server(|server, time| server.complete(time, *done));
                if let Some(Err(error)) = completed {
                    self.excuse(&error);
                }
            }
        }
    }

    /// The server says why something can't be done now, and does it later.
    fn excuse(&self, error: &tern_fl::Error) {
        self.say(|| format!("the server: {error}"));
        let (reason, known) = (error.to_string(), ["no space", "a fault was asked for"]);
        assert!(known.iter().any(|known| reason.contains(known)), "{reason}");
    }
}

fn refused(refusal: Refusal) -> Step {
    Step::Answer(Answer::Refused(refusal.name(), refusal.is_temporary()))
}

/// What comes of a request without letting go of the run.
fn begin(server: &mut Federation, time: Millis, client: &ClientId, request: Request) -> Step {
    let told = |result: Result<Answer, Refusal>| result.map_or_else(refused, Step::Answer);
    match request {
        Request::Enroll { token } => {
            told(server.enroll(time, *client, token.as_deref()).map(|()| Answer::Ack))
        }
        Request::Poll { samples } => {
            told(server.poll(time, client, samples).map(Answer::Instruction))
        }
        Request::Message(message) => {
            told(server.message(time, client, message).map(|_| Answer::Ack))
        }
        Request::Offset(turn) => told(server.upload_offset(client, turn).map(Answer::Offset)),
        Request::Append { turn, offset, bytes } => match server.incoming(client, turn) {
            Ok(incoming) => Step::Next(Box::new(Upload::Append { incoming, offset, bytes })),
            Err(refusal) => refused(refusal),
        },
        Request::Finish(finish) => match server.finishing(client, &finish) {
            Ok(incoming) => Step::Next(Box::new(Upload::Check { incoming, finish })),
            Err(Refusal::Repeated) => {
                let turn = Turn::new(finish.round, finish.attempt);
                taken(server.finish_again(client, turn, &finish), &finish)
            }
            Err(refusal) => refused(refusal),
        },
        Request::Fetch(digest) => {
            // As it lies there, damaged or not: that is what is sent.
            let read = || {
                let (bodies, kept) = (server.bodies(), server.coordinator().kept());
                let length = bodies.length(&digest).ok()?.filter(|_| kept.contains(&digest))?;
                bodies.piece(&digest, 0, length as usize).ok()
            };
            let bytes = read();
            Step::Answer(bytes.map_or(Answer::Nothing, Answer::Body))
        }
    }
}

fn taken(result: Result<wire::Ack, Refusal>, finish: &wire::Finish) -> Step {
    match (result, Digest::from_slice(&finish.digest)) {
        (Ok(_), Some(digest)) => Step::Taken(Turn::new(finish.round, finish.attempt), digest),
        (Ok(_), None) => panic!("an update without a digest is taken"),
        (Err(refusal), _) => refused(refusal),
    }
}

impl Upload {
    fn step(self, server: &mut Federation, time: Millis) -> Step {
        let told = |server: &mut Federation, refusal: Refusal| match server.refuse::<()>(refusal) {
            Ok(()) => panic!("a refusal is taken"),
            Err(refusal) => refused(refusal),
        };
        match self {
            Upload::Append { mut incoming, offset, bytes } => {
                match incoming.append(offset, &bytes) {
                    Ok(offset) => Step::Answer(Answer::Offset(offset)),
                    Err(refusal) => told(server, refusal),
                }
            }
            Upload::Check { incoming, finish } => match incoming.finish(&finish.digest) {
                Ok(received) => Step::Next(Box::new(Upload::Accept { received, finish })),
                Err(refusal) => told(server, refusal),
            },
            Upload::Accept { received, finish } => {
                taken(server.accept(time, received, finish.clone()), &finish)
            }
        }
    }
}
