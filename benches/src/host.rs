//! The machine, and the sources that were built.

use std::process::Command;

use crate::report::Host;

/// What the machine says of itself.
pub fn host() -> Host {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (os, arch) = (std::env::consts::OS.to_string(), std::env::consts::ARCH.to_string());
    Host { os, arch, cpu: processor().unwrap_or_else(|| "unknown processor".into()), cores }
}

fn processor() -> Option<String> {
    let name = match std::env::consts::OS {
        "linux" => std::fs::read_to_string("/proc/cpuinfo").ok()?.lines().find_map(|line| {
            line.strip_prefix("model name")?.split_once(':').map(|x| x.1.into())
        })?,
        "macos" => output("sysctl", &["-n", "machdep.cpu.brand_string"])?,
        _ => std::env::var("PROCESSOR_IDENTIFIER").ok()?,
    };
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}

/// What a program prints, run in this crate's folder; `None` if it fails or prints nothing.
pub fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(program).args(arguments).current_dir(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The commit of the sources, `-dirty` behind it if they were changed, `unknown` without git.
pub fn commit() -> String {
    let Some(commit) = output("git", &["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
    if changed { commit + "-dirty" } else { commit }
}
