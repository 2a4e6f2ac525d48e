//! The choices in force, and the file that keeps them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tern_shaders::AnyKernel;

use super::{Choice, Source, Tuning};
use crate::AdapterSummary;

/// Choices measured by Tern's developers: part of an adapter's name, kernel, class, variant.
pub(super) const SHIPPED: &str = include_str!("shipped.tsv");

/// Kernels whose variants are measured.
pub(super) const KERNELS: &[&str] =
    &["matmul/nn", "matmul/nt", "matmul/tn", "half/nt", "lstm/step_forward", "lstm/step_backward"];

/// Choices by kernel and class.
pub(crate) struct Table {
    mode: Tuning,
    choices: BTreeMap<(&'static str, String), Choice>,
    /// Where measured choices are kept.
    file: Option<PathBuf>,
    heading: String,
}

impl Table {
    /// The table of an adapter: what is shipped for it, and over that the user's.
    pub fn open(mode: Tuning, adapter: &AdapterSummary) -> Self {
        Self::open_in(cache_folder().as_deref(), mode, adapter)
    }

    pub(super) fn open_in(folder: Option<&Path>, mode: Tuning, adapter: &AdapterSummary) -> Self {
        let mut table =
            Table { mode, choices: BTreeMap::new(), file: None, heading: String::new() };
        if mode == Tuning::Off {
            return table;
        }
        table.heading = heading(adapter);
        table.file = folder.map(|f| f.join("tuning").join(file_name(adapter)));
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
        if let Err(e) = write(file, &text) {
            log::warn!("measured choices are not kept: {}: {e}", file.display());
        }
    }
}

/// Whole, or not at all: another process may be reading.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, file)
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

fn file_name(adapter: &AdapterSummary) -> String {
    let text = format!("{} {} {}", adapter.name, adapter.backend, adapter.driver).to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    text.chars().map(plain).take(120).collect::<String>() + ".tsv"
}

/// FNV-1a (Fowler, Noll, Vo) over the shaders that were measured.
fn fingerprint() -> u64 {
    let measured = tern_shaders::kernels().filter(|k| KERNELS.contains(&k.name));
    let variants = measured.flat_map(|k| k.variants.iter().map(move |v| (k.name, v)));
    variants.fold(0xcbf2_9ce4_8422_2325, |hash, (kernel, variant)| {
        let text = [kernel, variant.name, &variant.wgsl()].join("\n");
        text.bytes().fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    })
}

/// `TERN_CACHE`, or the platform's folder for caches, with `tern` in it.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("TERN_CACHE") {
        return Some(folder);
    }
    let folder = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library").join("Caches"))
    } else {
        set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))
    };
    Some(folder?.join("tern"))
}
