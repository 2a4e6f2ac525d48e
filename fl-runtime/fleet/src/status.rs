//! Who serves a run, and how far it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use tern_protocol::Result;

use crate::Database;
use crate::error::database;

/// Time between signs of life.
const PAUSE: Duration = Duration::from_secs(2);

/// A process that serves, seen in `tern fleet status` while this lives.
pub struct Role(Arc<Mutex<String>>);

impl Role {
    /// What it does now.
    pub fn say(&self, what: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleStatus {
    /// Its kind: gateway, leader, aggregator.
    pub kind: String,
    /// What tells it from others.
    pub name: String,
    /// What it does.
    pub detail: String,
    /// Seconds since it was heard of.
    pub silent: f64,
    /// Seconds since it started.
    pub age: f64,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaseStatus {
    /// The process.
    pub holder: String,
    /// Its number.
    pub epoch: i64,
    /// Seconds that it still lasts; negative once it is over.
    pub left: f64,
}

/// A run and its fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetStatus {
    /// Version of the schema.
    pub version: i32,
    /// The last write, if there is a run.
    pub sequence: Option<i64>,
    /// Rounds committed.
    pub rounds: i64,
    /// Clients registered.
    pub clients: i64,
    /// Who leads.
    pub lease: LeaseStatus,
    /// Processes heard of within two leases.
    pub roles: Vec<RoleStatus>,
    /// Parts of the open attempt that are done, that somebody works at, and all.
    pub parts: (i64, i64, i64),
    /// Requests that wait for the leader, and seconds that the first has waited.
    pub waiting: (i64, f64),
}

impl Database {
    /// Shows this process as one of a kind, in the background.
    pub fn serve(&self, kind: &'static str) -> Role {
        let role = Role(Arc::default());
        let (shared, of) = (Arc::downgrade(&role.0), self.clone());
        self.handle().spawn(async move {
            let name = format!("{kind} {}", of.name());
            while let Some(detail) = shared.upgrade() {
                let detail = detail.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Err(error) = of.alive(&name, kind, &detail).await {
                    tracing::debug!(%error, "showing that this process is there");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        role
    }

    async fn alive(&self, name: &str, kind: &str, detail: &str) -> Result<()> {
        query(
            "INSERT INTO role (name, kind, seen, detail) VALUES ($1, $2, clock_timestamp(), $3)
             ON CONFLICT (name) DO UPDATE SET seen = EXCLUDED.seen, detail = EXCLUDED.detail",
        )
        .bind(name)
        .bind(kind)
        .bind(detail)
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// The last write of the run; 0 before one.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn sequence(&self) -> Result<i64> {
        let found: Option<i64> = query_scalar("SELECT sequence FROM run")
            .fetch_optional(&self.pool)
            .await
            .map_err(database)?;
        Ok(found.unwrap_or(0))
    }

    /// The run and its fleet.
    ///
    /// # Errors
    /// The database's.
    pub async fn fleet_status(&self) -> Result<FleetStatus> {
        let read = async {
            let mut transaction = self.pool.begin().await?;
            let version =
                query_scalar("SELECT version FROM version").fetch_one(&mut *transaction).await?;
            let sequence =
                query_scalar("SELECT sequence FROM run").fetch_optional(&mut *transaction).await?;
            let (rounds, clients) =
                query_as("SELECT (SELECT COUNT(*) FROM round), (SELECT COUNT(*) FROM client)")
                    .fetch_one(&mut *transaction)
                    .await?;
            let (holder, epoch, left): (String, i64, f64) = query_as(
                "SELECT holder, epoch, extract(epoch FROM until - clock_timestamp())::float8
                 FROM lease",
            )
            .fetch_one(&mut *transaction)
            .await?;
            let roles: Vec<(String, String, String, f64, f64)> = query_as(
                "SELECT kind, name, detail,
                    extract(epoch FROM clock_timestamp() - seen)::float8,
                    extract(epoch FROM clock_timestamp() - started)::float8
                 FROM role WHERE seen > clock_timestamp() - $1 * interval '1 second'
                 ORDER BY kind, name",
            )
            .bind(2.0 * self.options().lease_seconds)
            .fetch_all(&mut *transaction)
            .await?;
            let parts = query_as(
                "SELECT COUNT(*) FILTER (WHERE done),
                    COUNT(*) FILTER (WHERE NOT done AND until > clock_timestamp()), COUNT(*)
                 FROM part",
            )
            .fetch_one(&mut *transaction)
            .await?;
            let waiting = query_as(
                "SELECT COUNT(*),
                    COALESCE(extract(epoch FROM clock_timestamp() - MIN(asked)), 0)::float8
                 FROM request WHERE outcome IS NULL",
            )
            .fetch_one(&mut *transaction)
            .await?;
            let role =
                |(kind, name, detail, silent, age)| RoleStatus { kind, name, detail, silent, age };
            Ok(FleetStatus {
                version,
                sequence,
                rounds,
                clients,
                lease: LeaseStatus { holder, epoch, left },
                roles: roles.into_iter().map(role).collect(),
                parts,
                waiting,
            })
        };
        read.await.map_err(database)
    }
}
