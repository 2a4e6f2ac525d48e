//! The schema, by versions. A process refuses a database of another version than its own; `tern
//! fleet init` brings an older one up to date.

use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::raw_sql::raw_sql;
use sqlx_postgres::PgPool;
use tern_protocol::{Error, Result};

use crate::error::database;

/// The version that this program reads and writes.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// What leads from each version to the next, the first one from nothing. Those that were released
/// are never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
];

/// Of the schema in a database; `None` if there is none.
///
/// # Errors
/// The database's.
pub(crate) async fn version(pool: &PgPool) -> Result<Option<i32>> {
    let there: bool = query_scalar("SELECT to_regclass('version') IS NOT NULL")
        .fetch_one(pool)
        .await
        .map_err(database)?;
    match there {
        false => Ok(None),
        true => {
            query_scalar("SELECT version FROM version").fetch_optional(pool).await.map_err(database)
        }
    }
}

/// Whether the schema is of this version.
///
/// # Errors
/// [`Error::Value`] with the version there is; the database's.
pub(crate) async fn check(pool: &PgPool, schema: &str) -> Result<()> {
    let expected = match version(pool).await? {
        Some(VERSION) => return Ok(()),
        None => "to be made by `tern fleet init` first",
        Some(found) if found < VERSION => "to be brought up to date by `tern fleet init` first",
        Some(_) => "a program that is as new as its schema",
    };
    let found = version(pool).await?.map_or("none".into(), |found| format!("version {found}"));
    let expected = format!("version {VERSION}: {expected}");
    Err(Error::value(format!("schema `{schema}` of the database"), found, expected))
}

/// Makes the schema, or brings it up to date, up to version `to`.
///
/// # Errors
/// [`Error::Value`] for one that is newer than this program; the database's.
pub(crate) async fn migrate(pool: &PgPool, schema: &str, to: i32) -> Result<i32> {
    let mut transaction = pool.begin().await.map_err(database)?;
    // Two that migrate at once do it one after the other.
    query("SELECT pg_advisory_xact_lock(7437696)")
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
    let found = version(pool).await?.unwrap_or(0);
    if found > VERSION {
        let name = format!("schema `{schema}` of the database");
        let expected = format!("version {VERSION} at most: a newer program made it");
        return Err(Error::value(name, format!("version {found}"), expected));
    }
    for step in found..to {
        let sql = MIGRATIONS[step as usize];
        raw_sql(sql).execute(&mut *transaction).await.map_err(database)?;
        query("UPDATE version SET version = $1")
            .bind(step + 1)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
    }
    transaction.commit().await.map_err(database)?;
    Ok(found)
}
