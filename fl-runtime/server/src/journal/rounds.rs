//! Committed rounds, and the updates in them.

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension, params};
use tern_protocol::coordinator::{Draw, Head, RoundRecord, Upload};
use tern_protocol::metrics::Metrics;
use tern_protocol::{ClientId, Digest, Millis, Refusal, Result, Turn, wire};

use super::chain::link;
use super::{Journal, named};

pub(super) const ROUNDS: &str = "SELECT *,
        (SELECT COUNT(*) FROM uploads WHERE uploads.round = rounds.round),
        (SELECT IFNULL(SUM(bytes), 0) FROM uploads WHERE uploads.round = rounds.round)
    FROM rounds WHERE round > ?1 ORDER BY round";
pub(super) const UPLOADS: &str =
    "SELECT client, digest, bytes, samples FROM uploads WHERE round = ?1 ORDER BY client";
pub(super) const TURN: &str = "SELECT attempt FROM rounds WHERE round = ?1";

/// A committed round.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CommittedRound {
    /// The round.
    pub round: u32,
    /// The attempt that made it.
    pub attempt: u32,
    /// When.
    pub committed: Millis,
    /// The model, as the server has it.
    pub model: Digest,
    /// The model, as clients have it.
    pub public: Digest,
    /// Clients' training, weighted by samples.
    pub training: Metrics,
    /// Clients' evaluation of the new model, weighted by samples.
    pub evaluation: Metrics,
    /// Central evaluation of the new model.
    pub central: Metrics,
    /// The plan's metric.
    pub score: Option<f64>,
    /// How its cohort was drawn.
    #[serde(skip)]
    pub draw: Draw,
    /// Updates in it.
    pub updates: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Bytes of models that clients got since the round before, where several processes send them
    /// and count that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
}

/// An update that is in a committed round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedUpload {
    /// Whose.
    pub client: ClientId,
    /// SHA-256 of its body.
    pub digest: Digest,
    /// Bytes of its body.
    pub bytes: u64,
    /// Samples: its weight.
    pub samples: u32,
}

/// A row of the table of rounds, with the updates in it.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundRow {
    /// The round.
    pub round: u32,
    /// The attempt that made it.
    pub attempt: u32,
    /// When, Unix milliseconds.
    pub committed: i64,
    /// What the round left, as `wire.proto` has it.
    pub head: Vec<u8>,
    /// Means of the clients' training, as JSON.
    pub training: String,
    /// Means of the clients' evaluation, as JSON.
    pub evaluation: String,
    /// The plan's metric.
    pub score: Option<f64>,
    /// How its cohort was drawn, as `wire.proto` has it.
    pub draw: Vec<u8>,
    /// In order of their clients' keys.
    pub uploads: Vec<CountedUpload>,
}

impl RoundRow {
    /// The chain of rounds after this one.
    pub(super) fn link(&self, before: &Digest) -> Digest {
        let numbers = &[self.round, self.attempt].map(u32::to_le_bytes).concat()[..];
        // SQLite keeps no sign of a zero.
        let score = self.score.map(|score| (score + 0.0).to_bits().to_le_bytes());
        let score = score.as_ref().map_or(&[][..], |score| &score[..]);
        let mut uploads = Vec::with_capacity(76 * self.uploads.len());
        for CountedUpload { client, digest, bytes, samples } in &self.uploads {
            uploads.extend(client.0);
            uploads.extend(digest.0);
            uploads.extend(bytes.to_le_bytes());
            uploads.extend(samples.to_le_bytes());
        }
        let (training, evaluation) = (self.training.as_bytes(), self.evaluation.as_bytes());
        let committed = self.committed.to_le_bytes();
        let (head, draw) = (&self.head[..], &self.draw[..]);
        let parts = [numbers, &committed, head, training, evaluation, score, draw, &uploads];
        link(before, "round", &parts)
    }
}

impl RoundRow {
    /// Of a round that is committed now.
    pub fn new(now: Millis, record: &RoundRecord) -> Self {
        let json = |metrics: &Metrics| serde_json::to_string(metrics).unwrap_or_default();
        let counted = |(client, upload): (&ClientId, &Upload)| {
            let (digest, bytes, samples) = (upload.digest, upload.bytes, upload.samples);
            CountedUpload { client: *client, digest, bytes, samples }
        };
        RoundRow {
            round: record.turn.round,
            attempt: record.turn.attempt,
            committed: now.0 as i64,
            head: wire::Aggregated::from(&record.head).encode_to_vec(),
            training: json(&record.training),
            evaluation: json(&record.evaluation),
            score: record.score.map(|score| score.value),
            draw: record.draw.to_bytes(),
            uploads: record.uploads.iter().map(counted).collect(),
        }
    }

    /// What the round left.
    pub(crate) fn head(&self) -> Result<Head> {
        let malformed = |_| Refusal::Malformed("head of a round");
        Ok(wire::Aggregated::decode(&self.head[..]).map_err(malformed)?.try_into()?)
    }
}

impl CommittedRound {
    /// From its row, with so many updates of so many bytes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a row that no round left.
    pub fn new(row: &RoundRow, updates: u32, bytes: u64) -> Result<Self> {
        let Head { model, public, metrics: central, .. } = row.head()?;
        let metrics = |text: &str| serde_json::from_str(text).unwrap_or_default();
        Ok(CommittedRound {
            round: row.round,
            attempt: row.attempt,
            committed: Millis(row.committed as u64),
            model,
            public,
            training: metrics(&row.training),
            evaluation: metrics(&row.evaluation),
            central,
            score: row.score,
            draw: Draw::from_bytes(&row.draw)?,
            updates,
            bytes,
            sent: None,
        })
    }
}

impl Journal {
    /// Committed rounds after round `after`, in order.
    ///
    /// # Errors
    /// [`tern_protocol::Error::Journal`].
    pub fn rounds(&self, after: u32) -> Result<Vec<CommittedRound>> {
        let named = named(&self.path);
        let mut all = self.connection.prepare_cached(ROUNDS).map_err(&named)?;
        let rounds = all.query_map([after], |row| {
            Ok((round_row(row)?, row.get(9)?, row.get::<_, i64>(10)? as u64))
        });
        let mut committed = Vec::new();
        for found in rounds.map_err(&named)? {
            let (row, updates, bytes) = found.map_err(&named)?;
            committed.push(CommittedRound::new(&row, updates, bytes)?);
        }
        Ok(committed)
    }

    /// Updates in a committed round, in order of their clients' keys.
    ///
    /// # Errors
    /// [`tern_protocol::Error::Journal`].
    pub fn uploads(&self, round: u32) -> Result<Vec<CountedUpload>> {
        let named = named(&self.path);
        let mut all = self.connection.prepare_cached(UPLOADS).map_err(&named)?;
        let uploads = all.query_map([round], counted_upload);
        uploads.map_err(&named)?.collect::<rusqlite::Result<_>>().map_err(&named)
    }

    /// The attempt that made a committed round.
    ///
    /// # Errors
    /// [`tern_protocol::Error::Journal`].
    pub fn turn(&self, round: u32) -> Result<Option<Turn>> {
        let mut find = self.connection.prepare_cached(TURN).map_err(named(&self.path))?;
        let attempt = find.query_row([round], |row| row.get(0)).optional();
        Ok(attempt.map_err(named(&self.path))?.map(|attempt| Turn::new(round, attempt)))
    }
}

pub(super) fn round_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<RoundRow> {
    Ok(RoundRow {
        round: row.get(0)?,
        attempt: row.get(1)?,
        committed: row.get(2)?,
        head: row.get(3)?,
        training: row.get(4)?,
        evaluation: row.get(5)?,
        score: row.get(6)?,
        draw: row.get(7)?,
        uploads: Vec::new(),
    })
}

pub(super) fn counted_upload(row: &rusqlite::Row<'_>) -> rusqlite::Result<CountedUpload> {
    Ok(CountedUpload {
        client: ClientId(row.get(0)?),
        digest: Digest(row.get(1)?),
        bytes: row.get::<_, i64>(2)? as u64,
        samples: row.get(3)?,
    })
}

/// Writes a round and the updates in it.
pub(super) fn insert_round(
    connection: &Connection,
    row: &RoundRow,
    hash: &Digest,
) -> rusqlite::Result<()> {
    let RoundRow { round, attempt, committed, head, training, evaluation, score, draw, uploads } =
        row;
    connection.execute(
        "INSERT INTO rounds VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![round, attempt, committed, head, training, evaluation, score, draw, hash.0],
    )?;
    let mut insert =
        connection.prepare_cached("INSERT INTO uploads VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for CountedUpload { client, digest, bytes, samples } in uploads {
        insert.execute(params![round, client.0, digest.0, *bytes as i64, samples])?;
    }
    Ok(())
}
