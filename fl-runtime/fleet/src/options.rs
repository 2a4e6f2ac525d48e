//! Where a fleet's run is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Database, object store, and times. Passwords and keys come from the environment: `PGPASSWORD`,
/// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or what else the clients of both look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `postgres://user@host:port/database?sslmode=verify-full&sslrootcert=ca.pem`.
    pub database: String,
    /// The schema of the run's tables: a database holds several runs by schemas.
    #[serde(default = "schema")]
    pub schema: String,
    /// `s3://bucket/prefix`, or `file:///folder` where all processes see one folder.
    pub objects: String,
    /// Address of an S3 server other than Amazon's: `https://host:port`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Seconds after which what a process holds goes to another, where nothing was heard of it.
    #[serde(default = "lease_seconds")]
    pub lease_seconds: f64,
    /// Seconds for which objects and rows stay that nothing refers to.
    #[serde(default = "keep_seconds")]
    pub keep_seconds: f64,
    /// Connections to the database that a process has at most.
    #[serde(default = "connections")]
    pub connections: u32,
}

fn schema() -> String {
    "tern".into()
}

fn lease_seconds() -> f64 {
    15.0
}

fn keep_seconds() -> f64 {
    3600.0
}

fn connections() -> u32 {
    16
}

impl Options {
    /// A run in this database, with its bytes in this store.
    pub fn new(database: impl Into<String>, objects: impl Into<String>) -> Self {
        Options {
            database: database.into(),
            schema: schema(),
            objects: objects.into(),
            endpoint: None,
            lease_seconds: lease_seconds(),
            keep_seconds: keep_seconds(),
            connections: connections(),
        }
    }

    /// What is wrong with it: the field, its value, what was expected.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn check(&self) -> Result<(), (&'static str, String, &'static str)> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let named = self.schema.starts_with(|c: char| c.is_ascii_lowercase());
        if !named || !self.schema.chars().all(word) || self.schema.len() > 40 {
            let expected = "a name of lowercase letters, digits and _, at most 40, a letter first";
            return Err(("schema", self.schema.clone(), expected));
        }
        if !self.objects.starts_with("s3://") && !self.objects.starts_with("file:///") {
            let expected = "s3://bucket/prefix or file:///folder";
            return Err(("objects", self.objects.clone(), expected));
        }
        if !(0.5..=600.0).contains(&self.lease_seconds) {
            return Err(("lease_seconds", self.lease_seconds.to_string(), "0.5 to 600"));
        }
        // Less than a lease, and what a slow process is about to refer to might be gone.
        if !(self.keep_seconds >= 4.0 * self.lease_seconds && self.keep_seconds <= 1e9) {
            let expected = "four times lease_seconds at least";
            return Err(("keep_seconds", self.keep_seconds.to_string(), expected));
        }
        if !(4..=1000).contains(&self.connections) {
            return Err(("connections", self.connections.to_string(), "4 to 1000"));
        }
        Ok(())
    }

    /// How long a lease lasts.
    pub fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_seconds)
    }

    /// For how long orphans stay.
    pub fn keep(&self) -> Duration {
        Duration::from_secs_f64(self.keep_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = Options::new("postgres://localhost/tern", "s3://bucket/run");
        good.check().unwrap();
        type Change = fn(&mut Options);
        let wrong: [(&str, Change); 7] = [
            ("schema", |o| o.schema = "tern; DROP".into()),
            ("schema", |o| o.schema = String::new()),
            ("schema", |o| o.schema = "1a".into()),
            ("objects", |o| o.objects = "ftp://a".into()),
            ("lease_seconds", |o| o.lease_seconds = f64::NAN),
            ("keep_seconds", |o| o.keep_seconds = 59.0),
            ("connections", |o| o.connections = 3),
        ];
        for (field, change) in wrong {
            let mut options = good.clone();
            change(&mut options);
            assert_eq!(options.check().unwrap_err().0, field);
        }
    }
}
