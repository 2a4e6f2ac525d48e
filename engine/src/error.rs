//! What can go wrong, as one type that callers branch on.

use std::path::{Path, PathBuf};

/// An error of another library, or a text. Messages hold it whole, so it is a field, which can be
/// downcast, and not the [`source`](std::error::Error::source), which would say it once more.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits what was asked for.
    #[error("no device matches `{wanted}`; found: {found}")]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// The devices there are.
        found: String,
    },
    /// The driver refused to open the device.
    #[error("cannot open {adapter}: {reason}")]
    OpenDevice {
        /// Adapter name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The device is gone; rebuild the plan on a new one.
    #[error("device lost: {0}")]
    DeviceLost(String),
    /// An allocation failed or would not fit.
    #[error("out of memory: {what} needs {needed} bytes, {available} allowed ({shortfall} short)",
        shortfall = needed.saturating_sub(*available))]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes the device or its limits allow.
        available: u64,
    },
    /// A shader did not compile or an interface rule was broken: a bug in a kernel or wrapper.
    #[error("{kernel}: {reason}")]
    Kernel {
        /// Kernel or step label.
        kernel: String,
        /// The compiler's or validator's words.
        reason: String,
    },
    /// Shapes that don't go together.
    #[error("{op}: {what}")]
    Shape {
        /// Operation.
        op: &'static str,
        /// The shapes, and what was expected.
        what: String,
    },
    /// A value outside of what is allowed.
    #[error("{name} is {value}, expected {expected}")]
    Value {
        /// Name of the option or input.
        name: String,
        /// The value given.
        value: String,
        /// What would do.
        expected: String,
    },
    /// A training step met numbers that are not finite; the models are as before the step.
    #[error("replica {replica}, step {step}: {what}; its parameters are those before this step")]
    NotFinite {
        /// The first replica that met them.
        replica: usize,
        /// The step, counted from 1.
        step: u32,
        /// The first tensor that holds one, and the kernel that wrote it.
        what: String,
    },
    /// An [`Interrupt`](crate::Interrupt) was set: some steps of the run were not made.
    #[error("interrupted between two steps")]
    Interrupted,
    /// A parameter that isn't there.
    #[error("no parameter named `{name}`; the model has {known}")]
    UnknownParameter {
        /// The name asked for.
        name: String,
        /// Names there are.
        known: String,
    },
    /// A file that can't be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong: an error of the system or of the format.
        reason: Cause,
    },
}

impl Error {
    pub(crate) fn shape(op: &'static str, what: impl Into<String>) -> Self {
        Error::Shape { op, what: what.into() }
    }

    pub(crate) fn value(
        name: impl Into<String>,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Error::Value { name: name.into(), value: value.to_string(), expected: expected.into() }
    }

    pub(crate) fn file(path: &Path, reason: impl Into<Cause>) -> Self {
        Error::File { path: path.to_path_buf(), reason: reason.into() }
    }
}

/// Result of the engine's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;
