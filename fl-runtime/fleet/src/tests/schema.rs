//! Which schemas a process takes.

use sqlx_core::query::query;

use super::place::Place;
use crate::{Database, VERSION};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_schema_a_newer_one_and_none_are_refused_by_name() {
    let Some(place) = Place::empty().await else { return };
    let refused = async || match Database::connect(&place.options).await {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    let schema = &place.options.schema;
    let none = refused().await;
    assert!(none.contains(schema) && none.contains("none, expected version"), "{none}");
    assert!(none.contains("tern fleet init"), "{none}");
    assert_eq!(Database::init(&place.options).await.unwrap(), 0);
    Database::connect(&place.options).await.unwrap();
    // Once more changes nothing.
    assert_eq!(Database::init(&place.options).await.unwrap(), VERSION);
    for (version, hint) in [(VERSION - 1, "tern fleet init"), (VERSION + 1, "a program")] {
        query("UPDATE version SET version = $1").bind(version).execute(&place.pool).await.unwrap();
        let error = refused().await;
        let found = format!("version {version}, expected version {VERSION}");
        assert!(error.contains(&found) && error.contains(hint), "{error}");
    }
    let error = Database::init(&place.options).await.unwrap_err().to_string();
    assert!(error.contains("a newer program made it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_make_the_schema_at_once_make_one() {
    let Some(place) = Place::empty().await else { return };
    let init = || async { Database::init(&place.options).await };
    // The schema itself may be made by either.
    let (a, b, c) = tokio::join!(init(), init(), init());
    let made = [a, b, c].into_iter().filter(|made| matches!(made, Ok(0))).count();
    assert!(made <= 1);
    Database::init(&place.options).await.unwrap();
    Database::connect(&place.options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_named() {
    let options = crate::Options::new("postgres://nobody@127.0.0.1:1/none", "file:///tmp");
    let error = match Database::connect(&options).await {
        Ok(_) => panic!("there"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("postgres"), "{error}");
}
