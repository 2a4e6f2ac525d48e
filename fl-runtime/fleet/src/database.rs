//! The database of a fleet's run: a pool of connections in which the run's schema is looked at first.

use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::raw_sql::raw_sql;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use tern_protocol::{Error, Millis, Result, hex};
use tokio::runtime::Handle;

use crate::error::database;
use crate::{Options, migrations};

/// Time in which a connection must be had.
const CONNECT: Duration = Duration::from_secs(10);

/// The database of a run; clones share its connections.
#[derive(Clone)]
pub struct Database {
    pub(crate) pool: PgPool,
    handle: Handle,
    options: Options,
    /// The database's time when it was asked, and when that was: all processes go by one clock.
    clock: (u64, Instant),
    /// What tells this process from others.
    name: String,
}

impl Database {
    /// Connects to a run's database. Its schema must be of this program's version.
    ///
    /// # Errors
    /// [`Error::Value`] for options that make no sense and a schema of another version;
    /// [`Error::Journal`] if there is no database.
    pub async fn connect(options: &Options) -> Result<Self> {
        let found = Self::reach(options).await?;
        migrations::check(&found.pool, &options.schema).await?;
        Ok(found)
    }

    /// Makes the schema, or brings an older one up to date. Returns the version there was.
    ///
    /// # Errors
    /// As [`Database::connect`], but for older versions.
    pub async fn init(options: &Options) -> Result<i32> {
        let found = Self::reach(options).await?;
        // The name was checked.
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", options.schema);
        raw_sql(AssertSqlSafe(create)).execute(&found.pool).await.map_err(database)?;
        migrations::migrate(&found.pool, &options.schema, migrations::VERSION).await
    }

    async fn reach(options: &Options) -> Result<Self> {
        options.check().map_err(|(field, value, expected)| {
            Error::value(format!("fleet.{field}"), value, expected)
        })?;
        let connect = PgConnectOptions::from_str(&options.database)
            .map_err(database)?
            .options([("search_path", options.schema.as_str())])
            .application_name("tern");
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(CONNECT)
            .connect_with(connect)
            .await
            .map_err(database)?;
        let now: i64 =
            query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
                .fetch_one(&pool)
                .await
                .map_err(database)?;
        let mut name = [0; 8];
        getrandom::fill(&mut name)?;
        let name = format!("{}-{}", std::process::id(), hex::encode(&name));
        let clock = (now as u64, Instant::now());
        Ok(Database { pool, handle: Handle::current(), options: options.clone(), clock, name })
    }

    /// The fleet's options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The database's time, as far as this process knows it: its clock when it connected, and what
    /// has passed since.
    pub fn now(&self) -> Millis {
        let (then, since) = self.clock;
        Millis(then + since.elapsed().as_millis() as u64)
    }

    /// What tells this process from others.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the database, from a thread that may wait.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Where what waits is run.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The channel on which processes of the run wake each other.
    fn channel(&self) -> String {
        format!("tern_{}", self.options.schema)
    }

    /// Wakes the others.
    pub(crate) async fn wake(&self, what: &'static str) -> Result<()> {
        query("SELECT pg_notify($1, $2)")
            .bind(self.channel())
            .bind(what)
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(())
    }

    /// Wakes the others once a transaction is committed.
    pub(crate) async fn wake_in(
        &self,
        transaction: &mut sqlx_postgres::PgTransaction<'_>,
        what: &'static str,
    ) -> Result<()> {
        query("SELECT pg_notify($1, $2)")
            .bind(self.channel())
            .bind(what)
            .execute(&mut **transaction)
            .await
            .map_err(database)?;
        Ok(())
    }

    /// Listens to those who wake.
    pub(crate) async fn listen(&self) -> Result<PgListener> {
        let mut listener = PgListener::connect_with(&self.pool).await.map_err(database)?;
        listener.listen(&self.channel()).await.map_err(database)?;
        Ok(listener)
    }
}
