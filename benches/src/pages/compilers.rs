//! What vendors' compilers make of the kernels, from the tables of `tern-compilers`: devices that
//! nothing was timed on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::html::{Headed, NONE, Table, escape, figures};
use super::view::keys;

/// A device's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The device.
    pub name: String,
    /// Driver, version and limits.
    pub driver: String,
    /// A variant each.
    pub rows: Vec<Row>,
}

/// What a compiler made of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    kernel: String,
    variant: String,
    /// Whether hardware takes it only where it is named.
    software: bool,
    registers: Option<u64>,
    spills: Option<u64>,
    waves: Option<u64>,
}

impl Headed for Compiled {
    /// The name within the vendor's.
    fn heading(&self) -> &str {
        let inner = self.name.strip_prefix("Null hardware (").and_then(|n| n.strip_suffix(')'));
        inner.unwrap_or(&self.name)
    }
}

/// The tables at these paths; of a folder all that are in it.
///
/// # Errors
/// If a file can't be read or has no such table.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Compiled>> {
    let mut files = Vec::new();
    for path in paths {
        let named = || format!("reading {}", path.display());
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).with_context(named)? {
            let file = entry.with_context(named)?.path();
            // The overview has a table of another kind.
            if file.extension().is_some_and(|e| e == "md") && !file.ends_with("README.md") {
                found.push(file);
            }
        }
        found.sort();
        files.extend(found);
    }
    files.iter().map(|file| table(file)).collect()
}

fn table(file: &Path) -> Result<Compiled> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
    parse(&text).with_context(|| format!("{shown} is no table of tern-compilers"))
}

fn cells(line: &str) -> Option<Vec<&str>> {
    Some(line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect())
}

fn parse(text: &str) -> Result<Compiled> {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let name = lines.next().and_then(|line| line.strip_prefix("# "));
    let name = name.context("the first line is the device's name")?.to_string();
    let driver = lines.next().context("the second line is the driver's")?.to_string();
    let titles = lines.next().and_then(cells).context("there is a table")?;
    let place = |title: &str| {
        let at = titles.iter().position(|t| *t == title);
        at.with_context(|| format!("the table has a column {title:?}"))
    };
    let [kernel, variant, kind] = [place("kernel")?, place("variant")?, place("for")?];
    let numbers = [place("registers")?, place("spills")?, place("waves")?];
    let mut rows = Vec::new();
    for line in lines.skip(1) {
        let cells = cells(line).filter(|cells| cells.len() == titles.len());
        let cells = cells.with_context(|| format!("a row of {} cells: {line:?}", titles.len()))?;
        let number = |at: usize| -> Result<Option<u64>> {
            match cells[at] {
                "–" => Ok(None),
                text => Ok(Some(text.parse().with_context(|| format!("a number: {text:?}"))?)),
            }
        };
        rows.push(Row {
            kernel: cells[kernel].into(),
            variant: cells[variant].into(),
            software: cells[kind] == "software",
            registers: number(numbers[0])?,
            spills: number(numbers[1])?,
            waves: number(numbers[2])?,
        });
    }
    if rows.is_empty() {
        bail!("the table has no row");
    }
    Ok(Compiled { name, driver, rows })
}

/// The part of the page; empty without tables.
pub fn section(all: &[Compiled]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let rows = || all.iter().flat_map(|device| &device.rows);
    let mut table = Table::new("variant", all);
    let mut family = "";
    for (kernel, variant, software) in
        keys(rows().map(|r| (r.kernel.as_str(), r.variant.as_str(), r.software)))
    {
        let own = kernel.split('/').next().unwrap_or(kernel);
        if own != family {
            family = own;
            table.family(family);
        }
        let small = if software { "for software devices" } else { "" };
        table.row([&format!("{kernel} {variant}"), small], false, |device| {
            let mut own = device.rows.iter();
            own.find(|r| r.kernel == kernel && r.variant == variant).map_or(NONE.into(), cell)
        });
    }
    let drivers: String = all
        .iter()
        .map(|c| format!("<li>{}: {}</li>", escape(c.heading()), escape(&c.driver)))
        .collect();
    format!(
        "<p>Registers of an invocation and subgroups in flight, by each vendor’s own compiler, without the \
         hardware: nothing here was timed. What doesn’t fit into registers is spilled to memory. A \
         dash: the device lacks what the variant needs.</p><details><summary>Drivers</summary>\
         <ul>{drivers}</ul></details><div class=\"wide\">{}</div>",
        table.end()
    )
}

fn cell(row: &Row) -> String {
    let registers = row.registers.map_or("compiled".into(), |n| n.to_string());
    let waves = row.waves.map_or(String::new(), |n| format!("{n} in flight"));
    let spills = row
        .spills
        .filter(|n| *n > 0)
        .map_or(String::new(), |n| format!("<span class=\"fail\">{n} spilled</span>"));
    figures(&registers, &waves) + &spills
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Null hardware (RADV <TEST>)\n\nradv Mesa 1.2; 64 KiB\n\n\
        | kernel | variant | for | subgroup | registers | spills | scratch | workgroup memory | waves |\n\
        | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n\
        | matmul/nn | tiled | hardware | 64 | 96 | 0 | 0 | 5120 | 14 |\n\
        | matmul/nn | large | software | 64 | 256 | 12 | 48 | 0 | – |\n";

    #[test]
    fn a_device_without_times_has_its_column() {
        let compiled = parse(TABLE).unwrap();
        assert_eq!(compiled.heading(), "RADV <TEST>");
        let page = section(&[compiled.clone(), Compiled { rows: Vec::new(), ..compiled }]);
        assert_eq!(page.matches("<th>RADV &lt;TEST&gt;</th>").count(), 2, "{page}");
        assert!(page.contains("<b>96</b><small>14 in flight</small>"), "{page}");
        assert!(page.contains("12 spilled") && !page.contains("0 spilled"), "{page}");
        assert!(page.contains("for software devices"), "{page}");
        assert_eq!(page.matches(NONE).count(), 2, "one of the devices has no row: {page}");
        assert_eq!(section(&[]), "");
    }

    #[test]
    fn what_is_no_table_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "the device's name"),
            ("# A\n", "the driver's"),
            ("# A\nB\n", "there is a table"),
            ("# A\nB\n| kernel | variant |\n", "a column \"for\""),
            (&TABLE[..TABLE.len() / 2], "the table has no row"),
            (&TABLE.replace("| 96 |", "| many |"), "a number: \"many\""),
            (&TABLE.replace("| 96 |", "|"), "a row of 9 cells"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_tables_that_are_kept_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/compilers");
        let all = read(&[folder]).unwrap();
        assert!(all.len() > 10);
        for device in &all {
            // Of a device with the least of features, too.
            assert!(device.rows.len() > 100, "{}", device.name);
            let hardware = device.rows.iter().filter(|row| !row.software);
            assert!(hardware.count() > 50, "{}", device.name);
        }
    }
}
