//! What the page and the Markdown table have in common: columns, rows and their texts.

use super::{Device, Outcome, Peer, Report, Timed};
use crate::table::{digits, seconds};

/// A device of one of the reports.
pub struct Column<'a> {
    /// The report.
    pub report: &'a Report,
    /// The device.
    pub device: &'a Device,
    /// Its heading: the device's name, with the commit where another column has the same.
    pub heading: String,
}

/// One column a device.
pub fn columns(reports: &[Report]) -> Vec<Column<'_>> {
    let all = || reports.iter().flat_map(|r| r.devices.iter().map(move |d| (r, d)));
    all()
        .map(|(report, device)| {
            let name = device.adapter.short();
            let twice = all().filter(|(_, d)| d.adapter.short() == name).count() > 1;
            let commit = report.commit.get(..7).unwrap_or(&report.commit);
            let heading = if twice { format!("{name} ({commit})") } else { name.to_string() };
            Column { report, device, heading }
        })
        .collect()
}

/// Keys in the order in which they first come.
pub fn keys<K: PartialEq>(all: impl Iterator<Item = K>) -> Vec<K> {
    let mut keys = Vec::new();
    for key in all {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Kernels and sizes of all columns.
pub fn kernel_rows<'a>(columns: &[Column<'a>]) -> Vec<(&'a str, &'a str)> {
    let rows = columns.iter().flat_map(|c| &c.device.kernels);
    keys(rows.map(|r| (r.kernel.as_str(), r.sizes.as_str())))
}

/// What a column has of a kernel's row.
pub fn outcome<'a>(column: &Column<'a>, (kernel, sizes): (&str, &str)) -> Option<&'a Outcome> {
    let mut rows = column.device.kernels.iter();
    rows.find(|r| r.kernel == kernel && r.sizes == sizes).map(|r| &r.outcome)
}

/// Work a second with the unit that gives it few digits.
pub fn rate(per_second: f64, unit: &str) -> String {
    match per_second {
        r if r >= 1e12 => format!("{} T{unit}", digits(r * 1e-12)),
        r if r >= 1e9 => format!("{} G{unit}", digits(r * 1e-9)),
        r => format!("{} M{unit}", digits(r * 1e-6)),
    }
}

/// A timed row's rate: `12.3 GFLOP/s`.
pub fn timed_rate(timed: &Timed) -> String {
    match timed.unit.strip_prefix('G') {
        Some(unit) => rate(1e9 * timed.rate, unit),
        None => format!("{} {}", digits(timed.rate), timed.unit),
    }
}

/// A share as a whole percentage.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// The figures of a roof with their names; what was not run says so.
pub fn roof(device: &Device) -> Vec<(&'static str, String)> {
    let Some(roof) = &device.roof else { return Vec::new() };
    let or_not = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "not run".into(), |value| rate(value, unit))
    };
    vec![
        ("copy", or_not(roof.bandwidth, "B/s")),
        ("f32 multiply-add", or_not(roof.single, "FLOP/s")),
        ("f16 multiply-add", or_not(roof.half, "FLOP/s")),
        ("dispatch", seconds(roof.dispatch)),
        ("submit and wait", seconds(roof.submit)),
        ("read-back of 4 bytes", seconds(roof.read_back)),
    ]
}

/// A peer's time of a workload beside ours, by how many times as fast we are.
pub struct Beside<'a> {
    /// Name of the workload.
    pub workload: &'a str,
    /// The peer.
    pub peer: &'a Peer,
    /// Our device.
    pub device: &'a Device,
    /// Our seconds and the peer's.
    pub seconds: [f64; 2],
}

impl Beside<'_> {
    /// How many times as fast as the peer we are.
    pub fn times(&self) -> f64 {
        self.seconds[1] / self.seconds[0]
    }
}

/// Our seconds of what a peer calls by this name.
fn own(device: &Device, name: &str) -> Option<f64> {
    if let Some(training) = device.training.iter().find(|t| t.workload == name) {
        return Some(training.step.median);
    }
    let (kernel, n) = match name.split_once('-')? {
        ("matmul", n) => ("matmul/nn", n),
        ("half", n) => ("half/nt", n),
        _ => return None,
    };
    let sizes = format!("{n} × {n} × {n}");
    let row = device.kernels.iter().find(|r| r.kernel == kernel && r.sizes == sizes)?;
    match &row.outcome {
        Outcome::Timed(timed) => Some(timed.alone),
        _ => None,
    }
}

/// Every workload of a report that a peer of the same run did, too.
pub fn beside(report: &Report) -> Vec<Beside<'_>> {
    let mut all = Vec::new();
    for peer in &report.peers {
        for device in report.devices.iter().filter(|d| peer.kinds.contains(&d.adapter.kind)) {
            for (workload, theirs) in &peer.seconds {
                if let Some(ours) = own(device, workload) {
                    all.push(Beside { workload, peer, device, seconds: [ours, *theirs] });
                }
            }
        }
    }
    all
}
