//! Reports as Markdown tables.

use std::fmt::Write;

use super::view::{Column, beside, columns, kernel_rows, keys, outcome, percent, roof, timed_rate};
use super::{Outcome, Report};
use crate::table::{bytes, digits, seconds};

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn heading(&mut self, title: &str) {
        self.line(&format!("\n## {title}\n"));
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut line = String::from("|");
        for cell in cells {
            // Writing to a string can't fail.
            let _ = write!(line, " {} |", cell.replace('|', "\\|"));
        }
        self.line(&line);
    }

    /// A table with a column a device.
    fn head(&mut self, first: &[&str], columns: &[Column<'_>]) {
        let names = first.iter().map(|f| f.to_string());
        let cells: Vec<String> = names.chain(columns.iter().map(|c| c.heading.clone())).collect();
        let rules = cells.iter().enumerate();
        let rules: Vec<String> =
            rules.map(|(i, _)| if i < first.len() { "---" } else { "---:" }.to_string()).collect();
        self.row(cells);
        self.row(rules);
    }
}

/// All reports as one text.
pub fn markdown(reports: &[Report]) -> String {
    let columns = columns(reports);
    let mut text = Text(String::new());
    text.line("# Tern's benchmarks");
    devices(&mut text, &columns);
    kernels(&mut text, &columns);
    training(&mut text, &columns);
    replicas(&mut text, &columns);
    peers(&mut text, reports);
    text.0
}

fn devices(text: &mut Text, columns: &[Column<'_>]) {
    text.heading("Devices");
    text.head(&[""], columns);
    let mut row = |name: &str, value: &dyn Fn(&Column<'_>) -> String| {
        text.row([name.to_string()].into_iter().chain(columns.iter().map(value)));
    };
    row("adapter", &|c| format!("{}, {}", c.device.adapter.name, c.device.adapter.kind));
    row("driver", &|c| format!("{}, {}", c.device.adapter.backend, c.device.adapter.driver));
    row("machine", &|c| {
        let host = &c.report.host;
        format!("{}, {} cores, {} {}", host.cpu, host.cores, host.os, host.arch)
    });
    row("commit", &|c| {
        let commit = c.report.commit.clone();
        if c.report.quick { format!("{commit}, quick run") } else { commit }
    });
    for at in 0..columns.iter().map(|c| roof(c.device).len()).max().unwrap_or(0) {
        let name = columns.iter().find_map(|c| roof(c.device).get(at).map(|r| r.0));
        row(name.unwrap_or_default(), &|c| {
            roof(c.device).get(at).map_or("–".into(), |r| r.1.clone())
        });
    }
    row("fast paths right", &|c| {
        let count = |what: &str| c.device.self_tests.iter().filter(|t| t.outcome == what).count();
        format!("{}; failed {}; not run {}", count("passed"), count("failed"), count("not run"))
    });
}

fn kernels(text: &mut Text, columns: &[Column<'_>]) {
    let rows = kernel_rows(columns);
    if rows.is_empty() {
        return;
    }
    text.heading("Kernels");
    text.line("Rate, share of the roof, time. A struck-out row computed something wrong.\n");
    text.head(&["kernel", "sizes"], columns);
    for (kernel, sizes) in rows {
        let found: Vec<_> = columns.iter().map(|c| outcome(c, (kernel, sizes))).collect();
        let failed = found.iter().any(|o| matches!(o, Some(Outcome::Failed { .. })));
        let strike = |s: &str| if failed { format!("~~{s}~~") } else { s.to_string() };
        let cells = found.iter().map(|o| match o {
            Some(Outcome::Timed(t)) => {
                let share = t.share.map_or(String::new(), |s| format!(", {}", percent(s)));
                format!("{}{share}, {}", timed_rate(t), seconds(t.times.median))
            }
            Some(Outcome::Failed { .. }) => "**FAIL**".into(),
            Some(Outcome::NotRun { .. }) => "not run".into(),
            None => "–".into(),
        });
        text.row([strike(kernel), strike(sizes)].into_iter().chain(cells));
    }
}

fn training(text: &mut Text, columns: &[Column<'_>]) {
    let names = keys(columns.iter().flat_map(|c| &c.device.training).map(|t| &t.workload));
    if names.is_empty() {
        return;
    }
    text.heading("Training steps");
    text.line(
        "Time of a step with the loss read in every step; steps a second where losses are read \
         once for several; what of that is no kernel's; dispatches and submits; memory.\n",
    );
    text.head(&["model", "sizes"], columns);
    for name in names {
        let find = |c: &Column<'_>| c.device.training.iter().find(|t| &t.workload == name).cloned();
        let sizes = columns.iter().find_map(find).map(|t| t.sizes).unwrap_or_default();
        let cells = columns.iter().map(|c| match find(c) {
            Some(t) => format!(
                "{}, {} /s, {} between, {} and {}, {}",
                seconds(t.step.median),
                digits(1.0 / t.streamed.median),
                percent(t.between / t.streamed.median),
                t.dispatches,
                t.submits[0],
                bytes(t.memory[1])
            ),
            None => "–".into(),
        });
        text.row([name.clone(), sizes].into_iter().chain(cells));
    }
}

fn replicas(text: &mut Text, columns: &[Column<'_>]) {
    let all = columns.iter().flat_map(|c| &c.device.replicas);
    let rows = keys(all.map(|r| (&r.workload, r.replicas)));
    if rows.is_empty() {
        return;
    }
    text.heading("Models side by side");
    text.line("Steps a second, all models together, and how many times those of one model.\n");
    text.head(&["model", "models"], columns);
    for (name, count) in rows {
        let cells = columns.iter().map(|c| {
            let mut own = c.device.replicas.iter();
            match own.find(|r| &r.workload == name && r.replicas == count) {
                Some(r) => match (&r.step, r.growth) {
                    (Some(step), Some(growth)) => {
                        let rate = r.replicas as f64 / step.median;
                        format!("{} /s, {} ×", digits(rate), digits(growth))
                    }
                    _ => format!("not run: {}", r.reason),
                },
                None => "–".into(),
            }
        });
        text.row([name.clone(), count.to_string()].into_iter().chain(cells));
    }
}

fn peers(text: &mut Text, reports: &[Report]) {
    if reports.iter().all(|r| beside(r).is_empty()) {
        return;
    }
    text.heading("Beside other frameworks, in the same run");
    text.row(["", "device", "time", "peer", "its time", "times as fast"].map(String::from));
    text.row(["---", "---", "---:", "---", "---:", "---:"].map(String::from));
    for b in reports.iter().flat_map(beside) {
        text.row([
            b.workload.to_string(),
            b.device.adapter.short().to_string(),
            seconds(b.seconds[0]),
            b.peer.peer.clone(),
            seconds(b.seconds[1]),
            format!("**{}**", digits(b.times())),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn tables_have_a_column_a_device_and_strike_out_failures() {
        let text = markdown(&[sample(1e-3), sample(2e-3)]);
        let rows: Vec<&str> = text.lines().filter(|l| l.contains("matmul/n")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(rows.iter().all(|row| row.matches('|').count() == 5), "{text}");
        assert!(rows[1].contains("~~matmul/nt~~") && rows[1].contains("FAIL"), "{text}");
        assert!(text.contains("| mlp | Test GPU | 1.00 ms | Other 1.0 | 2.00 ms | **2.00** |"));
    }
}
