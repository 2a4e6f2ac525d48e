//! What watchers are told of a run: the dashboard, the terminal view, the metrics, and the
//! file of metrics in the run's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize, Serializer};
use tern_host::files::open_log;
use tern_protocol::coordinator::{Draw, Progress};
use tern_protocol::{ClientId, Error, Result, RunPlan, Salt, Turn};

use super::history::History;
use super::metrics::is_overtaken;
use crate::federation::{Failed, Status};
use crate::journal::CommittedRound;

/// A committed round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The round.
    pub round: u32,
    /// The attempt that made it.
    pub attempt: u32,
    /// What was measured: the clients' training, then their evaluation, then the central one,
    /// the latter of two of the same name.
    pub metrics: BTreeMap<String, f64>,
    /// How its cohort was drawn.
    pub draw: DrawRow,
    /// Updates in it.
    pub clients: u32,
    /// Bytes of these.
    pub bytes_up: u64,
    /// Bytes of models that clients got meanwhile: of one server, as far as this process sent them.
    pub bytes_down: u64,
    /// Seconds since the round before, or since the first start.
    pub seconds: f64,
    /// When it was committed, Unix milliseconds.
    pub committed: u64,
}

/// How a round's cohort was drawn, told once it is committed. Who was online and in the plan's
/// selection has a [`number`](tern_protocol::coordinator::number) up to the largest was drawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrawRow {
    /// What it followed from.
    pub salt: Salt,
    /// Clients that it was drawn from.
    pub candidates: u32,
    /// Clients drawn.
    pub drawn: u32,
    /// The largest number of these.
    pub largest: f64,
}

/// A member of the cohort.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// Who.
    pub client: ClientId,
    /// Whether its answer is in.
    pub arrived: bool,
}

/// The model with the best score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BestScore {
    /// Its round.
    pub round: u32,
    /// Value of the run's metric.
    pub score: f64,
}

/// All of it at a moment; `/status.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Page {
    /// Name of the run.
    pub name: String,
    /// Rounds in all.
    pub rounds: u32,
    /// Rounds committed.
    pub committed: u32,
    /// The open round.
    pub round: u32,
    /// The attempt at it.
    pub attempt: u32,
    /// What it is doing.
    pub phase: &'static str,
    /// Whether the run is over.
    pub finished: bool,
    /// Clients that asked for tasks lately.
    pub online: usize,
    /// Clients registered.
    pub enrolled: usize,
    /// Clients that a round asks for, if there are as many.
    pub asked: u32,
    /// The metric that makes a model the best.
    pub metric: String,
    /// The best model.
    pub best: Option<BestScore>,
    /// Updates of the open attempt.
    pub arrived: usize,
    /// Updates that close it.
    pub needed: usize,
    /// Seconds to the phase's deadline.
    pub seconds_left: Option<f64>,
    /// Who was asked.
    pub cohort: Vec<Member>,
    /// Committed rounds: of a long run the last ones, and of those before one in so many. The
    /// file of metrics and the journal have all.
    #[serde(serialize_with = "rows")]
    pub history: Vec<Arc<Row>>,
    /// Bytes of all updates.
    pub bytes_up: u64,
    /// Bytes of all models that clients got.
    pub bytes_down: u64,
    /// The last attempts that failed, since the start of this process.
    pub failed: Vec<Failed>,
    /// Clients that broke the protocol of secure aggregation and are out, and how.
    pub excluded: BTreeMap<ClientId, String>,
    /// Refusals by name, since the start of this process.
    pub refused: BTreeMap<String, u64>,
    /// What came after its round had gone on, likewise: no fault where more clients are asked than
    /// are needed.
    pub overtaken: BTreeMap<String, u64>,
}

impl Page {
    /// Names of the metrics there are: the one that counts, then accuracy, then the others.
    pub fn metrics(&self) -> Vec<&str> {
        let all = self.history.iter().flat_map(|row| row.metrics.keys().map(String::as_str));
        let mut names: Vec<&str> = all.collect();
        names.sort_by_key(|name| (*name != self.metric, !name.contains("accuracy"), *name));
        names.dedup();
        names
    }

    /// Gauges for Prometheus: name, help, value.
    pub(super) fn gauges(&self) -> Vec<(String, String, f64)> {
        let gauge = |name: &str, help: &str, value: f64| (name.to_owned(), help.to_owned(), value);
        let mut gauges = vec![
            gauge("round", "Open round", self.round.into()),
            gauge("attempt", "Attempt at it", self.attempt.into()),
            gauge("rounds_committed", "Rounds committed", self.committed.into()),
            gauge("clients_online", "Clients that asked for tasks lately", self.online as f64),
            gauge("clients_enrolled", "Clients registered", self.enrolled as f64),
            gauge("cohort", "Clients asked in the open attempt", self.cohort.len() as f64),
            gauge("updates", "Updates in the open attempt", self.arrived as f64),
            gauge("finished", "Whether the run is over", f64::from(u8::from(self.finished))),
        ];
        if let Some(row) = self.history.last() {
            gauges.push(gauge("round_seconds", "Time the last round took", row.seconds));
            gauges.extend(row.metrics.iter().map(|(name, value)| {
                // A plan's names may be any words.
                let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = name.chars().map(word).collect();
                (format!("metric_{name}"), format!("{name} of the last round"), *value)
            }));
        }
        gauges
    }
}

fn rows<S: Serializer>(rows: &[Arc<Row>], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(rows.iter().map(|row| &**row))
}

/// The board that watchers look at; clones show the same.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

struct Shared {
    page: Mutex<Arc<Page>>,
    history: Mutex<History>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    file: Mutex<Option<File>>,
    down: AtomicU64,
    /// Start of the open round, Unix milliseconds.
    since: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// An empty board.
    pub fn new(started: u64) -> Self {
        let shared = Shared {
            page: Mutex::default(),
            history: Mutex::default(),
            refused: Mutex::default(),
            file: Mutex::new(None),
            down: AtomicU64::new(0),
            since: AtomicU64::new(started),
        };
        Board { shared: Arc::new(shared) }
    }

    /// A board that keeps its rows in a file of JSON lines, too, and goes on where that ends.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read or written.
    pub fn with_file(path: &Path, started: u64) -> Result<Self> {
        let mut history = History::default();
        let mut last = started;
        // Rounds of which the file has no whole line are written again.
        let file = open_log(path, |line| {
            let row: Row = serde_json::from_str(line).ok()?;
            last = row.committed;
            history.push(row);
            Some(())
        })?;
        let board = Board::new(last);
        let page = Page { history: history.rows().to_vec(), ..Page::default() };
        *lock(&board.shared.page) = Arc::new(page);
        *lock(&board.shared.history) = history;
        *lock(&board.shared.file) = Some(file);
        Ok(board)
    }

    /// What it shows.
    pub fn page(&self) -> Arc<Page> {
        let mut page = lock(&self.shared.page);
        let counted = lock(&self.shared.refused);
        let all = counted.iter().map(|(name, count)| ((*name).to_owned(), *count));
        let (overtaken, refused) = all.partition(|(name, _)| is_overtaken(name));
        if refused != page.refused || overtaken != page.overtaken {
            let page = Arc::make_mut(&mut page);
            (page.refused, page.overtaken) = (refused, overtaken);
        }
        page.clone()
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, name: &'static str) {
        *lock(&self.shared.refused).entry(name).or_default() += 1;
    }

    /// Counts bytes of models that were sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.shared.down.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rounds it has.
    pub(super) fn rounds(&self) -> u32 {
        lock(&self.shared.history).rows().last().map_or(0, |row| row.round)
    }

    /// Shows a state and the rounds that were committed since the last one, as far as they are
    /// known.
    pub(super) fn show(
        &self,
        plan: &RunPlan,
        status: Result<Status>,
        rounds: Result<Vec<CommittedRound>>,
    ) {
        let shown = rounds.and_then(|rounds| self.update(plan, status?, rounds));
        if let Err(error) = shown {
            tracing::warn!(%error, "showing the run's state");
        }
    }

    /// Shows a state and the rounds that were committed since the last one.
    ///
    /// # Errors
    /// [`Error::File`] if the rows can't be written; they are shown all the same.
    fn update(&self, plan: &RunPlan, status: Status, committed: Vec<CommittedRound>) -> Result<()> {
        let rows: Vec<Row> = committed.into_iter().map(|round| self.row(plan, round)).collect();
        {
            let (mut page, mut history) = (lock(&self.shared.page), lock(&self.shared.history));
            rows.iter().for_each(|row| history.push(row.clone()));
            *page = Arc::new(shown(plan, status, &history));
        }
        let mut file = lock(&self.shared.file);
        let Some(file) = file.as_mut().filter(|_| !rows.is_empty()) else { return Ok(()) };
        let lines: String =
            rows.iter().filter_map(|row| Some(serde_json::to_string(row).ok()? + "\n")).collect();
        file.write_all(lines.as_bytes())
            .map_err(|reason| Error::file(Path::new("metrics.jsonl"), reason))
    }

    fn row(&self, plan: &RunPlan, round: CommittedRound) -> Row {
        let committed = round.committed.0;
        let since = self.shared.since.swap(committed, Ordering::Relaxed);
        let metrics = [round.training, round.evaluation, round.central];
        let turn = Turn::new(round.round, round.attempt);
        let Draw { salt, candidates, ref drawn } = round.draw;
        let drawn = drawn.len() as u32;
        let down = self.shared.down.swap(0, Ordering::Relaxed);
        let largest = round.draw.largest(plan.cohort.selection, turn).unwrap_or(0.0);
        Row {
            round: round.round,
            attempt: round.attempt,
            metrics: metrics.into_iter().flatten().collect(),
            draw: DrawRow { salt, candidates, drawn, largest },
            clients: round.updates,
            bytes_up: round.bytes,
            bytes_down: round.sent.unwrap_or(down),
            seconds: committed.saturating_sub(since) as f64 / 1e3,
            committed,
        }
    }
}

fn shown(plan: &RunPlan, status: Status, history: &History) -> Page {
    let answered = |progress: Progress| progress == Progress::Answered;
    let cohort: Vec<Member> = status
        .cohort
        .iter()
        .map(|(client, progress)| Member { client: *client, arrived: answered(*progress) })
        .collect();
    let (bytes_up, bytes_down) = history.bytes();
    Page {
        name: status.name,
        rounds: status.rounds,
        committed: history.rows().last().map_or(0, |row| row.round),
        round: status.round,
        attempt: status.attempt,
        phase: status.phase,
        finished: status.finished,
        online: status.online,
        enrolled: status.enrolled,
        asked: status.asked,
        metric: plan.evaluation.metric.clone(),
        best: status.best.map(|(round, score)| BestScore { round, score }),
        arrived: cohort.iter().filter(|member| member.arrived).count(),
        // Updates close a round before all who were asked are in; the other phases wait for all.
        needed: match status.phase {
            "collect" => plan.cohort.size as usize,
            _ => cohort.len(),
        },
        seconds_left: status.remaining.map(|milliseconds| milliseconds as f64 / 1e3),
        cohort,
        history: history.rows().to_vec(),
        bytes_up,
        bytes_down,
        failed: status.failed,
        excluded: status.excluded,
        refused: BTreeMap::new(),
        overtaken: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use tern_engine::nn::ModelSpec;
    use tern_protocol::layout::ModelKind;
    use tern_protocol::{Digest, Millis, RunId};

    use super::*;

    fn plan() -> RunPlan {
        RunPlan::new("digits", ModelKind::Layers(ModelSpec::mlp(3, &[], 2)), 5)
    }

    fn status(round: u32) -> Status {
        Status {
            name: "digits".into(),
            run: RunId([0; 16]),
            round,
            attempt: 1,
            rounds: 5,
            phase: "collect",
            remaining: Some(1_500),
            cohort: vec![
                (ClientId([1; 32]), Progress::Answered),
                (ClientId([2; 32]), Progress::Asked),
            ],
            online: 2,
            enrolled: 2,
            asked: 10,
            uploaded: 0,
            stored: 0,
            refusals: BTreeMap::new(),
            failed: Vec::new(),
            excluded: BTreeMap::new(),
            best: Some((1, 0.5)),
            finished: false,
            version: 1,
        }
    }

    fn committed(round: u32) -> CommittedRound {
        CommittedRound {
            round,
            attempt: 1,
            committed: Millis(1_000 * u64::from(round)),
            model: Digest([0; 32]),
            public: Digest([0; 32]),
            training: [("loss".to_owned(), 2.0), ("odd name".to_owned(), 1.0)].into(),
            evaluation: [("loss".to_owned(), 3.0)].into(),
            central: BTreeMap::new(),
            score: Some(3.0),
            draw: Draw { salt: Salt([4; 32]), candidates: 9, drawn: Vec::new() },
            updates: 4,
            bytes: 100,
            sent: None,
        }
    }

    #[test]
    fn rows_are_kept_in_the_file_and_a_cut_line_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let board = Board::with_file(&path, 500).unwrap();
        board.sent(70);
        board.update(&plan(), status(2), vec![committed(1)]).unwrap();
        board.sent(70);
        // Several processes sent less than this one says, by the time of the commit.
        let second = || CommittedRound { sent: Some(30), ..committed(2) };
        board.update(&plan(), status(3), vec![second()]).unwrap();
        let page = board.page();
        assert_eq!((page.committed, page.arrived, page.needed), (2, 1, 10));
        assert_eq!((page.history[0].seconds, page.history[1].seconds), (0.5, 1.0));
        assert_eq!((page.history[0].bytes_down, page.history[1].bytes_down), (70, 30));
        assert_eq!(page.history[0].metrics["loss"], 3.0);
        // As if the process was killed while it wrote the second line.
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        std::fs::write(&path, &text[..text.len() - 10]).unwrap();
        let board = Board::with_file(&path, 9_999).unwrap();
        assert_eq!(board.rounds(), 1);
        board.update(&plan(), status(3), vec![second()]).unwrap();
        let again = std::fs::read_to_string(&path).unwrap();
        assert_eq!(again, text);
        assert_eq!(board.page().history, page.history);
    }

    #[test]
    fn what_watchers_are_told_is_as_long_whatever_the_run_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let board = Board::with_file(&path, 0).unwrap();
        let mut longest = [0, 0];
        for round in 1..=4_000 {
            board.sent(7);
            board.update(&plan(), status(round + 1), vec![committed(round)]).unwrap();
            if round.is_multiple_of(100) {
                let page = board.page();
                assert_eq!((page.committed, page.bytes_down), (round, 7 * u64::from(round)));
                let told = serde_json::to_string(&*page).unwrap().len();
                let most = &mut longest[usize::from(round > 2_000)];
                *most = told.max(*most);
            }
        }
        let [first, second] = longest;
        assert!(second < first + first / 10, "{first} bytes, then {second}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4_000, "the file has all");
        let page = board.page();
        let again = Board::with_file(&path, 0).unwrap();
        assert_eq!((again.rounds(), &again.page().history), (4_000, &page.history));
    }

    #[test]
    fn gauges_have_names_that_prometheus_takes() {
        let board = Board::new(0);
        board.update(&plan(), status(2), vec![committed(1)]).unwrap();
        for name in ["late", "late", "replayed"] {
            board.refused(name);
        }
        let page = board.page();
        assert_eq!(page.refused, [("replayed".to_owned(), 1)].into());
        assert_eq!(page.overtaken, [("late".to_owned(), 2)].into());
        let names: Vec<String> = page.gauges().into_iter().map(|gauge| gauge.0).collect();
        assert!(names.contains(&"metric_odd_name".to_owned()), "{names:?}");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(names.iter().all(|name| name.chars().all(word)), "{names:?}");
    }
}
