//! What of a damaged run can be had back, and having it back.
//!
//! A run goes on from a committed round whose models are whole: the last one, unless its models are
//! lost. What was under way after it is begun again, by an attempt that no client has seen. The
//! files that are replaced are kept beside.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use tern_host::files::{Durability, Faults, sync_folder};
use tern_host::folder::FolderLock;
use tern_protocol::coordinator::{Coordinator, Event, Head, Standing};
use tern_protocol::plan::StrategySpec;
use tern_protocol::update::Codec;
use tern_protocol::{ClientId, Digest, Ended, Error, Millis, Result, RunId, RunPlan, Turn, wire};

use super::Options;
use super::aggregation::Context;
use super::replay::Replay;
use super::start::first_scales;
use crate::blobs::Blobs;
use crate::journal::{self, Contents, Damage, Found, Journal, JournalHead, Restored, RoundRow};

/// The file of a server's board, with a line a committed round.
const METRICS: &str = "metrics.jsonl";

/// A run's folder, looked through. It is nobody else's while this lives.
pub struct Repair {
    /// What is damaged or missing.
    pub damage: Vec<Damage>,
    way: Way,
    folder: PathBuf,
    /// Damaged bodies.
    bodies: Vec<PathBuf>,
    /// Those of them that are there again, from elsewhere.
    again: Vec<Vec<u8>>,
    blobs: Blobs,
    _lock: FolderLock,
}

/// What can be done.
enum Way {
    /// Nothing is damaged.
    Nothing,
    /// The journal is whole, and its head is written anew.
    Head,
    /// The journal is written anew, with this in it.
    Journal {
        restored: Box<Restored>,
        said: String,
        /// Whether committed rounds are lost.
        back: bool,
    },
    /// There is nothing to go on from.
    None(String),
}

impl Repair {
    /// Looks through a run's folder and changes nothing. `initial` is the model that the run was
    /// started from.
    ///
    /// # Errors
    /// [`Error::Value`] for a plan that makes no sense; [`Error::File`], for a folder that is in
    /// use, too; [`Error::Journal`].
    pub fn examine(
        folder: &Path,
        plan: &RunPlan,
        initial: &[f32],
        options: &Options,
    ) -> Result<Self> {
        let layout = plan.check()?;
        let lock = FolderLock::take(folder)?;
        let (contents, found) = Journal::contents(folder)?;
        let blobs = Blobs::open(folder, Durability::Power, u64::MAX, Faults::default())?;
        let strategy = plan.strategy.build(options.strategy.as_ref())?;
        let context = Context::new(plan, &layout, strategy, options, Arc::new(blobs.clone()))?;
        let (bodies, again) = (BTreeMap::new(), BTreeMap::new());
        let first = Digest::of(&Codec::full(initial));
        let mut search = Search { plan, contents, found, context, initial, first, bodies, again };
        let mut damage = search.contents.damage.clone();
        if damage.is_empty() {
            damage.extend(journal::compare(&search.contents, found));
        }
        let behind = match found {
            Found::Whole(head) => Some(head.sequence) > search.contents.sequence(),
            Found::Missing | Found::Damaged => false,
        };
        let way = match damage.is_empty() || !search.contents.damage.is_empty() || behind {
            false if search.contents.started() => Way::Head,
            _ => search.way(damage.is_empty()),
        };
        damage.extend(search.bodies.values().cloned());
        let bodies = search.bodies.keys().map(|digest| blobs.model_path(digest)).collect();
        let (folder, again) = (folder.into(), search.again.into_values().collect());
        Ok(Repair { damage, way, folder, bodies, again, blobs, _lock: lock })
    }

    /// Whether there is something that [`Repair::apply`] can do.
    pub fn is_possible(&self) -> bool {
        match self.way {
            Way::Head | Way::Journal { .. } => true,
            Way::Nothing => !self.again.is_empty(),
            Way::None(_) => false,
        }
    }

    /// Does it. Returns the folder to which the files went that were replaced.
    ///
    /// # Errors
    /// [`Error::Value`] if there is nothing to be done; [`Error::File`], [`Error::Journal`]: the
    /// files of before are in that folder then, or where they were.
    pub fn apply(&self) -> Result<PathBuf> {
        let (restored, back) = match &self.way {
            Way::Head => (None, false),
            Way::Journal { restored, back, .. } => (Some(restored), *back),
            Way::Nothing if self.is_possible() => (None, false),
            Way::Nothing | Way::None(_) => {
                return Err(Error::value("the run", self.to_string(), "one that can be repaired"));
            }
        };
        let aside = self.keep_aside()?;
        for body in &self.again {
            self.blobs.put_model(body)?;
        }
        let database = self.folder.join(journal::FILE);
        let head = self.folder.join(journal::HEAD_FILE);
        let Some(restored) = restored else {
            if matches!(self.way, Way::Head) {
                remove(&head)?;
                Journal::write_head(&self.folder)?;
            }
            return Ok(aside);
        };
        let made = self.folder.join("repaired");
        if made.exists() {
            std::fs::remove_dir_all(&made).map_err(|e| Error::file(&made, e))?;
        }
        std::fs::create_dir(&made).map_err(|e| Error::file(&made, e))?;
        let mut journal = Journal::open(&made, Durability::Power, Faults::default())?;
        journal.restore(restored)?;
        drop(journal);
        for name in ["-wal", "-shm"].map(|end| format!("{}{end}", journal::FILE)) {
            // The log of the old database is none of the new one's.
            remove(&self.folder.join(name))?;
        }
        for path in [&database, &head] {
            let from = made.join(path.file_name().unwrap_or_default());
            std::fs::rename(&from, path).map_err(|e| Error::file(&from, e))?;
        }
        if back {
            // A server writes it anew, from the rounds that there are.
            remove(&self.folder.join(METRICS))?;
        }
        sync_folder(&self.folder)?;
        std::fs::remove_dir_all(&made).map_err(|e| Error::file(&made, e))?;
        Ok(aside)
    }

    /// Copies what is replaced or damaged into a new folder.
    fn keep_aside(&self) -> Result<PathBuf> {
        let free = (1u32..).map(|number| self.folder.join(format!("damaged-{number}")));
        let aside = free.into_iter().find(|path| !path.exists()).unwrap_or_default();
        std::fs::create_dir(&aside).map_err(|e| Error::file(&aside, e))?;
        let database = ["", "-wal"].map(|end| self.folder.join(format!("{}{end}", journal::FILE)));
        let others = [journal::HEAD_FILE, METRICS].map(|name| self.folder.join(name));
        for path in database.iter().chain(&others).chain(&self.bodies).filter(|p| p.exists()) {
            let to = aside.join(path.file_name().unwrap_or_default());
            std::fs::copy(path, &to).map_err(|e| Error::file(&to, e))?;
            let flushed = std::fs::File::open(&to).and_then(|file| file.sync_all());
            flushed.map_err(|e| Error::file(&to, e))?;
        }
        sync_folder(&aside)?;
        Ok(aside)
    }
}

impl fmt::Display for Repair {
    /// What is damaged, and what can be had back, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.damage {
            writeln!(f, "damaged: {damage}")?;
        }
        match &self.way {
            Way::Nothing if self.is_possible() => {
                write!(f, "can be had back: all. {} bodies are there again", self.again.len())
            }
            Way::Nothing => write!(f, "the journal and the models that it needs are whole"),
            Way::Head => {
                let all = "all that the journal has, which is whole";
                write!(f, "can be had back: {all}. Its head is written anew")
            }
            Way::Journal { said, .. } => write!(f, "can be had back: {said}"),
            Way::None(reason) => write!(f, "nothing can be had back: {reason}"),
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path, e)),
        _ => Ok(()),
    }
}

/// The search for a state to go on from.
struct Search<'a> {
    plan: &'a RunPlan,
    contents: Contents,
    found: Found,
    context: Context,
    /// The first model, and its digest.
    initial: &'a [f32],
    first: Digest,
    /// Damage of the bodies that were looked at, and those that were found elsewhere.
    bodies: BTreeMap<Digest, Damage>,
    again: BTreeMap<Digest, Vec<u8>>,
}

impl Search<'_> {
    fn run(&self) -> Option<RunId> {
        let told = self.contents.meta.get("run").and_then(|run| RunId::from_slice(run));
        told.or(self.head().map(|head| head.run))
    }

    /// Whether a body is there, or can be made again.
    fn has(&mut self, digest: &Digest) -> bool {
        let Err(error) = self.context.bodies.read(digest) else { return true };
        let damage = Damage::new(format!("models/{digest}"), error, format!("SHA-256 {digest}"));
        self.bodies.insert(*digest, damage);
        if self.again.contains_key(digest) {
            return true;
        }
        let copy = match *digest == self.first {
            true => Some(Codec::full(self.initial)),
            false => self.context.copy(digest),
        };
        if let Some(copy) = copy.or_else(|| self.remake(digest)) {
            self.again.insert(*digest, copy);
        }
        self.again.contains_key(digest)
    }

    /// Likewise of several. Each is looked at, so that all that is damaged is named.
    fn has_all(&mut self, digests: impl IntoIterator<Item = Digest>) -> bool {
        let mut all = true;
        for digest in digests {
            all &= self.has(&digest);
        }
        all
    }

    /// A body from the updates that the run kept.
    fn remake(&self, digest: &Digest) -> Option<Vec<u8>> {
        let mut replay = Replay::new(&self.context, &self.contents.rounds, self.initial).ok()?;
        while let Ok(Some((_, remade))) = replay.next() {
            let mut bodies = std::iter::once(remade.model).chain(remade.others);
            let found = bodies.find(|body| Digest::of(body) == *digest);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn way(&mut self, whole: bool) -> Way {
        let Some(run) = self.run() else {
            let reason =
                format!("neither the journal nor {} says which run it is", journal::HEAD_FILE);
            return Way::None(reason);
        };
        let stored = self.contents.meta.get("snapshot").filter(|_| self.contents.base.is_some());
        let based = stored.and_then(|bytes| wire::Snapshot::decode(&bytes[..]).ok());
        if let Some(mut snapshot) = based.clone()
            && self.fits(&mut snapshot)
        {
            if whole && Some(&snapshot) == based.as_ref() && self.open_round_fits(run) {
                return Way::Nothing;
            }
            return self.from(run, snapshot, self.contents.rounds.len());
        }
        for rounds in (1..=self.contents.rounds.len()).rev() {
            if let Ok(mut snapshot) = self.after(rounds)
                && self.fits(&mut snapshot)
            {
                return self.from(run, snapshot, rounds);
            }
        }
        if let Some(mut snapshot) = self.by_head()
            && self.fits(&mut snapshot)
        {
            return self.from(run, snapshot, 0);
        }
        Way::None("no committed round has its models".into())
    }

    /// Whether a state has its models. What it can do without is taken out of it.
    fn fits(&mut self, snapshot: &mut wire::Snapshot) -> bool {
        let Some(head) = snapshot.head.clone() else { return false };
        let Ok(mut head) = Head::try_from(head) else { return false };
        if head.difference.is_some_and(|difference| !self.has(&difference)) {
            head.difference = None;
        }
        let best = snapshot.best.as_ref().and_then(|best| Digest::from_slice(&best.model));
        if best.is_some_and(|best| !self.has(&best)) {
            snapshot.best = None;
        }
        snapshot.head = Some((&head).into());
        self.has_all([Some(head.model), Some(head.public), head.state].into_iter().flatten())
    }

    /// Whether the models are there that events of the open round name.
    fn open_round_fits(&mut self, run: RunId) -> bool {
        let snapshot = self.contents.meta.get("snapshot").cloned().unwrap_or_default();
        let Ok(mut coordinator) = Coordinator::restore(self.plan.clone(), run, &snapshot) else {
            return false;
        };
        let handled = self.contents.events.iter().try_for_each(|body| {
            let journaled = wire::Journaled::decode(&body[..]).ok()?;
            let now = Millis(journaled.now);
            coordinator.handle(now, Event::from_wire(journaled).ok()?).ok().map(|_| ())
        });
        let kept = coordinator.kept();
        handled.is_some() && self.has_all(kept)
    }

    /// The state after so many rows of the table of rounds.
    fn after(&self, rounds: usize) -> Result<wire::Snapshot> {
        let rows = &self.contents.rounds[..rounds];
        let heads: Vec<Head> = rows.iter().map(RoundRow::head).collect::<Result<_>>()?;
        let mut counted: BTreeMap<ClientId, Turn> = BTreeMap::new();
        let mut best: Option<wire::Best> = None;
        for (row, head) in rows.iter().zip(&heads) {
            let turn = Turn::new(row.round, row.attempt);
            counted.extend(row.uploads.iter().map(|upload| (upload.client, turn)));
            let Some(score) = row.score else { continue };
            let goal = self.plan.evaluation.goal;
            if best.as_ref().is_none_or(|best| goal.is_better(score, best.score)) {
                best = Some(wire::Best { model: head.public.0.to_vec(), round: row.round, score });
            }
        }
        let (row, head) = (&rows[rounds - 1], &heads[rounds - 1]);
        let base = heads.iter().rev().nth(1).map_or(self.first, |before| before.public);
        let scored = best.as_ref().filter(|_| row.score.is_some());
        let finished =
            self.plan.ends_after(row.round, scored.map_or(0, |best| row.round - best.round));
        Ok(wire::Snapshot {
            now: row.committed as u64,
            round: if finished { row.round } else { row.round + 1 },
            attempt: if finished { row.attempt } else { 1 },
            head: Some(head.into()),
            best,
            counted: counted
                .into_iter()
                .map(|(client, turn)| counted_last(&client, turn))
                .collect(),
            finished,
            base: base.0.to_vec(),
            // No round's record has them: who broke the protocol may take part again.
            excluded: Vec::new(),
            // After a committed round the model is another one. If it isn't, clients say so.
            sums: Vec::new(),
            told: Vec::new(),
            ends: Vec::new(),
            ended: None,
        })
    }

    /// The state after the round that the head knows, where all that it left is a model, or where
    /// nothing goes on from it.
    fn by_head(&self) -> Option<wire::Snapshot> {
        let head = self.head()?;
        let plain = matches!(self.plan.strategy, StrategySpec::Average { .. });
        let scales = first_scales(self.plan, &self.context.layout);
        let goes_on = plain && scales.is_empty() && head.round < self.plan.rounds;
        if !goes_on && (head.standing.over.is_none() || self.is_longer(&head)) {
            return None;
        }
        let left = Head::initial(head.model, scales);
        let coordinator = Coordinator::new(self.plan.clone(), head.run, left).ok()?;
        wire::Snapshot::decode(&coordinator.after(head.round).snapshot()[..]).ok()
    }

    fn head(&self) -> Option<JournalHead> {
        match self.found {
            Found::Whole(head) => Some(head),
            Found::Missing | Found::Damaged => None,
        }
    }

    /// Whether a run that was over goes on, since its plan has more rounds now.
    fn is_longer(&self, head: &JournalHead) -> bool {
        let Standing { turn, .. } = head.standing;
        self.plan.evaluation.patience.is_none() && self.plan.rounds > turn.round
    }

    /// A run that its clients were told is over stays so, whatever is lost of it. What is said of
    /// that.
    fn end(
        &mut self,
        snapshot: &mut wire::Snapshot,
        head: &JournalHead,
        told: Digest,
        earlier: bool,
    ) -> String {
        let turn = head.standing.turn;
        let mut ended = snapshot.clone();
        (ended.round, ended.attempt, ended.finished) = (turn.round, turn.attempt, true);
        let same = Standing::of(&ended.encode_to_vec()).over == Some(told);
        if snapshot.finished && same || !earlier && self.is_longer(head) {
            return String::new();
        }
        if !same || earlier || self.plan.rounds > turn.round {
            ended.ended = Some(Ended { round: turn.round, model: told }.into());
        }
        *snapshot = ended;
        let lost = if self.has(&told) { "" } else { ", which is lost" };
        let round = turn.round;
        format!(
            ". It is over since round {round}, as its clients were told, with model {told}{lost}"
        )
    }

    /// Going on from a state, with this many committed rounds in the journal.
    fn from(&mut self, run: RunId, mut snapshot: wire::Snapshot, rounds: usize) -> Way {
        let head = self.head();
        let last = head.map_or(0, |head| head.sequence).max(self.contents.last);
        let standing = head.map(|head| head.standing).unwrap_or_default();
        // Each attempt after this state was at least one write.
        let seen = last.saturating_sub(self.contents.base.unwrap_or(0));
        let round = snapshot.round.saturating_sub(u32::from(!snapshot.finished));
        let committed = self.contents.rounds.last().map_or(0, |r| r.round);
        let known = head.map_or(committed, |head| head.round);
        let mut said = format!("run {run} after round {round}");
        if let Some(head) = head
            && let Some(told) = standing.over
        {
            said += &self.end(&mut snapshot, &head, told, known > round);
        }
        if !snapshot.finished && self.plan.secure.is_some() {
            // The one that was open, and those that are lost.
            let open = snapshot.round.max(known + 1).max(standing.turn.round);
            let open = open.min(self.plan.rounds);
            let abandoned = match open > snapshot.round {
                true => format!("Rounds {} to {open} are", snapshot.round),
                false => format!("Round {open} is"),
            };
            said += &format!(
                ". {abandoned} abandoned: clients may have revealed shares there, and then join no \
                 other attempt"
            );
            if open >= self.plan.rounds {
                (snapshot.round, snapshot.finished) = (open, true);
            } else {
                (snapshot.round, snapshot.attempt) = (open + 1, 1);
            }
        } else if !snapshot.finished {
            let open = standing.turn.attempt + 1;
            let open = if standing.turn.round == snapshot.round { open } else { 1 };
            let attempt = (u64::from(snapshot.attempt) + seen + 1).max(u64::from(open));
            snapshot.attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
            said += &format!(
                ". Round {} begins again with attempt {attempt}: what came of it so far is lost",
                snapshot.round
            );
        }
        if known > round {
            said += &format!(", and so are rounds {} to {known}", round + 1);
        }
        let rows = self.contents.rounds[..rounds].to_vec();
        if rows.len() < round as usize {
            let most = if self.plan.secure.is_some() { "up to " } else { "" };
            said += &format!(", and the records of {most}{} rounds", round as usize - rows.len());
        }
        if snapshot.best.is_none() && rows.iter().any(|row| row.score.is_some()) {
            said += ", and the best model";
        }
        let clients = self.contents.clients.clone();
        said += &format!(". {} clients are registered", clients.len());
        let plan = serde_json::to_vec(self.plan).unwrap_or_default();
        let snapshot = snapshot.encode_to_vec();
        let initial = self.first;
        let restored = Restored { run, plan, initial, clients, rounds: rows, snapshot };
        Way::Journal { restored: Box::new(restored), said, back: known > round }
    }
}

fn counted_last(client: &ClientId, turn: Turn) -> wire::Counted {
    wire::Counted { client: client.0.to_vec(), turn: Some(turn.into()) }
}
