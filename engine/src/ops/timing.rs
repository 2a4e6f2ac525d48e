//! Timing of cases and of what surrounds kernels, for the benches and for tuning.

use std::time::Duration;

use tern_shaders::Element;
use tern_shaders::kernels::pointwise::{FILL, Fill};
use web_time::Instant;

use super::Case;
use crate::device::{Call, Program, Slot};
use crate::{Device, Kind, Result};

/// Shortest run that is timed, if the budget allows: long against a fence and a clock, and on
/// software devices against what their threads take to be spread over the cores after a wait,
/// which is a dozen milliseconds.
const SHORTEST: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
/// Calls of a run by the host's clock, at least, for the same reason, unless the budget is that
/// of a look; but for calls that take long, in seconds, by themselves.
const WITHOUT_CLOCK: usize = 4;
const LONG: f64 = 0.2;
/// Calls that one run makes at most.
const MAX_CALLS: usize = 1 << 14;
/// Runs after which the median moves no more.
const ENOUGH: usize = 25;

/// What a time was taken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The device's own clock, read before and after the calls.
    Timestamps,
    /// The host's clock, from the submit to the device's fence.
    Wall,
}

/// How long one call of a kernel takes.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseTiming {
    /// Median seconds a call, over the runs.
    pub median: f64,
    /// Fastest run.
    pub least: f64,
    /// Slowest run.
    pub most: f64,
    /// First and third quartile of the runs.
    pub quartiles: [f64; 2],
    /// Runs timed.
    pub runs: usize,
    /// Calls a run, recorded into one submit where the device allows.
    pub calls: usize,
    /// Median seconds of a call alone, from the submit until the host knows that it is done.
    pub alone: f64,
    /// Seconds of each such call.
    pub alone_each: Vec<f64>,
    /// What the runs were timed with.
    pub clock: Clock,
    /// The GPU variant that computed it; `None` on the CPU.
    pub variant: Option<&'static str>,
}

/// What surrounds kernels on a device, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// A dispatch among others of a submit, that computes next to nothing.
    pub dispatch: f64,
    /// A submit of one dispatch, until the host knows that it is done.
    pub submit: f64,
    /// Reading four bytes back.
    pub read_back: f64,
}

/// The value below which a share (0 to 1) of sorted values lies: between two of them, what lies
/// between them in proportion; not a number if there is none.
///
/// ```
/// use tern_engine::ops::quantile;
///
/// let sorted = [1.0, 2.0, 4.0, 8.0];
/// assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| quantile(&sorted, share)), [1.0, 1.75, 3.0, 8.0]);
/// ```
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64;
    let [low, high] = [at.floor(), at.ceil()].map(|at| sorted.get(at as usize));
    match (low, high) {
        (Some(low), Some(high)) => low + (high - low) * at.fract(),
        _ => f64::NAN,
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    quantile(&seconds, 0.5)
}

impl Device {
    /// Whether the device's own clock is the better one. A software device's timestamps are
    /// the host's clock, read at the same moments and between more commands.
    fn has_clock(&self) -> bool {
        !matches!(self.profile().kind, Kind::Cpu | Kind::Software)
    }

    /// Seconds that `calls` replays of a program take.
    async fn stopwatch(&self, program: &Program, calls: usize, clock: Clock) -> Result<f64> {
        if clock == Clock::Timestamps
            && let Some(seconds) = self.clocked(program, calls).await?
        {
            return Ok(seconds);
        }
        let start = Instant::now();
        self.replay(program, calls).await?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Measures what surrounds kernels.
    ///
    /// # Errors
    /// Device errors.
    pub async fn costs_async(&self) -> Result<Costs> {
        const CALLS: usize = 500;
        let slot = |buffer| Slot { buffer, at: 0, words: 64 };
        let buffer = self.allocate("fill", 64, Element::F32).await?;
        let call = Call {
            kernel: &FILL,
            label: "fill".into(),
            params: bytemuck::pod_collect_to_vec(&[Fill {
                n: 64,
                offset: 0,
                stride: 64,
                value: 1.0,
            }]),
            slots: vec![slot(buffer.clone())],
            replicas: 1,
            variant: None,
        };
        let program = self.compile(vec![vec![call].into()], &[]).await?;
        self.replay(&program, CALLS).await?;
        let (mut one, mut many, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ENOUGH {
            one.push(self.stopwatch(&program, 1, Clock::Wall).await?);
            many.push(self.stopwatch(&program, CALLS, Clock::Wall).await?);
            let start = Instant::now();
            self.read(&buffer, 0, 1).await?;
            reads.push(start.elapsed().as_secs_f64());
        }
        let (submit, many) = (median(one), median(many));
        // The first dispatch of a submit pays for the submit.
        let dispatch = (many - submit).max(0.0) / (CALLS - 1) as f64;
        Ok(Costs { dispatch, submit, read_back: median(reads) })
    }

    /// [`Device::costs_async`], waiting.
    ///
    /// # Errors
    /// As [`Device::costs_async`].
    #[cfg(feature = "blocking")]
    pub fn costs(&self) -> Result<Costs> {
        self.wait(self.costs_async())
    }
}

impl Case {
    /// Times the case: warms up, then runs it until `budget` is used, three times at least.
    /// Calls follow each other without the host in between, so that what is timed is the
    /// kernel and not the submit. Says nothing about the result: check first.
    ///
    /// # Errors
    /// Device errors.
    pub async fn time_async(&self, device: &Device, budget: Duration) -> Result<CaseTiming> {
        let (program, _buffers) = self.compile(device).await?;
        // The first run compiles; the next ones find out how many calls make a run long enough.
        device.replay(&program, 1).await?;
        let shortest = (budget / 5).clamp(SHORTEST[0], SHORTEST[1]).as_secs_f64();
        let look = budget < 2 * SHORTEST[1];
        let min_calls = if device.has_clock() || look { 1 } else { WITHOUT_CLOCK };
        let mut calls = 1;
        loop {
            let took = device.stopwatch(&program, calls, Clock::Wall).await?;
            let enough = took >= shortest && (calls >= min_calls || took >= LONG);
            if enough || calls >= MAX_CALLS {
                break;
            }
            let wanted = shortest / took.max(1e-7);
            calls = (calls as f64 * (1.2 * wanted).clamp(2.0, 64.0)) as usize;
            calls = calls.clamp(min_calls, MAX_CALLS);
        }
        let clocked = device.has_clock() && device.clocked(&program, 1).await?.is_some();
        let clock = if clocked { Clock::Timestamps } else { Clock::Wall };
        let mut seconds = Vec::new();
        let start = Instant::now();
        while seconds.len() < 3 || (seconds.len() < ENOUGH && start.elapsed() < budget) {
            seconds.push(device.stopwatch(&program, calls, clock).await? / calls as f64);
        }
        let mut alone = Vec::new();
        let start = Instant::now();
        while alone.len() < 3 || (alone.len() < ENOUGH && start.elapsed() < budget / 4) {
            alone.push(device.stopwatch(&program, 1, Clock::Wall).await?);
        }
        seconds.sort_by(f64::total_cmp);
        let runs = seconds.len();
        let [least, first, median, third, most] =
            [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| quantile(&seconds, share));
        let variant = device.variants(&program).first().copied();
        Ok(CaseTiming {
            median,
            least,
            most,
            quartiles: [first, third],
            runs,
            calls,
            alone: self::median(alone.clone()),
            alone_each: alone,
            clock,
            variant,
        })
    }

    /// [`Case::time_async`], waiting.
    ///
    /// # Errors
    /// As [`Case::time_async`].
    #[cfg(feature = "blocking")]
    pub fn time(&self, device: &Device, budget: Duration) -> Result<CaseTiming> {
        device.wait(self.time_async(device, budget))
    }
}
