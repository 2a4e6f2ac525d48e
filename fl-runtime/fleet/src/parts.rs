//! Parts of a closed attempt, which aggregators add up: who has which, and what came of it.

use std::collections::BTreeSet;

use sqlx_core::query::query;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use tern_protocol::{ClientId, Digest, Result, Turn, hex};
use tern_server::federation::Counted;

use crate::Database;
use crate::error::{bytes, database, unreadable};
use crate::lease::fenced;
use crate::wakes::PARTS;

/// Updates of a part, at most.
pub(crate) const SIZE: usize = 64;
/// Bytes of an update in a part's list: key, digest, weight.
const ENTRY: usize = 32 + 32 + 4;

/// A part that this process has claimed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub turn: Turn,
    pub number: i64,
    pub updates: Vec<(ClientId, Counted)>,
    /// Drawn for the claim: only who knows it may finish the part.
    pub token: [u8; 16],
}

impl Claim {
    /// Where its sum goes: no two claims have one place.
    pub fn name(&self) -> String {
        sum_name(self.turn, self.number, &self.token)
    }
}

fn sum_name(turn: Turn, number: i64, token: &[u8]) -> String {
    format!("{}-{}/{number}-{}", turn.round, turn.attempt, hex::encode(token))
}

/// What came of a part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Folded {
    /// A sum of this digest.
    Sum(Digest),
    /// The stored updates of these clients are damaged.
    Lost(Vec<ClientId>),
}

/// A finished part.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finished {
    pub number: i64,
    /// Where its sum is.
    pub name: String,
    pub folded: Folded,
}

fn to_bytes(updates: &[(ClientId, Counted)]) -> Vec<u8> {
    let entry = |(client, counted): &(ClientId, Counted)| {
        [&client.0[..], &counted.digest.0, &counted.weight.to_le_bytes()].concat()
    };
    updates.iter().flat_map(entry).collect()
}

/// What tells lists of updates apart.
pub(crate) fn list_of(updates: &[(ClientId, Counted)]) -> Digest {
    Digest::of(&to_bytes(updates))
}

fn from_bytes(list: &[u8]) -> Result<Vec<(ClientId, Counted)>> {
    let malformed = || unreadable("the list of a part");
    if !list.len().is_multiple_of(ENTRY) {
        return Err(malformed());
    }
    let entry = |entry: &[u8]| {
        let (client, rest) = entry.split_first_chunk().ok_or_else(malformed)?;
        let (digest, weight) = rest.split_first_chunk().ok_or_else(malformed)?;
        let weight = u32::from_le_bytes(bytes(weight, "a weight")?);
        Ok((ClientId(*client), Counted { digest: Digest(*digest), weight }))
    };
    list.chunks_exact(ENTRY).map(entry).collect()
}

fn numbers(turn: Turn) -> (i64, i64) {
    (i64::from(turn.round), i64::from(turn.attempt))
}

impl Database {
    /// Deals these updates to parts, under an epoch. Parts of the same updates that are there stay
    /// as they are, with what was done; those of others go.
    ///
    /// # Errors
    /// If the epoch is over; the database's.
    pub(crate) async fn deal(
        &self,
        epoch: i64,
        turn: Turn,
        updates: &[(ClientId, Counted)],
    ) -> Result<()> {
        let (round, attempt) = numbers(turn);
        let list = list_of(updates).0.to_vec();
        let parts: Vec<Vec<u8>> = updates.chunks(SIZE).map(to_bytes).collect();
        let mut transaction = fenced(self, epoch).await?;
        query("DELETE FROM part WHERE round <> $1 OR attempt <> $2 OR list <> $3")
            .bind(round)
            .bind(attempt)
            .bind(&list)
            .execute(&mut *transaction)
            .await
            .map_err(database)?;
        query(
            "INSERT INTO part (round, attempt, number, list, updates)
             SELECT $1, $2, number - 1, $3, updates
             FROM unnest($4::bytea[]) WITH ORDINALITY AS given (updates, number)
             ON CONFLICT DO NOTHING",
        )
        .bind(round)
        .bind(attempt)
        .bind(&list)
        .bind(parts)
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
        self.wake_in(&mut transaction, PARTS).await?;
        transaction.commit().await.map_err(database)
    }

    /// Claims a part that nobody works at, if there is one.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn claim(&self) -> Result<Option<Claim>> {
        let mut token = [0; 16];
        getrandom::fill(&mut token)?;
        let found: Option<(i64, i64, i64, Vec<u8>)> = query_as(
            "UPDATE part SET token = $1, holder = $2, claims = claims + 1,
                until = clock_timestamp() + $3 * interval '1 second'
             WHERE (round, attempt, number) = (
                SELECT round, attempt, number FROM part
                WHERE NOT done AND (until IS NULL OR until < clock_timestamp())
                ORDER BY round, attempt, number LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING round, attempt, number, updates",
        )
        .bind(&token[..])
        .bind(self.name())
        .bind(self.options().lease_seconds)
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?;
        let claim = |(round, attempt, number, list): (i64, i64, i64, Vec<u8>)| {
            let turn = Turn::new(round as u32, attempt as u32);
            Ok(Claim { turn, number, updates: from_bytes(&list)?, token })
        };
        found.map(claim).transpose()
    }

    /// Keeps a claim for another lease; whether it still is one.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn keep_claim(&self, claim: &Claim) -> Result<bool> {
        let (round, attempt) = numbers(claim.turn);
        let kept = query(
            "UPDATE part SET until = clock_timestamp() + $5 * interval '1 second'
             WHERE round = $1 AND attempt = $2 AND number = $3 AND token = $4 AND NOT done",
        )
        .bind(round)
        .bind(attempt)
        .bind(claim.number)
        .bind(&claim.token[..])
        .bind(self.options().lease_seconds)
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(kept.rows_affected() == 1)
    }

    /// Finishes a part, if the claim on it still is one; whether it was.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn finish_part(&self, claim: &Claim, folded: &Folded) -> Result<bool> {
        let (round, attempt) = numbers(claim.turn);
        let (sum, lost) = match folded {
            Folded::Sum(digest) => (Some(digest.0.to_vec()), None),
            Folded::Lost(clients) => {
                (None, Some(clients.iter().flat_map(|client| client.0).collect::<Vec<u8>>()))
            }
        };
        let mut transaction = self.pool.begin().await.map_err(database)?;
        let finished = query(
            "UPDATE part SET done = true, sum = $5, lost = $6
             WHERE round = $1 AND attempt = $2 AND number = $3 AND token = $4 AND NOT done",
        )
        .bind(round)
        .bind(attempt)
        .bind(claim.number)
        .bind(&claim.token[..])
        .bind(sum)
        .bind(lost)
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
        self.wake_in(&mut transaction, PARTS).await?;
        transaction.commit().await.map_err(database)?;
        Ok(finished.rows_affected() == 1)
    }

    /// Gives back a claim, so that another process may take the part at once.
    ///
    /// # Errors
    /// The database's; then the claim ends by itself.
    pub(crate) async fn give_back(&self, claim: &Claim) -> Result<()> {
        let (round, attempt) = numbers(claim.turn);
        query(
            "UPDATE part SET until = NULL, token = NULL
             WHERE round = $1 AND attempt = $2 AND number = $3 AND token = $4 AND NOT done",
        )
        .bind(round)
        .bind(attempt)
        .bind(claim.number)
        .bind(&claim.token[..])
        .execute(&self.pool)
        .await
        .map_err(database)?;
        Ok(())
    }

    /// Has a part added up anew, under an epoch: its sum can't be read.
    ///
    /// # Errors
    /// If the epoch is over; the database's.
    pub(crate) async fn reopen(&self, epoch: i64, turn: Turn, number: i64) -> Result<()> {
        let (round, attempt) = numbers(turn);
        let mut transaction = fenced(self, epoch).await?;
        query(
            "UPDATE part SET done = false, until = NULL, token = NULL, sum = NULL, lost = NULL
             WHERE round = $1 AND attempt = $2 AND number = $3",
        )
        .bind(round)
        .bind(attempt)
        .bind(number)
        .execute(&mut *transaction)
        .await
        .map_err(database)?;
        self.wake_in(&mut transaction, PARTS).await?;
        transaction.commit().await.map_err(database)
    }

    /// The parts of an attempt once all of them are done.
    ///
    /// # Errors
    /// The database's.
    pub(crate) async fn finished(&self, turn: Turn) -> Result<Option<Vec<Finished>>> {
        let (round, attempt) = numbers(turn);
        let open: i64 = query_scalar(
            "SELECT COUNT(*) FROM part WHERE round = $1 AND attempt = $2 AND NOT done",
        )
        .bind(round)
        .bind(attempt)
        .fetch_one(&self.pool)
        .await
        .map_err(database)?;
        if open > 0 {
            return Ok(None);
        }
        type Found = (i64, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);
        let found: Vec<Found> = query_as(
            "SELECT number, token, sum, lost FROM part
             WHERE round = $1 AND attempt = $2 ORDER BY number",
        )
        .bind(round)
        .bind(attempt)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        let part = |(number, token, sum, lost): Found| {
            let folded = match (sum, lost) {
                (Some(sum), _) => Folded::Sum(Digest(bytes(&sum, "a sum's digest")?)),
                (None, Some(lost)) => {
                    let clients: BTreeSet<ClientId> =
                        lost.as_chunks::<32>().0.iter().map(|key| ClientId(*key)).collect();
                    Folded::Lost(clients.into_iter().collect())
                }
                (None, None) => return Err(unreadable("a finished part")),
            };
            Ok(Finished { number, name: sum_name(turn, number, &token), folded })
        };
        found.into_iter().map(part).collect::<Result<_>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_from_their_bytes() {
        let updates: Vec<(ClientId, Counted)> = (0..3u32)
            .map(|number| {
                let digest = Digest::of(&number.to_le_bytes());
                (ClientId::numbered(number as usize), Counted { digest, weight: number << 24 | 7 })
            })
            .collect();
        let list = to_bytes(&updates);
        assert_eq!(from_bytes(&list).unwrap(), updates);
        assert!(from_bytes(&list[1..]).is_err());
    }
}
