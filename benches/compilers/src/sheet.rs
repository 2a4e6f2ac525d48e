//! What one driver made of all variants, as a Markdown table that is kept and held.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::statistics::Statistics;
use super::vulkan::{About, Program};
use super::worker::{Job, Outcome};

/// All variants that a device supports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sheet {
    /// Driver and device.
    pub about: About,
    /// A variant each.
    pub rows: Vec<Row>,
    /// What failed, with bounds checks or without.
    pub faults: Vec<String>,
}

/// A variant, compiled without bounds checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Kernel.
    pub kernel: String,
    /// Variant.
    pub variant: String,
    /// Whether it is for software devices, and hardware doesn't take it by itself.
    pub software: bool,
    /// What the compiler made of it.
    pub statistics: Statistics,
    /// Seconds that the driver took.
    #[serde(default)]
    pub seconds: f64,
    /// All that it said.
    #[serde(default)]
    pub programs: Vec<Program>,
}

/// Headings of the kept table.
const COLUMNS: [&str; 9] = [
    "kernel",
    "variant",
    "for",
    "subgroup",
    "registers",
    "spills",
    "scratch",
    "workgroup memory",
    "waves",
];

fn figure(n: Option<u64>) -> String {
    n.map_or("–".into(), |n| n.to_string())
}

impl Row {
    /// What the device says of it, in the order of the columns from the fourth on.
    fn figures(&self) -> [Option<u64>; 6] {
        let s = &self.statistics;
        [s.subgroup, s.registers, s.spills, s.scratch, s.workgroup_memory, s.waves]
    }

    /// Its line in the kept table.
    fn line(&self) -> String {
        let kind = if self.software { "software" } else { "hardware" };
        let figures: Vec<String> = self.figures().map(figure).into();
        format!("| {} | {} | {kind} | {} |", self.kernel, self.variant, figures.join(" | "))
    }
}

impl Sheet {
    /// What became of all jobs.
    pub fn new(about: About, outcomes: Vec<(Job, Outcome)>) -> Self {
        let mut sheet = Sheet { about, rows: Vec::new(), faults: Vec::new() };
        for (Job { kernel, variant, checked }, outcome) in outcomes {
            match outcome {
                Outcome::Made(pipeline) if !checked => sheet.rows.push(Row {
                    kernel: kernel.name.into(),
                    variant: variant.name.into(),
                    software: variant.software,
                    statistics: Statistics::of_all(&pipeline.programs),
                    seconds: pipeline.seconds,
                    programs: pipeline.programs,
                }),
                Outcome::Failed(reason) => {
                    let how = if checked { " with checks" } else { "" };
                    let (kernel, variant) = (kernel.name, variant.name);
                    sheet.faults.push(format!("{kernel} ({variant}){how}: {reason}"));
                }
                Outcome::Made(_) | Outcome::Unsupported => {}
            }
        }
        sheet
    }

    /// Whose table it is, in a line.
    fn heading(&self) -> String {
        let a = &self.about;
        let [least, most] = a.subgroups;
        format!(
            "{}; Vulkan {}; subgroups of {least} to {most}; {} KiB of workgroup memory; {}",
            a.driver.trim(),
            a.api,
            a.workgroup_memory >> 10,
            a.features.join(", ")
        )
    }

    /// The table that is kept: what doesn't differ from run to run.
    pub fn markdown(&self) -> String {
        self.table(&[], self.rows.iter().map(Row::line))
    }

    /// What is different from a kept table; nothing for one of another driver or device, which has
    /// other figures.
    ///
    /// # Errors
    /// If the text is no such table.
    pub fn differences(&self, kept: &str) -> Result<Option<Vec<String>>> {
        let mut lines = kept.lines();
        let name = lines.next().and_then(|line| line.strip_prefix("# "));
        let name = name.context("the first line of a kept table is its device's name")?;
        let heading = lines.find(|line| !line.is_empty()).unwrap_or_default();
        if name != self.about.name || heading != self.heading() {
            return Ok(None);
        }
        let kept: Vec<&str> = lines.filter(|line| line.starts_with('|')).skip(2).collect();
        if kept.is_empty() {
            bail!("a kept table without rows");
        }
        let found: Vec<String> = self.rows.iter().map(Row::line).collect();
        let gone = kept.iter().filter(|line| !found.iter().any(|f| f == *line));
        let new = found.iter().filter(|line| !kept.contains(&line.as_str()));
        let gone = gone.map(|line| format!("- {line}"));
        Ok(Some(gone.chain(new.map(|line| format!("+ {line}"))).collect()))
    }

    /// The table with what differs from run to run, slow ones first: schedulers may put in an
    /// instruction more or less.
    pub fn with_times(&self) -> String {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let lines = rows.iter().map(|row| {
            let instructions = figure(row.statistics.instructions);
            format!("{} {instructions} | {:.1} |", row.line(), 1e3 * row.seconds)
        });
        self.table(&["instructions", "time (ms)"], lines)
    }

    fn table(&self, more: &[&str], lines: impl Iterator<Item = String>) -> String {
        let mut text = format!("# {}\n\n{}\n\n", self.about.name, self.heading());
        let columns: Vec<&str> = COLUMNS.iter().chain(more).copied().collect();
        text.push_str(&format!("| {} |\n", columns.join(" | ")));
        let rule = |at: usize| if at < 3 { "---" } else { "---:" };
        let rules: Vec<&str> = (0..columns.len()).map(rule).collect();
        text.push_str(&format!("| {} |\n", rules.join(" | ")));
        lines.for_each(|line| text.push_str(&(line + "\n")));
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A device with one variant.
    pub fn sample(software: bool, statistics: Statistics, seconds: f64) -> Sheet {
        let about = About {
            name: "Test GPU (RADV TEST)".into(),
            driver: "radv Mesa 1.2".into(),
            api: "1.3.0".into(),
            vendor: 0x1002,
            subgroups: [32, 64],
            workgroup_memory: 65536,
            features: vec!["Subgroup".into()],
        };
        let row = Row {
            kernel: "matmul/nt".into(),
            variant: "tiled".into(),
            software,
            statistics,
            seconds,
            programs: Vec::new(),
        };
        Sheet { about, rows: vec![row], faults: Vec::new() }
    }

    #[test]
    fn a_kept_table_is_held_by_its_rows() {
        let statistics = Statistics { registers: Some(96), ..Default::default() };
        let sheet = sample(false, statistics, 0.5);
        let kept = sheet.markdown();
        assert_eq!(sheet.differences(&kept).unwrap(), Some(Vec::new()));
        // Times differ from run to run, registers don't.
        let slower = sample(false, statistics, 0.7);
        assert_eq!(slower.differences(&kept).unwrap(), Some(Vec::new()));
        let more = Statistics { registers: Some(97), ..statistics };
        let found = sample(false, more, 0.5).differences(&kept).unwrap().unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("- ") && found[0].contains("| 96 |"), "{found:?}");
        assert!(found[1].starts_with("+ ") && found[1].contains("| 97 |"), "{found:?}");
    }

    #[test]
    fn a_table_of_another_driver_holds_nothing() {
        let sheet = sample(false, Statistics::default(), 0.5);
        let mut other = sheet.clone();
        other.about.driver = "radv Mesa 1.3".into();
        assert_eq!(other.differences(&sheet.markdown()).unwrap(), None);
        assert!(sheet.differences("no table").is_err());
    }
}
