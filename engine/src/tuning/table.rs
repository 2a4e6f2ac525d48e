//! The choices in force, and the file that keeps them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tern_shaders::AnyKernel;

use super::{Choice, Source, Tuning};
use crate::{AdapterSummary, cache};

/// Choices measured by Tern's developers: part of an adapter's name, kernel, class, variant.
pub(super) const SHIPPED: &str = include_str!("shipped.tsv");

/// Kernels whose variants are measured.
pub(super) const KERNELS: &[&str] = &[
    "matmul/nn",
    "matmul/nt",
    "matmul/tn",
    "half/nt",
    "half/bf16_nt",
    "lstm/step_forward",
    "lstm/step_backward",
];

/// Choices by kernel and class.
pub(crate) struct Table {
    mode: Tuning,
    choices: BTreeMap<(&'static str, String), Choice>,
    /// Where measured choices are kept.
    file: Option<PathBuf>,
    heading: String,
}

impl Table {
    /// The table of an adapter: what is shipped for it, and over that what the folder has.
    pub fn open(folder: Option<&Path>, mode: Tuning, adapter: &AdapterSummary) -> Self {
        let mut table =
            Table { mode, choices: BTreeMap::new(), file: None, heading: String::new() };
        if mode == Tuning::Off {
            return table;
        }
        table.heading = heading(adapter);
        table.file = folder.map(|f| f.join("tuning").join(cache::file_name(adapter, "tsv")));
        for (adapter_part, row) in rows(SHIPPED).filter_map(|line| line.split_once('\t')) {
            if adapter.name.contains(adapter_part) {
                table.choices.extend(parse(row, Source::Shipped));
            }
        }
        if let Some(text) = table.file.as_ref().and_then(|f| std::fs::read_to_string(f).ok()) {
            // Choices of other shaders say nothing about these.
            match text.strip_prefix(&table.heading) {
                Some(text) => {
                    table.choices.extend(rows(text).filter_map(|row| parse(row, Source::Cache)))
                }
                None => log::info!("measured choices of another version are left out"),
            }
        }
        if !table.choices.is_empty() {
            log::info!("{} measured choices of variants on {}", table.choices.len(), adapter.name);
        }
        table
    }

    pub fn mode(&self) -> Tuning {
        self.mode
    }

    /// The variant chosen for a class.
    pub fn get(&self, kernel: &'static str, class: &str) -> Option<&'static str> {
        // A table that was opened without choices costs no allocation.
        if self.choices.is_empty() {
            return None;
        }
        self.choices.get(&(kernel, class.to_string())).map(|choice| choice.variant)
    }

    pub fn all(&self) -> Vec<Choice> {
        self.choices.values().cloned().collect()
    }

    pub fn insert(&mut self, choice: Choice) {
        log::info!("{} {}: {} is the fastest", choice.kernel, choice.class, choice.variant);
        self.choices.insert((choice.kernel, choice.class.clone()), choice);
    }

    /// Writes what was measured to the user's cache folder. A cache that can't be written is
    /// no error: the choices hold for this process.
    pub fn save(&self) {
        let Some(file) = &self.file else { return };
        let mut text = self.heading.clone();
        for choice in self.choices.values().filter(|c| c.source != Source::Shipped) {
            text.push_str(&format!("{}\t{}\t{}\n", choice.kernel, choice.class, choice.variant));
        }
        if let Err(e) = cache::write(file, text.as_bytes()) {
            log::warn!("measured choices are not kept: {}: {e}", file.display());
        }
    }
}

pub(super) fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A row of kernel, class and variant, if there are such.
pub(super) fn parse(row: &str, source: Source) -> Option<((&'static str, String), Choice)> {
    let mut fields = row.split('\t');
    let (name, class, variant) = (fields.next()?, fields.next()?, fields.next()?);
    let kernel: &'static AnyKernel = tern_shaders::kernels().find(|k| k.name == name)?;
    let variant = kernel.variants.iter().find(|v| v.name == variant)?.name;
    let (kernel, class) = (kernel.name, class.to_string());
    let choice = Choice { kernel, class: class.clone(), variant, source, seconds: None };
    Some(((kernel, class), choice))
}

/// The first lines of a file: what its choices were measured with.
fn heading(adapter: &AdapterSummary) -> String {
    let shaders = fingerprint();
    format!(
        "# Tern's choices of variants, measured on this machine. May be deleted.\n\
         # {} | {} | {} | shaders {shaders:016x}\n",
        adapter.name, adapter.backend, adapter.driver
    )
}

/// Of the shaders that were measured.
fn fingerprint() -> u64 {
    let measured = tern_shaders::kernels().filter(|k| KERNELS.contains(&k.name));
    let variants = measured.flat_map(|k| k.variants.iter().map(move |v| (k.name, v)));
    let texts: Vec<String> =
        variants.map(|(kernel, v)| [kernel, v.name, &v.wgsl()].join("\n")).collect();
    cache::fingerprint(texts.iter().map(String::as_bytes))
}
