//! What the page and the Markdown table have in common: columns, rows and their texts.

use crate::report::{Device, Host, Outcome, Pair, Peer, Report, Row, Timed};
use crate::table::{digits, seconds};

/// A device of one of the reports.
pub struct Column<'a> {
    /// The report.
    pub report: &'a Report,
    /// The device.
    pub device: &'a Device,
    /// Its heading: the device's title, with the commit where another column has the same.
    pub heading: String,
}

/// One column a device.
pub fn columns(reports: &[Report]) -> Vec<Column<'_>> {
    let all = || reports.iter().flat_map(|r| r.devices.iter().map(move |d| (r, d)));
    all()
        .map(|(report, device)| {
            let title = device.title();
            let twice = all().filter(|(_, d)| d.title() == title).count() > 1;
            let commit = report.commit.get(..7).unwrap_or(&report.commit);
            let heading = if twice { format!("{title} ({commit})") } else { title };
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

/// Share of the roofline below which a row of the CPU is listed first: a loop that the compiler
/// turned into scalar code shows there.
pub const LOW: f64 = 0.3;

/// The title of that list.
pub const LOW_TITLE: &str = "below 30 % of the roofline";

/// A row's share of the roofline, if it is below [`LOW`] on the CPU.
pub fn low(device: &Device, row: &Row) -> Option<f64> {
    match &row.outcome {
        Outcome::Timed(timed) if device.adapter.kind == "cpu" => timed.share.filter(|s| *s < LOW),
        _ => None,
    }
}

/// The rows that are [`low`] in a column, the lowest first, and the others in their order.
pub fn low_first<'a>(columns: &[Column<'a>]) -> [Vec<(&'a str, &'a str)>; 2] {
    let share = |key: &(&str, &str)| {
        let rows = columns.iter().flat_map(|c| c.device.kernels.iter().map(|r| (c.device, r)));
        rows.filter(|(_, r)| (r.kernel.as_str(), r.sizes.as_str()) == *key)
            .filter_map(|(device, r)| low(device, r))
            .min_by(f64::total_cmp)
    };
    let (mut below, others): (Vec<_>, Vec<_>) =
        kernel_rows(columns).into_iter().partition(|key| share(key).is_some());
    below.sort_by(|a, b| share(a).unwrap_or(LOW).total_cmp(&share(b).unwrap_or(LOW)));
    [below, others]
}

/// Our rate by the better of what a row is held against in the same run: the roofline, and a peer's
/// rate of the same; with the name of the better one.
pub fn against_better(report: &Report, device: &Device, row: &Row) -> Option<(f64, &'static str)> {
    let Outcome::Timed(timed) = &row.outcome else { return None };
    let roofline = timed.share.map(|share| (share, "roofline"));
    let peer = beside_row(report, device, row).map(|share| (share, "peer"));
    // The better a reference is, the smaller is our share of it.
    roofline.into_iter().chain(peer).min_by(|a, b| a.0.total_cmp(&b.0))
}

/// How many times as fast as the fastest peer we are at a row.
pub fn beside_row(report: &Report, device: &Device, row: &Row) -> Option<f64> {
    let Outcome::Timed(timed) = &row.outcome else { return None };
    let like = report.peers.iter().filter(|p| p.kinds.contains(&device.adapter.kind));
    let named = like.flat_map(|p| &p.seconds).filter(|(name, _)| is_row(name, row));
    named.map(|(_, theirs)| theirs / timed.alone).min_by(f64::total_cmp)
}

/// Whether a peer means this row by the name of a workload.
fn is_row(workload: &str, row: &Row) -> bool {
    if workload.split_once(' ') == Some((&row.kernel, &row.sizes)) {
        return true;
    }
    // As peers call products of squares that have no other sizes.
    let kernel = match workload.split_once('-') {
        Some(("matmul", n)) => ("matmul/nn", n),
        Some(("half", n)) => ("half/nt", n),
        _ => return false,
    };
    row.kernel == kernel.0 && row.sizes == format!("{0} × {0} × {0}", kernel.1)
}

/// The machine in words.
pub fn machine(host: &Host) -> String {
    format!("{}, {} cores, {} {}", host.cpu, host.cores, host.os, host.arch)
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

/// A rate as a share of the roofline's. What stays in caches is faster than the memory that the
/// roofline was measured in; how much faster says nothing of the kernel.
pub fn of_roofline(share: f64) -> String {
    if share > 1.0 { "> 100 %".into() } else { percent(share) }
}

/// The figures of a roofline with their names; what was not run says so.
pub fn roofline(device: &Device) -> Vec<(&'static str, String)> {
    let Some(roofline) = &device.roofline else { return Vec::new() };
    let or_not = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "not run".into(), |value| rate(value, unit))
    };
    vec![
        ("copy", or_not(roofline.bandwidth, "B/s")),
        ("f32 multiply-add", or_not(roofline.single, "FLOP/s")),
        ("f16 multiply-add", or_not(roofline.half, "FLOP/s")),
        ("dispatch", seconds(roofline.dispatch)),
        ("submit and wait", seconds(roofline.submit)),
        ("read-back of 4 bytes", seconds(roofline.read_back)),
    ]
}

/// A peer's time of a workload beside ours, by how many times as fast we are.
pub struct Beside<'a> {
    /// Name of the workload.
    pub workload: String,
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
    let row = device.kernels.iter().find(|row| is_row(name, row))?;
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
                    let (workload, seconds) = (workload.clone(), [ours, *theirs]);
                    all.push(Beside { workload, peer, device, seconds });
                }
            }
        }
    }
    all
}

/// The pairs that have a peer's time.
pub fn paired(report: &Report) -> Vec<Beside<'_>> {
    let mut all = Vec::new();
    for device in &report.devices {
        let Some(peer) = timed_pairs(report, device) else { continue };
        for pair in &device.pairs {
            if let Some(theirs) = pair.theirs {
                let (workload, seconds) = (pair_name(pair), [pair.ours.median, theirs.median]);
                all.push(Beside { workload, peer, device, seconds });
            }
        }
    }
    all
}

/// The peer that timed a device's pairs.
pub fn timed_pairs<'a>(report: &'a Report, device: &Device) -> Option<&'a Peer> {
    let like = |p: &&Peer| p.kinds.contains(&device.adapter.kind);
    // The first is PyTorch where it was asked.
    report.peers.iter().find(like)
}

/// What a pair is called.
pub fn pair_name(pair: &Pair) -> String {
    format!("{} {}", pair.what, pair.sizes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn the_better_of_two_references_is_the_faster() {
        let mut report = sample(1e-3);
        let (device, row) = (report.devices[0].clone(), report.devices[0].kernels[0].clone());
        assert_eq!(against_better(&report, &device, &row), Some((0.5, "roofline")));
        // A peer that takes a quarter of our time.
        report.peers[0].seconds.insert("matmul/nn 8 × 8".into(), 0.25e-3);
        assert_eq!(against_better(&report, &device, &row), Some((0.25, "peer")));
        assert_eq!(beside(&report).len(), 2);
        assert_eq!(paired(&report)[0].times(), 1.5);
    }

    #[test]
    fn peers_name_rows_by_kernel_and_sizes_or_as_squares() {
        let mut row = sample(1.0).devices[0].kernels[0].clone();
        row.sizes = "512 × 512 × 512".into();
        assert!(is_row("matmul/nn 512 × 512 × 512", &row) && is_row("matmul-512", &row));
        for other in ["matmul/nt 512 × 512 × 512", "matmul-51", "half-512", "matmul/nn"] {
            assert!(!is_row(other, &row), "{other}");
        }
    }

    #[test]
    fn columns_of_one_device_are_told_apart_by_threads_and_vectors() {
        let with = |threads| {
            let mut report = sample(1.0);
            report.devices[0].vectors =
                Some(crate::report::Vectors { isa: "avx2".into(), threads });
            report
        };
        let reports = [with(1), with(2)];
        let headings: Vec<String> = columns(&reports).into_iter().map(|c| c.heading).collect();
        assert_eq!(headings, ["Test GPU, 1 thread, avx2", "Test GPU, 2 threads, avx2"]);
    }
}
