//! Requests and answers on their way, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use tern_fl::auth::Credentials;
use tern_fl::{Digest, StartId, Turn, wire};

use crate::random::Random;

/// What a client asks of the server.
#[derive(Clone, Debug)]
pub enum Request {
    Enroll { token: Option<String> },
    Poll { samples: u32 },
    Message(wire::Message),
    Offset(Turn),
    Append { turn: Turn, offset: u64, bytes: Vec<u8> },
    Finish(wire::Finish),
    Fetch(Digest),
}

impl Request {
    /// Whether it is about a body on its way in, of which a client has one at a time.
    pub fn uploads(&self) -> bool {
        matches!(self, Request::Offset(_) | Request::Append { .. } | Request::Finish(_))
    }
}

/// What the server answers.
#[derive(Clone, Debug)]
pub enum Answer {
    Instruction(wire::Instruction),
    Offset(u64),
    Ack,
    Body(Vec<u8>),
    /// Name of the reason, and whether the same may be taken later.
    Refused(&'static str, bool),
    /// To one that is signed for another time or start of the server: its own.
    Told(u64, StartId),
    /// No such model, or a server that is broken.
    Nothing,
}

/// What happens next somewhere.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request arrives, with a signature if it has to pass for its sender's.
    Request {
        client: usize,
        number: u64,
        request: Request,
        signed: Option<Box<Credentials>>,
    },
    /// Its answer arrives.
    Answer {
        client: usize,
        number: u64,
        answer: Answer,
    },
    /// A client looks at its clock. What was started in an earlier life doesn't count.
    Wake {
        client: usize,
        life: u32,
    },
    /// A client that ended starts again.
    Revive {
        client: usize,
    },
    /// So does the server.
    Restart,
    /// The server looks at its clock.
    Tick,
    /// It goes on with a request that it is in the middle of, or with a model that it makes.
    Step {
        client: usize,
        number: u64,
    },
    Make,
}

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost messages, in a thousand.
    pub loss: u64,
    /// Messages that come twice.
    pub double: u64,
    /// Longest delay, in milliseconds.
    pub delay: u64,
    /// Steps at which a client ends.
    pub client_ends: u64,
    /// Steps at which the server ends.
    pub server_ends: u64,
    /// Requests in which a write of the server fails.
    pub faults: u64,
    /// Steps at which a clock is set.
    pub jumps: u64,
    /// Steps of the server before which others' messages come, in a thousand.
    pub between: u64,
    /// Ends of the server at which its disk is harmed, in a thousand.
    pub harm: u64,
}

impl Weather {
    pub const FAIR: Weather = Weather {
        loss: 0,
        double: 0,
        delay: 20,
        client_ends: 0,
        server_ends: 0,
        faults: 0,
        jumps: 0,
        between: 0,
        harm: 0,
    };

    pub fn draw(random: &mut Random) -> Self {
        let mut rare = |most: u64| if random.chance(600) { random.below(most) } else { 0 };
        Weather {
            loss: rare(300),
            double: rare(300),
            delay: 1 + rare(3_000),
            client_ends: rare(25),
            server_ends: rare(25),
            faults: rare(60),
            jumps: rare(20),
            between: rare(700),
            harm: rare(700),
        }
    }
}

/// Everything that is on its way.
#[derive(Default)]
pub struct Queue {
    order: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
}

impl Queue {
    pub fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.order.push(Reverse((time, self.count)));
        self.events.insert(self.count, event);
    }

    /// Sends something, which may be lost, delayed or doubled.
    pub fn send(&mut self, random: &mut Random, weather: &Weather, now: u64, event: &Event) {
        let copies = 1 + u32::from(random.chance(weather.double));
        for _ in 0..copies {
            if !random.chance(weather.loss) {
                self.at(now + 1 + random.below(weather.delay), event.clone());
            }
        }
    }

    pub fn next(&mut self) -> Option<(u64, Event)> {
        let Reverse((time, number)) = self.order.pop()?;
        Some((time, self.events.remove(&number)?))
    }
}
