//! Reports as Markdown tables.

use std::fmt::Write;

use super::view::{
    Column, LOW_TITLE, against_better, beside, columns, keys, low_first, machine, of_roofline,
    outcome, pair_name, percent, roofline, timed_pairs, timed_rate,
};
use crate::report::{Outcome, Report};
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
    pairs(&mut text, reports);
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
    row("machine", &|c| machine(&c.report.host));
    row("commit", &|c| {
        let commit = c.report.commit.clone();
        if c.report.quick { format!("{commit}, quick run") } else { commit }
    });
    for at in 0..columns.iter().map(|c| roofline(c.device).len()).max().unwrap_or(0) {
        let name = columns.iter().find_map(|c| roofline(c.device).get(at).map(|r| r.0));
        row(name.unwrap_or_default(), &|c| {
            roofline(c.device).get(at).map_or("–".into(), |r| r.1.clone())
        });
    }
    row("fast paths right", &|c| {
        let count = |what: &str| c.device.self_tests.iter().filter(|t| t.outcome == what).count();
        format!("{}; failed {}; not run {}", count("passed"), count("failed"), count("not run"))
    });
}

fn kernels(text: &mut Text, columns: &[Column<'_>]) {
    let [below, others] = low_first(columns);
    if below.len() + others.len() == 0 {
        return;
    }
    text.heading("Kernels");
    text.line(
        "Rate, share of the roofline, time; where a peer was faster than the roofline or the roofline isn't \
         known, the share of the peer's rate. A struck-out row computed something wrong.",
    );
    if !below.is_empty() {
        text.line(&format!("\n### On the CPU {LOW_TITLE}\n"));
        kernel_table(text, columns, &below);
        text.line("\n### The others");
    }
    text.line("");
    kernel_table(text, columns, &others);
}

fn kernel_table(text: &mut Text, columns: &[Column<'_>], rows: &[(&str, &str)]) {
    text.head(&["kernel", "sizes"], columns);
    for &(kernel, sizes) in rows {
        let found: Vec<_> = columns.iter().map(|c| (c, outcome(c, (kernel, sizes)))).collect();
        let failed = found.iter().any(|(_, o)| matches!(o, Some(Outcome::Failed { .. })));
        let strike = |s: &str| if failed { format!("~~{s}~~") } else { s.to_string() };
        let cells = found.iter().map(|(c, o)| match o {
            Some(Outcome::Timed(t)) => {
                let row = c.device.kernels.iter().find(|r| r.kernel == kernel && r.sizes == sizes);
                let share = row.and_then(|row| against_better(c.report, c.device, row));
                let share = match share {
                    Some((share, "roofline")) => format!(", {}", of_roofline(share)),
                    Some((share, by)) => format!(", {} of the {by}", percent(share)),
                    None => String::new(),
                };
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

fn pairs(text: &mut Text, reports: &[Report]) {
    for report in reports {
        for device in report.devices.iter().filter(|d| !d.pairs.is_empty()) {
            let peer = timed_pairs(report, device).map_or("no peer", |p| &p.peer);
            text.heading(&format!("{} beside {peer}", device.title()));
            text.line(&format!("On {}, turn by turn. LSTM layers:", report.host.cpu));
            text.line("batch × hidden × steps, forward and backward. Products: M × N × K.");
            text.line("At best: the ratio of the fastest runs.\n");
            let heading = ["", "time", "GFLOP/s", "of the roofline", "its time", "times as fast"];
            text.row(heading.into_iter().chain(["at best"]).map(String::from));
            text.row(["---"].into_iter().chain(["---:"; 6]).map(String::from));
            for pair in &device.pairs {
                text.row([
                    pair_name(pair),
                    seconds(pair.ours.median),
                    digits(pair.rate),
                    pair.share.map_or("–".into(), of_roofline),
                    pair.theirs.map_or("–".into(), |t| seconds(t.median)),
                    pair.ratio().map_or("–".into(), |r| format!("**{}**", digits(r))),
                    pair.ratio_at_best().map_or("–".into(), digits),
                ]);
            }
        }
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
            b.workload.clone(),
            b.device.title(),
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
    fn rows_far_below_the_roofline_come_first_on_the_cpu() {
        let mut report = sample(1e-3);
        let device = &mut report.devices[0];
        device.adapter.kind = "cpu".into();
        let row = |name: &str, share: f64| {
            let mut row = device.kernels[0].clone();
            row.kernel = name.into();
            let Outcome::Timed(timed) = &mut row.outcome else { unreachable!("it is timed") };
            timed.share = Some(share);
            row
        };
        device.kernels = [("good", 0.9), ("slow", 0.2), ("slower", 0.1), ("fair", 0.3)]
            .map(|(name, share)| row(name, share))
            .into();
        let text = markdown(&[report.clone()]);
        let places = ["below 30 %", "slower", "slow |", "The others", "good", "fair"]
            .map(|part| text.find(part).unwrap());
        assert!(places.is_sorted(), "{places:?} {text}");
        // Elsewhere, and where all is well, there is one table.
        report.devices[0].adapter.kind = "discrete".into();
        assert!(!markdown(&[report]).contains("below 30 %"));
    }

    #[test]
    fn pairs_have_a_table_with_both_ratios() {
        let text = markdown(&[sample(1e-3)]);
        let row = "| lstm 1 × 2 × 3 | 1.00 ms | 2.00 | 25 % | 1.50 ms | **1.50** | 1.00 |";
        assert!(text.contains("beside Other 1.0") && text.contains(row), "{text}");
    }

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
