//! Personal models: a server that publishes and starts again, devices that download, learn, save
//! and end at any moment, with files that are harmed. Each seed decides all of it; a device that
//! goes on from its file is, to the bit, one that never ended.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tern_engine::nn::ModelSpec;
use tern_engine::{Data, Device, Schedule};
use tern_fl::ClientId;
use tern_fl::methods::personalize::{
    Client, Download, Downloaded, Public, Publisher, Recipe, Reuse, Round, Shape,
};
use tern_fl::server::http::{Service, ServiceError};

use crate::random::Random;
use crate::summary::Summary;

const SHAPE: Shape = Shape { rows: 4, length: 1 };
/// Records after which a device learns.
const PRESET: usize = 12;
/// What happens in a run.
const STEPS: u32 = 80;

/// What came of rounds, but for the time that they took.
fn untimed(rounds: &[Round]) -> Vec<Round> {
    let mut rounds = rounds.to_vec();
    rounds.iter_mut().for_each(|round| round.work.seconds = 0.0);
    rounds
}

/// What a device does that changes it.
#[derive(Clone)]
enum Act {
    /// Sees a batch drawn by this seed, and what came of it.
    Sees(u64),
    Learns,
    Merges(Arc<Public>),
}

impl Act {
    fn of(&self, client: &mut Client) {
        match self {
            Act::Sees(seed) => {
                let mut random = Random::new(*seed);
                let mut x = || random.below(2_001) as f32 / 1_000.0 - 1.0;
                let x: Vec<f32> = (0..8).map(|_| x()).collect();
                client.predict(Data::F32(x.clone())).unwrap();
                client.observe(x.chunks(2).map(|x| u32::from(x[0] > x[1])).collect()).unwrap();
            }
            Act::Learns => {
                client.customize(&mut || {}).unwrap();
            }
            Act::Merges(public) => {
                client.merge(public).unwrap();
            }
        }
    }
}

/// A device with its file.
struct Owner {
    id: ClientId,
    file: PathBuf,
    recipe: Recipe,
    first: Arc<Public>,
    client: Option<Client>,
    download: Option<Download>,
    /// All that it did, and how much of that is in its file.
    acts: Vec<Act>,
    saved: Option<usize>,
}

impl Owner {
    fn act(&mut self, act: Act) {
        if let Some(client) = &mut self.client {
            act.of(client);
            self.acts.push(act);
        }
    }

    fn save(&mut self) {
        if let Some(client) = &mut self.client {
            client.save(&self.file).unwrap();
            self.saved = Some(self.acts.len());
        }
    }

    /// Its process starts: from its file, if there is one.
    fn start(&mut self) {
        let device = Device::cpu();
        let saved = self.saved.unwrap_or(0);
        self.acts.truncate(saved);
        let fresh = || Client::new(&device, &self.first, SHAPE, &self.recipe, PRESET).unwrap();
        self.client = Some(match self.saved {
            None => fresh(),
            Some(_) => {
                let client =
                    Client::load(&device, &self.file, SHAPE, &self.recipe, PRESET).unwrap();
                let mut other = fresh();
                self.acts.iter().for_each(|act| act.of(&mut other));
                assert_eq!(client.weights(), other.weights());
                assert_eq!(untimed(client.rounds()), untimed(other.rounds()));
                assert_eq!(client.expected(), other.expected());
                assert_eq!(client.public(), other.public());
                let collected = (client.collected(), client.is_customized(), client.missing());
                assert_eq!(collected, (other.collected(), other.is_customized(), other.missing()));
                client
            }
        });
    }

    /// It doesn't start from a file that is harmed, and leaves it as it is.
    fn is_harmed(&mut self, random: &mut Random, summary: &mut Summary) {
        let whole = std::fs::read(&self.file).unwrap();
        let mut bytes = whole.clone();
        let place = random.below(bytes.len() as u64);
        match random.chance(500) {
            true => bytes.truncate(place as usize),
            false => bytes[place as usize] ^= 1 << random.below(8),
        }
        std::fs::write(&self.file, &bytes).unwrap();
        let loaded = Client::load(&Device::cpu(), &self.file, SHAPE, &self.recipe, PRESET);
        let error = loaded.err().unwrap().to_string();
        assert!(error.contains(self.file.to_str().unwrap()), "{error}");
        assert_eq!(std::fs::read(&self.file).unwrap(), bytes);
        std::fs::write(&self.file, whole).unwrap();
        summary.note("harmed");
    }
}

/// The server, with all that it published before it ended.
struct Server {
    /// Often more than a piece.
    note: String,
    publisher: Arc<Publisher>,
    published: BTreeMap<u32, Public>,
}

impl Server {
    fn publish(&mut self, random: &mut Random) {
        let version = self.published.last_key_value().map_or(0, |(version, _)| *version);
        let version = version + 1 + random.below(3) as u32;
        let model = ModelSpec::mlp(2, &[6], 2);
        let weights = model.build().unwrap().0.initial(random.word() as u32);
        let public = Public { version, model, note: self.note.clone(), weights };
        self.publisher.publish(&public).unwrap();
        assert!(self.publisher.publish(&public).is_err(), "a version twice");
        self.published.insert(version, public);
    }

    /// It publishes its newest model again.
    fn start(&mut self) {
        self.publisher = Publisher::new();
        if let Some((_, public)) = self.published.last_key_value() {
            self.publisher.publish(public).unwrap();
        }
    }

    /// The answer to all that a client may say.
    fn answer(&self, client: &ClientId, request: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let said: serde_json::Value = serde_json::from_slice(request).unwrap();
        let words: Vec<&String> = said.as_object().unwrap().keys().collect();
        assert!(words == ["newest"] || words == ["piece"], "{said}");
        self.publisher.answer(client, request)
    }
}

/// A run as a seed has it.
pub fn run(seed: u64) -> Summary {
    let (mut random, mut summary) = (Random::new(seed), Summary::default());
    let folder = tempfile::tempdir().unwrap();
    let note = "n".repeat(random.below(2_200_000) as usize);
    let mut server = Server { note, publisher: Publisher::new(), published: BTreeMap::new() };
    server.publish(&mut random);
    let first = Arc::new(server.published.values().next().unwrap().clone());
    let owner = |number: u8| {
        let reuse = if number == 0 { Reuse::Never } else { Reuse::EXACT };
        let schedule = Schedule::constant(0.05);
        let recipe = Recipe { schedule, passes: 2, reuse, ..Recipe::default() };
        let file = folder.path().join(format!("device-{number}"));
        let (client, download, acts, saved) = (None, None, Vec::new(), None);
        let (id, first) = (ClientId([number; 32]), first.clone());
        Owner { id, file, recipe, first, client, download, acts, saved }
    };
    let mut owners = [0, 1].map(owner);
    owners.iter_mut().for_each(Owner::start);
    for _ in 0..STEPS {
        let owner = &mut owners[random.below(2) as usize];
        match random.below(20) {
            0..8 => owner.act(Act::Sees(random.word())),
            8..10 => {
                let rounds = owner.client.as_ref().unwrap().rounds().len();
                owner.act(Act::Learns);
                let learned = owner.client.as_ref().unwrap().rounds().len() - rounds;
                summary.count("learned", learned as u64);
            }
            10..12 => owner.save(),
            12 => {
                owner.client = None;
                owner.download = None;
                if owner.saved.is_some() && random.chance(500) {
                    owner.is_harmed(&mut random, &mut summary);
                }
                owner.start();
                summary.note("started again");
            }
            13 => match random.chance(500) {
                true => server.publish(&mut random),
                false => {
                    server.start();
                    summary.note("server ends");
                }
            },
            _ => downloads(owner, &server, &mut random, &mut summary),
        }
    }
    summary
}

/// The next step of a download: the request or its answer may be lost.
fn downloads(owner: &mut Owner, server: &Server, random: &mut Random, summary: &mut Summary) {
    let has = owner.client.as_ref().unwrap().public().version;
    let download = owner.download.get_or_insert_with(|| Download::new(has));
    let request = download.request().unwrap();
    if random.chance(100) {
        return;
    }
    let answered = server.answer(&owner.id, &request);
    if random.chance(100) {
        return summary.note("lost");
    }
    let answer = match answered {
        Ok(answer) => answer,
        // What was announced isn't there any more.
        Err(ServiceError::Refused { name: "no_version", .. }) => {
            owner.download = None;
            return summary.note("gone");
        }
        Err(error) => panic!("{error}"),
    };
    match download.answered(&answer).unwrap() {
        Downloaded::Part => return,
        Downloaded::Nothing => {
            let newest = *server.published.last_key_value().unwrap().0;
            assert!(newest <= has, "{newest} is newer than {has}");
        }
        Downloaded::All(public) => {
            assert_eq!(Some(&public), server.published.get(&public.version));
            assert!(public.version > has);
            owner.act(Act::Merges(Arc::new(public)));
            summary.note("merged");
        }
    }
    owner.download = None;
}
