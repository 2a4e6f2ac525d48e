//! The rounds that watchers are shown: as many as can be looked at, however long the run.

use std::sync::Arc;

use super::Row;

/// Rows that are shown at most.
pub(super) const MOST: usize = 1024;
/// Of these, the last ones, which are all shown.
pub(super) const LAST: usize = 64;

/// The last rounds, and of those before one in so many; with sums over all of them. Which they are
/// follows from the rounds alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    rows: Vec<Arc<Row>>,
    /// The first round that is shown, and of the older ones each whose distance from it is a
    /// multiple of this.
    every: u32,
    bytes_up: u64,
    bytes_down: u64,
}

impl History {
    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }

    /// Bytes of all rounds: of updates, and of models.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_up, self.bytes_down)
    }

    /// Adds the round after the last.
    pub fn push(&mut self, row: Row) {
        self.bytes_up += row.bytes_up;
        self.bytes_down += row.bytes_down;
        self.rows.push(Arc::new(row));
        if self.rows.len() > MOST {
            self.thin();
        }
    }

    /// A quarter of the rows goes, at least. It takes as many rounds until they are to be thinned
    /// again, so that a round costs the same whatever came before.
    fn thin(&mut self) {
        let first = self.rows[0].round;
        let last = self.rows[self.rows.len() - LAST].round;
        while self.rows.len() > MOST / 4 * 3 {
            let every = self.every.max(1);
            self.rows.retain(|row| row.round >= last || (row.round - first).is_multiple_of(every));
            if self.rows.len() > MOST / 4 * 3 {
                self.every = 2 * every;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::http::DrawRow;

    fn row(round: u32) -> Row {
        let (attempt, clients, seconds, committed) = (1, 2, 0.5, u64::from(round));
        let (bytes_up, bytes_down, metrics) = (3, 5, BTreeMap::new());
        let draw = DrawRow::default();
        Row { round, attempt, metrics, draw, clients, bytes_up, bytes_down, seconds, committed }
    }

    #[test]
    fn a_long_run_is_shown_by_as_many_rows_as_a_short_one() {
        let mut history = History::default();
        let mut thinned = 0;
        for round in 1..=100_000 {
            let before = history.rows.len();
            history.push(row(round));
            thinned += u32::from(history.rows.len() < before);
            assert!((before.min(MOST / 3)..=MOST).contains(&history.rows.len()));
            if round.is_multiple_of(997) {
                let shown: Vec<u32> = history.rows.iter().map(|row| row.round).collect();
                assert!(shown.is_sorted() && shown[0] == 1);
                let last = shown.len().saturating_sub(LAST);
                let expected = round + 1 - (shown.len() - last) as u32..=round;
                assert!(shown[last..].iter().copied().eq(expected), "all of the last");
                // No hole is larger than others.
                let most = history.every.max(1);
                assert!(shown.windows(2).all(|pair| pair[1] - pair[0] <= most));
                assert!(most <= (round / 256).max(1), "as many as there can be");
            }
        }
        // Rarely, so that a round does little.
        assert!((10..=400).contains(&thinned), "{thinned}");
        assert_eq!(history.bytes(), (300_000, 500_000));
    }
}
