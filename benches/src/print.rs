//! What a run shows in the terminal.

use std::cmp::Ordering;

use crate::pages::view::{
    LOW_TITLE, against_better, beside, beside_row, low, of_roofline, pair_name, percent, roofline,
    timed_pairs,
};
use crate::report::{Device, Outcome, Report, Row, Times, Training};
use crate::table::{Table, bytes, digits, seconds};

/// Everything measured in a run.
pub fn report(report: &Report, profile: bool) {
    println!("{}", report.host.cpu);
    for each in &report.devices {
        device(report, each, profile);
    }
    peers(report);
}

fn device(report: &Report, device: &Device, profile: bool) {
    println!("{}", device.title());
    for (name, value) in roofline(device) {
        println!("  {name:<22}{value}");
    }
    fast_paths(device);
    println!();
    checks(device);
    kernels(report, device);
    for training in &device.training {
        step(device, training, profile);
    }
    replicas(device);
    pairs(report, device);
}

fn fast_paths(device: &Device) {
    let tests = &device.self_tests;
    if tests.is_empty() {
        return;
    }
    let count = |what: &str| tests.iter().filter(|t| t.outcome == what).count();
    let (passed, failed, not_run) = (count("passed"), count("failed"), count("not run"));
    println!("  {:<22}{passed} right, {failed} wrong, {not_run} not run", "fast paths");
    for test in tests.iter().filter(|t| t.outcome == "failed") {
        println!("FAIL {} ({}): {}", test.kernel, test.variant, test.reason);
    }
}

fn exponent(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.1e}") }
}

fn checks(device: &Device) {
    if device.checks.is_empty() {
        return;
    }
    let mut table = Table::new(&["kernel", "cases", "error", "words"]);
    for check in &device.checks {
        let cells = match check.faults.len() {
            0 => [exponent(check.error), exponent(check.words_differing)],
            faults => ["FAIL".into(), faults.to_string()],
        };
        let name = [check.kernel.clone(), check.cases.to_string()];
        table.row(name.into_iter().chain(cells));
    }
    println!("{table}");
    println!(
        "error: largest error against the f64 reference, relative to the largest magnitude of the\n\
         result (at least 1); words: largest share that differs.\n"
    );
    for check in &device.checks {
        for fault in &check.faults {
            println!("FAIL {}: {fault}", check.kernel);
        }
    }
}

fn kernels(report: &Report, device: &Device) {
    if device.kernels.is_empty() {
        return;
    }
    let (mut below, others): (Vec<&Row>, Vec<&Row>) =
        device.kernels.iter().partition(|row| low(device, row).is_some());
    below.sort_by(|a, b| low(device, a).partial_cmp(&low(device, b)).unwrap_or(Ordering::Equal));
    if !below.is_empty() {
        println!("{LOW_TITLE}\n{}", kernel_table(report, device, &below));
    }
    println!("{}", kernel_table(report, device, &others));
    println!(
        "spread: from the first to the third quartile of the runs; of the peer: our rate by its \
         rate\nof the same in the same run; of the better: of the faster of the two; > 100 % of the \
         roofline:\nwhat it takes stays in caches.\n"
    );
    for row in &device.kernels {
        if let Outcome::Failed { reason } = &row.outcome {
            println!("FAIL {} {}: {reason}", row.kernel, row.sizes);
        }
    }
}

fn kernel_table(report: &Report, device: &Device, rows: &[&Row]) -> Table {
    let mut table = Table::new(&[
        "kernel",
        "sizes",
        "variant",
        "time",
        "spread",
        "rate",
        "",
        "of the roofline",
        "of the peer",
        "of the better",
    ]);
    for row in rows {
        let share = |share: Option<f64>| share.map_or("–".into(), percent);
        let cells = match &row.outcome {
            Outcome::Timed(t) => [
                t.variant.clone().unwrap_or_default(),
                seconds(t.times.median),
                percent((t.times.quartiles[1] - t.times.quartiles[0]) / t.times.median),
                digits(t.rate),
                t.unit.clone(),
                t.share.map_or("–".into(), of_roofline),
                share(beside_row(report, device, row)),
                share(against_better(report, device, row).map(|(share, _)| share)),
            ],
            Outcome::Failed { .. } => without_time("FAIL"),
            Outcome::NotRun { .. } => without_time("not run"),
        };
        table.row([row.kernel.clone(), row.sizes.clone()].into_iter().chain(cells));
    }
    table
}

fn without_time(why: &str) -> [String; 8] {
    [why, "–", "–", "–", "", "–", "–", "–"].map(String::from)
}

fn pairs(report: &Report, device: &Device) {
    if device.pairs.is_empty() {
        return;
    }
    let peer = timed_pairs(report, device).map_or("no peer", |p| &p.peer);
    println!("beside {peer}, turn by turn, on {}", report.host.cpu);
    let mut table = Table::new(&[
        "workload",
        "time",
        "spread",
        "GFLOP/s",
        "of the roofline",
        "its time",
        "its spread",
        "times as fast",
        "at best",
    ]);
    let spread = |t: &Times| percent((t.quartiles[1] - t.quartiles[0]) / t.median);
    for pair in &device.pairs {
        let or_none = |cell: Option<String>| cell.unwrap_or_else(|| "–".into());
        table.row([
            pair_name(pair),
            seconds(pair.ours.median),
            spread(&pair.ours),
            digits(pair.rate),
            or_none(pair.share.map(of_roofline)),
            or_none(pair.theirs.map(|t| seconds(t.median))),
            or_none(pair.theirs.map(|t| spread(&t))),
            or_none(pair.ratio().map(digits)),
            or_none(pair.ratio_at_best().map(digits)),
        ]);
    }
    println!("{table}");
    println!(
        "lstm: batch × hidden × steps, forward and backward of a layer; products: M × N × K; at \
         best:\nthe ratio of the fastest runs, which a disturbed machine changes least.\n"
    );
}

fn step(device: &Device, t: &Training, profile: bool) {
    println!("{}: {} ({} parameters)", t.workload, t.sizes, t.parameters);
    let quartiles = t.step.quartiles.map(seconds);
    println!(
        "  {} a step with its loss read (median of {}, quartiles {} to {})",
        seconds(t.step.median),
        t.step.runs,
        quartiles[0],
        quartiles[1]
    );
    println!(
        "  {} a step, {} a second, with losses read once for several; {} between kernels",
        seconds(t.streamed.median),
        digits(1.0 / t.streamed.median),
        seconds(t.between)
    );
    println!(
        "  {} dispatches that bind {}; submits for 1 step {}, for 10 {}; GPU objects created \
         after the first run: {}",
        t.dispatches,
        bytes(t.bytes_bound),
        t.submits[0],
        t.submits[1],
        t.created_later
    );
    let [predicted, measured] = t.memory.map(bytes);
    let [first, last] = t.losses.map(|loss| digits(loss.into()));
    // A heap has what the plan's memory is not: the record of the graph, and what threads pack.
    let of = match device.adapter.backend.as_str() {
        "Tern" => "the process's heap at its peak",
        _ => "allocated on the device",
    };
    println!("  memory of the plan {predicted}, {of} {measured}; loss {first}, then {last}\n");
    if !profile {
        return;
    }
    let all: f64 = t.kernels.iter().map(|k| k.seconds).sum();
    let mut table = Table::new(&["kernel", "calls", "time", "share"]);
    for kernel in &t.kernels {
        table.row([
            kernel.kernel.clone(),
            kernel.calls.to_string(),
            seconds(kernel.seconds),
            percent(kernel.seconds / all),
        ]);
    }
    table.row(["all, each apart".into(), t.dispatches.to_string(), seconds(all), String::new()]);
    println!("{table}");
}

fn replicas(device: &Device) {
    if device.replicas.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        "model",
        "models",
        "side by side",
        "step of all",
        "models a second",
        "growth",
    ]);
    for row in &device.replicas {
        let cells = match (&row.step, row.growth) {
            (Some(step), Some(growth)) => [
                row.tile.to_string(),
                seconds(step.median),
                digits(row.replicas as f64 / step.median),
                format!("{} ×", digits(growth)),
            ],
            _ => ["–".into(), "not run".into(), row.reason.clone(), String::new()],
        };
        table.row([row.workload.clone(), row.replicas.to_string()].into_iter().chain(cells));
    }
    println!("{table}");
}

/// What the peers of a run did, beside ours.
fn peers(report: &Report) {
    let all = beside(report);
    if all.is_empty() {
        return;
    }
    let heading = ["workload", "device", "time", "peer", "its time", "times as fast"];
    let mut table = Table::new(&heading);
    for b in all {
        table.row([
            b.workload.clone(),
            b.device.title(),
            seconds(b.seconds[0]),
            b.peer.peer.clone(),
            seconds(b.seconds[1]),
            digits(b.times()),
        ]);
    }
    println!("{table}");
}
