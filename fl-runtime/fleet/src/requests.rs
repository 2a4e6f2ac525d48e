//! What clients say that the leader decides: registrations and messages. Gateways leave them in the
//! database; the leader answers in order.

use prost::Message as _;
use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use tern_protocol::{ClientId, Refusal, Result, wire};

use crate::Database;
use crate::error::{bytes, database};
use crate::lease::fenced;
use crate::wakes::{ANSWERED, ASKED};

/// Requests that are answered by one transaction.
const MOST: i64 = 256;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    /// To be registered.
    Enroll(wire::Enroll),
    /// That a message is taken.
    Message(wire::Message),
}

impl Asked {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Asked::Enroll(enroll) => [vec![0], enroll.encode_to_vec()].concat(),
            Asked::Message(message) => [vec![1], message.encode_to_vec()].concat(),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, body) = bytes.split_first()?;
        match kind {
            0 => wire::Enroll::decode(body).ok().map(Asked::Enroll),
            1 => wire::Message::decode(body).ok().map(Asked::Message),
            _ => None,
        }
    }
}

/// The leader's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `taken`, `repeated`, or a refusal's name.
    pub outcome: String,
    /// A number that belongs to the refusal.
    pub detail: Option<i64>,
    /// The write after which it was made.
    pub sequence: i64,
}

impl Answer {
    /// What a leader found.
    pub fn new(found: &Result<bool, Refusal>, sequence: i64) -> Self {
        let (outcome, detail) = match found {
            Ok(false) => ("taken", None),
            Ok(true) => ("repeated", None),
            Err(refusal) => {
                let detail = match refusal {
                    Refusal::TokenUsed(clients) => Some(i64::from(*clients)),
                    Refusal::Full(clients) => Some(*clients as i64),
                    _ => None,
                };
                (refusal.name(), detail)
            }
        };
        Answer { outcome: outcome.into(), detail, sequence }
    }

    /// Whether it was taken before; the refusal, where its name and number say which it is.
    pub fn taken(&self) -> Option<Result<bool, Refusal>> {
        Some(match (self.outcome.as_str(), self.detail) {
            ("taken", _) => Ok(false),
            ("repeated", _) => Ok(true),
            ("not_admitted", _) => Err(Refusal::NotAdmitted),
            ("token_used", Some(clients)) => Err(Refusal::TokenUsed(clients as u32)),
            ("full", Some(clients)) => Err(Refusal::Full(clients as usize)),
            ("finished", _) => Err(Refusal::Finished),
            _ => return None,
        })
    }
}

impl Database {
    /// Leaves a request for the leader; its number.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn leave(&self, client: &ClientId, asked: &Asked) -> Result<i64> {
        let number =
            query_scalar("INSERT INTO request (client, body) VALUES ($1, $2) RETURNING number")
                .bind(&client.0[..])
                .bind(asked.to_bytes())
                .fetch_one(&self.pool)
                .await
                .map_err(database)?;
        self.wake(ASKED).await?;
        Ok(number)
    }

    /// Requests that wait for an answer, oldest first. What can't be read is left out, and swept.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn asked(&self) -> Result<Vec<(i64, ClientId, Asked)>> {
        let found: Vec<(i64, Vec<u8>, Vec<u8>)> = query_as(
            "SELECT number, client, body FROM request WHERE outcome IS NULL
             ORDER BY number LIMIT $1",
        )
        .bind(MOST)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let request = |(number, client, body): (i64, Vec<u8>, Vec<u8>)| {
            let client = ClientId(bytes(&client, "a client's key").ok()?);
            Some((number, client, Asked::from_bytes(&body)?))
        };
        Ok(found.into_iter().filter_map(request).collect())
    }

    /// Answers requests, under an epoch.
    ///
    /// # Errors
    /// If the epoch is over; the database's.
    pub(crate) async fn answer(&self, epoch: i64, answers: &[(i64, Answer)]) -> Result<()> {
        let mut transaction = fenced(self, epoch).await?;
        query(
            "UPDATE request SET outcome = given.outcome, detail = given.detail,
                sequence = given.sequence
             FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[])
                AS given (number, outcome, detail, sequence)
             WHERE request.number = given.number",
        )
        .bind(answers.iter().map(|(number, _)| *number).collect::<Vec<_>>())
        .bind(answers.iter().map(|(_, answer)| answer.outcome.clone()).collect::<Vec<_>>())
        .bind(answers.iter().map(|(_, answer)| answer.detail).collect::<Vec<_>>())
        .bind(answers.iter().map(|(_, answer)| answer.sequence).collect::<Vec<_>>())
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
        self.wake_in(&mut transaction, ANSWERED).await?;
        transaction.commit().await.map_err(database)
    }

    /// Takes the answers to these requests that are there.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn answered(&self, numbers: &[i64]) -> Result<Vec<(i64, Answer)>> {
        let found: Vec<(i64, String, Option<i64>, i64)> = query_as(
            "DELETE FROM request WHERE number = ANY($1) AND outcome IS NOT NULL
             RETURNING number, outcome, detail, sequence",
        )
        .bind(numbers)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let answer =
            |(number, outcome, detail, sequence)| (number, Answer { outcome, detail, sequence });
        Ok(found.into_iter().map(answer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back_from_what_they_are_written_as() {
        let message = wire::Message { round: 3, attempt: 1, body: None };
        for asked in
            [Asked::Enroll(wire::Enroll { token: "a token".into() }), Asked::Message(message)]
        {
            assert_eq!(Asked::from_bytes(&asked.to_bytes()), Some(asked));
        }
        assert_eq!((Asked::from_bytes(&[]), Asked::from_bytes(&[2])), (None, None));
        for found in [
            Ok(false),
            Ok(true),
            Err(Refusal::NotAdmitted),
            Err(Refusal::TokenUsed(3)),
            Err(Refusal::Full(9)),
            Err(Refusal::Finished),
        ] {
            assert_eq!(Answer::new(&found, 7).taken(), Some(found));
        }
        // Others depend on the state, from which they are found again.
        let late = Err(Refusal::Conflict("answer"));
        assert_eq!(Answer::new(&late, 7).taken(), None);
    }
}
