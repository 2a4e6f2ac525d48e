//! Reports as one page that needs nothing else: no script, no font, no picture.

use std::fmt::Write;

use super::compilers;
use super::view::{
    Column, LOW_TITLE, beside, columns, keys, low_first, machine, of_roofline, outcome, paired,
    percent, roofline, timed_rate,
};
use crate::report::{KernelTime, Outcome, Report, Training};
use crate::table::{bytes, digits, seconds};

const STYLE: &str = include_str!("style.css");

/// Text with what HTML would read as its own replaced.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A bar whose filled parts have these shares and colors.
fn bar(parts: &[(f64, &str)]) -> String {
    let part = |(share, color): &(f64, &str)| {
        let width = (100.0 * share).clamp(0.0, 100.0);
        format!("<i style=\"width:{width:.1}%;background:var(--{color})\"></i>")
    };
    format!("<div class=\"bar\">{}</div>", parts.iter().map(part).collect::<String>())
}

/// What has a column of its own.
pub(super) trait Headed {
    fn heading(&self) -> &str;
}

impl Headed for Column<'_> {
    fn heading(&self) -> &str {
        &self.heading
    }
}

/// A table with a column a device; a cell gets its device's name where the page is narrow.
pub(super) struct Table<'a, C> {
    columns: &'a [C],
    html: String,
}

impl<'a, C: Headed> Table<'a, C> {
    pub(super) fn new(first: &str, columns: &'a [C]) -> Self {
        let heading = |c: &C| format!("<th>{}</th>", escape(c.heading()));
        let headings: String = columns.iter().map(heading).collect();
        let html = format!("<table><thead><tr><th>{first}</th>{headings}</tr></thead><tbody>");
        Table { columns, html }
    }

    pub(super) fn family(&mut self, name: &str) {
        let span = self.columns.len() + 1;
        // Writing to a string can't fail, here and below.
        let _ = write!(
            self.html,
            "<tr class=\"family\"><th colspan=\"{span}\">{}</th></tr>",
            escape(name)
        );
    }

    pub(super) fn row(
        &mut self,
        [name, small]: [&str; 2],
        failed: bool,
        cell: impl Fn(&C) -> String,
    ) {
        let class = if failed { " class=\"failed\"" } else { "" };
        let (name, small) = (escape(name), escape(small));
        let _ = write!(self.html, "<tr{class}><th>{name}<small>{small}</small></th>");
        for column in self.columns {
            let (label, content) = (escape(column.heading()), cell(column));
            let _ = write!(self.html, "<td><span class=\"label\">{label}</span>{content}</td>");
        }
        self.html.push_str("</tr>");
    }

    pub(super) fn end(self) -> String {
        self.html + "</tbody></table>"
    }
}

pub(super) fn figures(left: &str, right: &str) -> String {
    format!("<div class=\"figures\"><b>{left}</b><small>{right}</small></div>")
}

pub(super) const NONE: &str = "<span class=\"none\">–</span>";

fn not_run(reason: &str) -> String {
    format!("<span class=\"none\">not run</span> <small>{}</small>", escape(reason))
}

/// All reports as one page, with what compilers say of devices that aren't at hand.
pub fn html(reports: &[Report], compiled: &[compilers::Compiled]) -> String {
    let columns = columns(reports);
    let sections = [
        ("devices", "Devices", devices(&columns)),
        ("kernels", "Kernels", kernels(&columns)),
        ("training", "Training steps", training(&columns)),
        ("replicas", "Models side by side", replicas(&columns)),
        ("peers", "Beside other frameworks", peers(reports)),
        ("paths", "Fast paths and checks", paths(&columns)),
        ("compilers", "What compilers make of the kernels", compilers::section(compiled)),
    ];
    let present = || sections.iter().filter(|(_, _, body)| !body.is_empty());
    let links: String =
        present().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>")).collect();
    let bodies: String = present()
        .map(|(id, title, body)| format!("<section id=\"{id}\"><h2>{title}</h2>{body}</section>"))
        .collect();
    let tools = keys(reports.iter().map(|r| r.tool.as_str())).join(", ");
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Tern's benchmarks</title><style>{STYLE}</style></head><body><main>\
         <h1>Tern’s benchmarks</h1><p>Every kernel is checked against its 64-bit reference before it \
         is timed; a bar is the share of what the device was measured to do at most.</p>\
         <nav>{links}</nav>{bodies}<footer>{}</footer></main></body></html>\n",
        escape(&tools)
    )
}

fn devices(columns: &[Column<'_>]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let card = |c: &Column<'_>| {
        let (adapter, host) = (&c.device.adapter, &c.report.host);
        let figures: String = roofline(c.device)
            .iter()
            .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value)))
            .collect();
        let mut tags: Vec<String> = adapter.features.clone();
        if adapter.subgroups[1] > 0 {
            let [least, most] = adapter.subgroups;
            tags.push(match least == most {
                true => format!("subgroups of {least}"),
                false => format!("subgroups of {least} to {most}"),
            });
        }
        if let Some(limit) = adapter.max_binding {
            tags.push(format!("bindings to {}", bytes(limit)));
        }
        if adapter.workgroup_memory > 0 {
            let memory = bytes(adapter.workgroup_memory.into());
            tags.push(format!("workgroup memory {memory}"));
        }
        let tags: String =
            tags.iter().map(|t| format!("<span class=\"tag\">{}</span>", escape(t))).collect();
        let quick = if c.report.quick { ", quick run" } else { "" };
        let what = [
            format!("{}, {}, {}", adapter.kind, adapter.backend, adapter.driver),
            machine(host),
            format!("{}, commit {}{quick}", date(c.report.time), c.report.commit),
        ]
        .map(|line| escape(&line))
        .join("<br>");
        format!(
            "<div class=\"card\"><h3>{}</h3><div class=\"what\">{what}</div><dl>{figures}</dl>\
             {tags}</div>",
            escape(&c.heading)
        )
    };
    format!("<div class=\"cards\">{}</div>", columns.iter().map(card).collect::<String>())
}

/// A day in UTC of seconds since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn date(time: u64) -> String {
    let days = time / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let in_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let in_month = in_year - (153 * month + 2) / 5 + 1;
    let calendar = if month < 10 { month + 3 } else { month - 9 };
    format!("{}-{calendar:02}-{in_month:02}", year + era * 400 + u64::from(calendar <= 2))
}

fn kernels(columns: &[Column<'_>]) -> String {
    let [below, others] = low_first(columns);
    if below.len() + others.len() == 0 {
        return String::new();
    }
    let mut table = Table::new("kernel", columns);
    let mut family = "";
    let low = format!("on the CPU {LOW_TITLE}");
    let below = below.into_iter().map(|row| (low.as_str(), row));
    let others = others.into_iter().map(|row| (row.0.split('/').next().unwrap_or(row.0), row));
    for (own, (kernel, sizes)) in below.chain(others) {
        if own != family {
            family = own;
            table.family(family);
        }
        let failed = columns
            .iter()
            .any(|c| matches!(outcome(c, (kernel, sizes)), Some(Outcome::Failed { .. })));
        table.row([kernel, sizes], failed, |c| match outcome(c, (kernel, sizes)) {
            Some(Outcome::Timed(t)) => {
                let share = t
                    .share
                    .map_or(String::new(), |s| format!("{} of the roofline · ", of_roofline(s)));
                let right = format!("{share}{}", seconds(t.times.median));
                let bars = t.share.map_or(String::new(), |s| bar(&[(s, "bar")]));
                figures(&escape(&timed_rate(t)), &right) + &bars
            }
            Some(Outcome::Failed { reason }) => {
                format!("<span class=\"fail\">FAIL</span> <small>{}</small>", escape(reason))
            }
            Some(Outcome::NotRun { reason }) => not_run(reason),
            None => NONE.into(),
        });
    }
    "<p>Work a second, its share of the roofline, and the median time of a call. Rows in which a \
     device computed something wrong are struck out.</p>"
        .to_string()
        + &table.end()
}

const COLORS: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];

/// Families by the time they take in all training steps, and their colors; the last color is
/// everybody else's.
fn families<'a>(steps: impl Iterator<Item = &'a Training>) -> Vec<(String, &'static str)> {
    let mut totals: Vec<(String, f64)> = Vec::new();
    for step in steps {
        let all: f64 = step.kernels.iter().map(|k| k.seconds).sum();
        for kernel in &step.kernels {
            let family = kernel.kernel.split('/').next().unwrap_or_default();
            let share = kernel.seconds / all;
            match totals.iter_mut().find(|(name, _)| name == family) {
                Some((_, total)) => *total += share,
                None => totals.push((family.to_string(), share)),
            }
        }
    }
    totals.sort_by(|a, b| b.1.total_cmp(&a.1));
    totals.into_iter().map(|(name, _)| name).zip(COLORS).take(COLORS.len() - 1).collect()
}

fn training(columns: &[Column<'_>]) -> String {
    let all = || columns.iter().flat_map(|c| &c.device.training);
    let families = families(all());
    if families.is_empty() {
        return String::new();
    }
    let swatch = |name: &str, color: &str| {
        format!("<span><i style=\"background:var(--{color})\"></i>{}</span>", escape(name))
    };
    let key: String = families.iter().map(|(name, color)| swatch(name, color)).collect();
    let key = key + &swatch("other kernels", COLORS[5]) + &swatch("between kernels", "gap");
    let mut table = Table::new("model", columns);
    for name in keys(all().map(|t| &t.workload)) {
        let sizes = all().find(|t| &t.workload == name).map(|t| t.sizes.clone());
        table.row([name, &sizes.unwrap_or_default()], false, |c| {
            let Some(t) = c.device.training.iter().find(|t| &t.workload == name) else {
                return NONE.into();
            };
            let left = format!("{} /s", digits(1.0 / t.streamed.median));
            let right = format!("{} a step, loss read each time", seconds(t.step.median));
            let counts = format!(
                "<small>{} dispatches and {} submits a step, {}</small>",
                t.dispatches,
                t.submits[0],
                bytes(t.memory[1])
            );
            figures(&left, &right) + &step_bar(t, &families) + &counts + &kernel_list(t)
        });
    }
    format!(
        "<p>Steps a second where losses are read once for several steps. The bar says which \
         family of kernels a step spends its time in, and what lies between them.</p>\
         <div class=\"key\">{key}</div>{}",
        table.end()
    )
}

fn step_bar(t: &Training, families: &[(String, &'static str)]) -> String {
    let all: f64 = t.kernels.iter().map(|k| k.seconds).sum();
    let gap = (t.between / t.streamed.median).clamp(0.0, 1.0);
    let share = |own: &dyn Fn(&str) -> bool| {
        let family = |kernel: &str| kernel.split('/').next().unwrap_or_default().to_string();
        let seconds: f64 =
            t.kernels.iter().filter(|k| own(&family(&k.kernel))).map(|k| k.seconds).sum();
        (1.0 - gap) * seconds / all
    };
    let mut parts: Vec<(f64, &str)> =
        families.iter().map(|(name, color)| (share(&|f| f == name), *color)).collect();
    parts.push((share(&|f| families.iter().all(|(name, _)| f != name)), COLORS[5]));
    parts.push((gap, "gap"));
    bar(&parts)
}

fn kernel_list(t: &Training) -> String {
    let mut kernels: Vec<_> = t.kernels.iter().collect();
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let all: f64 = kernels.iter().map(|k| k.seconds).sum();
    let item = |k: &&KernelTime| {
        let share = percent(k.seconds / all);
        let (name, time) = (escape(&k.kernel), seconds(k.seconds));
        format!("<li>{name} × {}: {time}, {share}</li>", k.calls)
    };
    let items: String = kernels.iter().map(item).collect();
    format!("<details><summary><small>by kernel</small></summary><ul>{items}</ul></details>")
}

fn replicas(columns: &[Column<'_>]) -> String {
    let all = || columns.iter().flat_map(|c| &c.device.replicas);
    let rows = keys(all().map(|r| (&r.workload, r.replicas)));
    if rows.is_empty() {
        return String::new();
    }
    let most = all().filter_map(|r| r.growth).fold(1.0, f64::max);
    let mut table = Table::new("models", columns);
    for (name, count) in rows {
        table.row([&format!("{count} × {name}"), ""], false, |c| {
            let mut own = c.device.replicas.iter();
            let Some(r) = own.find(|r| &r.workload == name && r.replicas == count) else {
                return NONE.into();
            };
            let (Some(step), Some(growth)) = (&r.step, r.growth) else { return not_run(&r.reason) };
            let left = format!("{} /s", digits(r.replicas as f64 / step.median));
            let right = format!("{} × one model", digits(growth));
            figures(&left, &right) + &bar(&[(growth / most, "bar")])
        });
    }
    "<p>Steps a second, those of all models together, and how many times the rate of one model \
     alone.</p>"
        .to_string()
        + &table.end()
}

fn peers(reports: &[Report]) -> String {
    let both = |report| beside(report).into_iter().chain(paired(report));
    let all: Vec<_> = reports.iter().flat_map(both).collect();
    if all.is_empty() {
        return String::new();
    }
    let most = all.iter().map(|b| b.times()).fold(1.0, f64::max);
    let row = |b: &super::view::Beside<'_>| {
        let class = if b.times() >= 1.0 { "faster" } else { "slower" };
        format!(
            "<tr><th>{}<small>{}</small></th><td>{}</td><td>{}<br><small>{}</small></td>\
             <td><span class=\"{class}\">{} ×</span>{}</td></tr>",
            escape(&b.workload),
            escape(&b.device.title()),
            seconds(b.seconds[0]),
            seconds(b.seconds[1]),
            escape(&b.peer.peer),
            digits(b.times()),
            bar(&[(b.times() / most, if b.times() >= 1.0 { "good" } else { "bad" })])
        )
    };
    format!(
        "<p>The same sizes on the same machine in the same run; the loss is read in every \
         step.</p><table><thead><tr><th></th><th>Tern</th><th>peer</th><th>times as fast</th>\
         </tr></thead><tbody>{}</tbody></table>",
        all.iter().map(row).collect::<String>()
    )
}

fn paths(columns: &[Column<'_>]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let features = keys(columns.iter().flat_map(|c| &c.device.self_tests).map(|t| &t.features));
    let mut table = Table::new("what it needs", columns);
    for needed in &features {
        table.row([needed, "self-tests"], false, |c| {
            let own: Vec<_> =
                c.device.self_tests.iter().filter(|t| &t.features == *needed).collect();
            let count = |what: &str| own.iter().filter(|t| t.outcome == what).count();
            let mut text = match (count("passed"), count("not run")) {
                (0, 0) => String::new(),
                (0, _) => not_run(own.first().map_or("", |t| &t.reason)),
                (passed, _) => format!("{passed} of {} variants right", own.len()),
            };
            for test in own.iter().filter(|t| t.outcome == "failed") {
                let (name, reason) = (escape(&test.kernel), escape(&test.reason));
                let _ = write!(
                    text,
                    "<div><span class=\"fail\">FAIL</span> {name} <small>{reason}</small></div>"
                );
            }
            text
        });
    }
    table.row(["kernels", "all cases against the reference"], false, |c| {
        let checks = &c.device.checks;
        if checks.is_empty() {
            return NONE.into();
        }
        let cases: usize = checks.iter().map(|k| k.cases).sum();
        let faults: Vec<_> =
            checks.iter().flat_map(|k| k.faults.iter().map(move |f| (k, f))).collect();
        let mut text = format!("{} kernels, {cases} cases", checks.len());
        for (kernel, fault) in &faults {
            let (name, fault) = (escape(&kernel.kernel), escape(fault));
            let _ = write!(
                text,
                "<div><span class=\"fail\">FAIL</span> {name} <small>{fault}</small></div>"
            );
        }
        if faults.is_empty() {
            text.push_str(", all right");
        }
        text
    });
    "<p>Variants that need a feature of the hardware are used only after they computed small \
     cases right on the device at hand.</p>"
        .to_string()
        + &table.end()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn the_page_needs_nothing_and_shows_every_row() {
        let page = html(&[sample(1e-3), sample(2e-3)], &[]);
        for outside in ["http://", "https://", "<script", "<link", "<img", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("A &lt; B") && !page.contains("A < B"), "names are escaped");
        assert!(page.contains("<tr class=\"failed\"><th>matmul/nt"));
        assert!(page.contains("Test GPU (0123456)"), "columns of the same device are told apart");
        assert!(page.contains("2023-11-14"), "1,700,000,000 seconds are a day in November 2023");
        for tag in ["table", "tr", "td", "th", "div", "section"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn rows_of_a_cpu_that_are_low_come_first() {
        let mut report = sample(1e-3);
        let device = &mut report.devices[0];
        device.adapter.kind = "cpu".into();
        let timed = device.kernels.iter_mut().filter_map(|row| match &mut row.outcome {
            Outcome::Timed(timed) => Some(timed),
            _ => None,
        });
        timed.last().expect("a row is timed").share = Some(0.1);
        let page = html(&[report], &[]);
        let low = page.find(&format!("on the CPU {LOW_TITLE}")).expect("has its heading");
        assert!(low < page.find("matmul/nt").expect("has other rows"));
    }

    #[test]
    fn shares_of_a_step_fill_the_bar() {
        let report = sample(1e-3);
        let step = &report.devices[0].training[0];
        let families = families([step].into_iter());
        let widths: f64 = step_bar(step, &families)
            .split("width:")
            .skip(1)
            .filter_map(|part| part.split('%').next()?.parse::<f64>().ok())
            .sum();
        assert!((widths - 100.0).abs() < 0.2, "{widths}");
    }
}
