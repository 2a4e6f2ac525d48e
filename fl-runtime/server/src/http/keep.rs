//! What a run leaves in its folder for people: models as safetensors and a plot.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tern_engine::save_model;
use tern_protocol::layout::Layout;
use tern_protocol::{Error, Result};

use super::status::{Page, Row};
use crate::plot::{Panel, Series, draw};

/// Files that are written after each committed round: `model.safetensors`, the last one, and
/// `best.safetensors`, the one with the best score. `plot.svg` is drawn anew once there is one round
/// in a hundred more, and at the run's end: it takes longer than many a round.
pub(super) struct Keeper {
    folder: PathBuf,
    layout: Layout,
    /// Rounds at which the plot was drawn.
    drawn: AtomicU32,
}

impl Keeper {
    pub fn new(folder: &Path, layout: &Layout) -> Self {
        Keeper { folder: folder.into(), layout: layout.clone(), drawn: AtomicU32::new(0) }
    }

    /// Writes the last model and the best one.
    pub fn write(&self, [last, best]: &[Vec<f32>; 2], page: &Page) -> Result<()> {
        for (name, model) in [("model", last), ("best", best)] {
            self.replace(&format!("{name}.safetensors"), |path| {
                Ok(save_model(path, self.layout.parameters(), model)?)
            })?;
        }
        let drawn = self.drawn.load(Ordering::Relaxed);
        if !page.finished && page.committed < drawn + (drawn / 100).max(1) {
            return Ok(());
        }
        self.replace("plot.svg", |path| plot(path, page))?;
        self.drawn.store(page.committed, Ordering::Relaxed);
        Ok(())
    }

    /// Writes beside and renames, so that readers find a whole file.
    fn replace(&self, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let (path, beside) = (self.folder.join(name), self.folder.join(format!("new-{name}")));
        write(&beside)?;
        std::fs::rename(&beside, &path).map_err(|reason| Error::file(&path, reason))
    }
}

/// A panel a metric, the one that counts first, then the bytes.
fn plot(path: &Path, page: &Page) -> Result<()> {
    let names = page.metrics();
    let points = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |row: &Row| Some((f64::from(row.round), value(row)?));
        page.history.iter().filter_map(|row| point(row)).collect()
    };
    let lines: Vec<_> =
        names.iter().map(|name| points(&|row| row.metrics.get(*name).copied())).collect();
    let megabytes = |bytes: u64| Some(bytes as f64 / 1e6);
    let (up, down) =
        (points(&|row| megabytes(row.bytes_up)), points(&|row| megabytes(row.bytes_down)));
    let mut panels: Vec<Panel<'_>> = names
        .iter()
        .zip(&lines)
        .map(|(name, points)| Panel {
            title: name,
            axes: ("round", name),
            series: vec![Series { name, points }],
        })
        .collect();
    panels.push(Panel {
        title: "bytes a round",
        axes: ("round", "MB"),
        series: vec![
            Series { name: "updates", points: &up },
            Series { name: "models", points: &down },
        ],
    });
    draw(path, &panels)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tern_engine::load_model;
    use tern_protocol::RunPlan;
    use tern_protocol::layout::{ModelKind, TensorSpec};

    use super::*;

    #[test]
    fn models_are_written_each_round_and_plots_for_one_in_a_hundred_more() {
        let tensor = TensorSpec { name: "w".into(), shape: vec![2] };
        let layout = RunPlan::new("t", ModelKind::Tensors(vec![tensor]), 1).check().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(folder.path(), &layout);
        let path = |name: &str| folder.path().join(name);
        let row = |round: u32| {
            let mut row = Row { round, bytes_up: 3_000_000, ..Row::default() };
            row.metrics.insert("perplexity".into(), f64::from(round));
            row.bytes_down = u64::from(round) * 5_000_000;
            Arc::new(row)
        };
        let drawn_at = |committed: u32, finished: bool| {
            let history = (1..=committed.min(8)).map(row).collect();
            let page = Page { committed, finished, history, ..Page::default() };
            let models = [1.0, 2.0].map(|part| {
                let mut model = layout.parameters().initial(0);
                model[..2].copy_from_slice(&[part, committed as f32]);
                model
            });
            keeper.write(&models, &page).unwrap();
            for (name, model) in ["model", "best"].iter().zip(&models) {
                let found = load_model(&path(&format!("{name}.safetensors")), layout.parameters());
                assert_eq!(&found.unwrap(), model);
            }
            let plot = std::fs::read_to_string(path("plot.svg")).ok();
            plot.inspect(|_| std::fs::remove_file(path("plot.svg")).unwrap())
        };
        let plot = drawn_at(8, false).unwrap();
        // Megabytes from 3 to 40, by an axis with round numbers.
        for text in ["perplexity", "bytes a round", "updates", "models", ">40<"] {
            assert!(plot.contains(text), "{text} is missing: {plot}");
        }
        for (committed, finished, drawn) in [
            (8, false, false),
            (9, false, true),
            (199, false, true),
            (200, false, true),
            (201, false, false),
            (202, false, true),
            (203, true, true),
            (300, false, true),
            (302, false, false),
            (303, false, true),
        ] {
            assert_eq!(drawn_at(committed, finished).is_some(), drawn, "{committed}");
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 2, "what was written beside is there no more");
    }
}
