//! Every kernel: check first, then time.

use anyhow::Result;
use tern_engine::ops::{Case, CaseTiming, Clock, cases};
use tern_engine::{Device, Kind};

use crate::Watch;
use crate::budget::Budget;
use crate::measure::of_case;
use crate::report::{Check, Outcome, Roofline, Row, Timed};
use crate::rows::{Recipe, Size, fits, rate, rows};

/// Elements and operations of a case that a quick run checks.
const QUICK: u64 = 1 << 18;
/// Operations above which the reference takes too long, and the CPU's fast functions, which
/// every check holds against it, take its place.
const SLOW_REFERENCE: u64 = 1 << 28;
/// Bytes from which on a row is held against the copy of large buffers.
const MEMORY: u64 = 1 << 20;
/// Operations above which a row is for hardware alone.
const HARDWARE: u64 = 1 << 35;

/// Which variants a check computes a case by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variants {
    /// The one that the device would take.
    Chosen,
    /// Each that it has what is needed for.
    Every,
}

/// Holds every case of every kernel against the reference.
pub async fn check(
    device: &Device,
    budget: Budget,
    variants: Variants,
    wanted: impl Fn(&str) -> bool,
    watch: &mut impl Watch,
) -> Vec<Check> {
    let kernels: Vec<_> = tern_shaders::kernels().filter(|k| wanted(k.name)).collect();
    let small = |case: &Case| !budget.quick || case.bytes.max(case.flops) <= QUICK;
    let all: Vec<Case> = cases().into_iter().filter(|c| wanted(c.kernel.name)).collect();
    let mut checks = Vec::new();
    for (done, kernel) in kernels.iter().enumerate() {
        watch.step(done, kernels.len(), kernel.name);
        let (name, faults) = (kernel.name.to_string(), Vec::new());
        let mut check = Check { kernel: name, cases: 0, error: 0.0, words_differing: 0.0, faults };
        let own = all.iter().filter(|c| c.kernel.name == kernel.name);
        // A few sizes are for the CPU alone; graphs split them on a GPU.
        for case in own.filter(|c| small(c) && fits(c, device)) {
            check.cases += 1;
            let expected = case.expected();
            for variant in by(variants, case, device) {
                let named = variant.map(|name| case.clone().variant(name));
                let case = named.as_ref().unwrap_or(case);
                match case.check_against_async(device, &expected).await {
                    Ok(found) => {
                        check.error = check.error.max(found.error);
                        check.words_differing = check.words_differing.max(found.words_differing);
                    }
                    Err(e) => check.faults.push(match variant {
                        Some(name) => format!("{name}: {e}"),
                        None => e.to_string(),
                    }),
                }
            }
        }
        watch.checked(&check);
        checks.push(check);
    }
    checks
}

/// The variants to compute a case by; `None` is the one that the device takes by itself.
fn by(variants: Variants, case: &Case, device: &Device) -> Vec<Option<&'static str>> {
    if variants == Variants::Chosen || device.profile().kind == Kind::Cpu {
        return vec![None];
    }
    let params = bytemuck::cast_slice(&case.params);
    let taken = case.kernel.variants.iter().filter(|variant| device.takes(variant, params));
    taken.map(|variant| Some(variant.name)).collect()
}

/// Times the large rows, and for every other kernel the case that moves and computes most. A
/// row that computes wrong, or whose kernel failed a check, gets no time.
///
/// # Errors
/// If who watches fails.
pub async fn time(
    device: &Device,
    budget: Budget,
    wanted: impl Fn(&str) -> bool,
    roofline: Option<&Roofline>,
    checks: &[Check],
    watch: &mut impl Watch,
) -> Result<Vec<Row>> {
    let rows = timed_cases(budget.quick, &wanted);
    let mut timed = Vec::new();
    for (done, recipe) in rows.iter().enumerate() {
        let (kernel, sizes) = (recipe.kernel.name, &recipe.label);
        watch.step(done, rows.len(), &format!("{kernel} {sizes}"));
        let fault = checks.iter().find(|c| c.kernel == kernel).and_then(|c| c.faults.first());
        let software = matches!(device.profile().kind, Kind::Cpu | Kind::Software);
        let outcome = if let Some(reason) = fault {
            Outcome::Failed { reason: reason.clone() }
        } else if software && recipe.flops > HARDWARE {
            Outcome::NotRun { reason: "for hardware".into() }
        } else if recipe.of_gpus && device.profile().kind == Kind::Cpu {
            Outcome::NotRun { reason: "for GPUs".into() }
        } else {
            let case = recipe.case();
            match fits(&case, device) {
                true => row(&case, device, budget, roofline).await,
                false => Outcome::NotRun { reason: "no variant fits".into() },
            }
        };
        if let Outcome::Timed(_) = &outcome {
            watch.timed(device, (kernel, sizes), budget.row(), &format!("{kernel} {sizes}"))?;
        }
        timed.push(Row { kernel: kernel.into(), sizes: sizes.clone(), outcome });
    }
    Ok(timed)
}

fn timed_cases(quick: bool, wanted: impl Fn(&str) -> bool) -> Vec<Recipe> {
    let large = rows(if quick { Size::Quick } else { Size::Full });
    let cases = cases();
    let mut timed = Vec::new();
    for kernel in tern_shaders::kernels().filter(|k| wanted(k.name)) {
        let own = large.iter().filter(|row| row.kernel.name == kernel.name).cloned();
        let before = timed.len();
        timed.extend(own);
        if timed.len() == before {
            let small = |c: &&Case| !quick || c.bytes.max(c.flops) <= QUICK;
            let all = cases.iter().filter(|c| c.kernel.name == kernel.name).filter(small);
            timed.extend(all.max_by_key(|c| c.bytes + c.flops).cloned().map(Recipe::from));
        }
    }
    timed
}

async fn row(case: &Case, device: &Device, budget: Budget, roofline: Option<&Roofline>) -> Outcome {
    match measure(case, device, budget).await {
        Ok((error, t)) => Outcome::Timed(timed(case, error, &t, roofline)),
        Err(e) => Outcome::Failed { reason: e.to_string() },
    }
}

async fn measure(
    case: &Case,
    device: &Device,
    budget: Budget,
) -> tern_engine::Result<(f64, CaseTiming)> {
    let expected = match case.flops > SLOW_REFERENCE {
        true => case.expected_of_cpu_async().await?,
        false => case.expected(),
    };
    let check = case.check_against_async(device, &expected).await?;
    Ok((check.error, case.time_async(device, budget.row()).await?))
}

fn timed(case: &Case, error: f64, t: &CaseTiming, roofline: Option<&Roofline>) -> Timed {
    let (rate, unit) = rate(case, t.median);
    // Products of halves add numbers of 32 bits, but for matrix units, which have no roofline here.
    let half = case.kernel.name == "roofline/multiply_add_half";
    // What fits the nearest caches has nothing to do with the memory.
    let large = unit == "GFLOP/s" || case.bytes >= MEMORY;
    let least = roofline.filter(|_| large).and_then(|r| r.least(case.flops, case.bytes, half));
    Timed {
        variant: t.variant.map(String::from),
        error,
        times: of_case(t),
        alone: t.alone,
        clock: match t.clock {
            Clock::Timestamps => "timestamps",
            Clock::Wall => "wall",
        }
        .into(),
        rate,
        unit: unit.into(),
        share: least.map(|least| least / t.median),
    }
}
