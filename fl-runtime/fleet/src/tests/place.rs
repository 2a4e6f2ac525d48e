//! A schema of its own for each test, in the database that the environment names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::{PgPool, PgPoolOptions};
use tern_protocol::{ClientId, Digest, Turn, wire};

use crate::{Database, Options, Taken};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A schema, and connections to look into it.
pub struct Place {
    pub options: Options,
    pub pool: PgPool,
    _folder: tempfile::TempDir,
}

impl Place {
    /// With tables; `None`, and a word, where there is no database. Where `TERN_TEST_FLEET` is set
    /// there has to be one.
    pub async fn new() -> Option<Self> {
        let place = Self::empty().await?;
        Database::init(&place.options).await.unwrap();
        Some(place)
    }

    /// Without tables.
    pub async fn empty() -> Option<Self> {
        let Ok(url) = std::env::var("TERN_TEST_DATABASE") else {
            let required = std::env::var_os("TERN_TEST_FLEET").is_some();
            assert!(!required, "TERN_TEST_DATABASE is not set, expected a database's address");
            eprintln!("left out: TERN_TEST_DATABASE names no database (.ci/services starts one)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut options = Options::new(&url, format!("file://{}", folder.path().display()));
        options.schema = format!("test_{}_{number}", std::process::id());
        options.lease_seconds = 1.0;
        let connect: sqlx_postgres::PgConnectOptions = url.parse().unwrap();
        let connect = connect.options([("search_path", options.schema.as_str())]);
        let pool = PgPoolOptions::new().max_connections(4).connect_with(connect).await.unwrap();
        Some(Place { options, pool, _folder: folder })
    }

    /// As another process has it.
    pub async fn database(&self) -> Database {
        Database::connect(&self.options).await.unwrap()
    }

    async fn set(&self, turn: Turn, state: &str) {
        query(
            "INSERT INTO attempt (round, attempt, state) VALUES ($1, $2, $3)
             ON CONFLICT (round, attempt) DO UPDATE SET state = EXCLUDED.state",
        )
        .bind(i64::from(turn.round))
        .bind(i64::from(turn.attempt))
        .bind(state)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// Opens an attempt, as a leader does.
    pub async fn open(&self, turn: Turn) {
        self.set(turn, "collect").await;
    }

    /// Closes it.
    pub async fn close(&self, turn: Turn) {
        self.set(turn, "closed").await;
    }

    /// Updates in an attempt.
    pub async fn members(&self, turn: Turn) -> i64 {
        query_scalar("SELECT COUNT(*) FROM member WHERE round = $1 AND attempt = $2")
            .bind(i64::from(turn.round))
            .bind(i64::from(turn.attempt))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Rows of a table that were read by an index or in order, as far as that is counted yet.
    pub async fn reads(&self, table: &str) -> i64 {
        query_scalar(
            "SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint FROM pg_stat_user_tables
             WHERE schemaname = $1 AND relname = $2",
        )
        .bind(&self.options.schema)
        .bind(table)
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// The first byte of each member's key, and of its body's digest.
    pub async fn bodies(&self, turn: Turn) -> BTreeMap<u8, u8> {
        let found: Vec<(Vec<u8>, Vec<u8>)> =
            query_as("SELECT client, digest FROM member WHERE round = $1 AND attempt = $2")
                .bind(i64::from(turn.round))
                .bind(i64::from(turn.attempt))
                .fetch_all(&self.pool)
                .await
                .unwrap();
        found.into_iter().map(|(client, digest)| (client[0], digest[0])).collect()
    }
}

/// An update of a client whose body is told from others by a number.
pub fn of(turn: Turn, client: ClientId, body: u8) -> Taken {
    let digest = Digest([body; 32]);
    let finish = wire::Finish {
        round: turn.round,
        attempt: turn.attempt,
        digest: digest.0.to_vec(),
        samples: 5,
        ..Default::default()
    };
    Taken { client, digest, bytes: 100, finish, body: Some(vec![body; 100]) }
}

/// Likewise of a client that is a number.
pub fn taken(turn: Turn, client: u8, body: u8) -> Taken {
    of(turn, ClientId([client; 32]), body)
}
