//! When a device takes part: only while it is idle, charging, on an unmetered network.

/// What the host program knows of its device now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Nobody uses it.
    pub idle: bool,
    /// It is connected to power.
    pub charging: bool,
    /// Its network doesn't count bytes.
    pub unmetered: bool,
}

/// What must hold for the client to ask for tasks and to start one.
///
/// Asked before each poll and before training; a task that is under way is finished, since
/// what it has cost is spent. The host program gives the state by any function of its own:
///
/// ```
/// use tern_client::{Conditions, DeviceState};
///
/// let conditions = Conditions::of(|| DeviceState { idle: true, charging: false, unmetered: true })
///     .idle()
///     .unmetered();
/// assert!(conditions.hold());
/// assert!(!conditions.charging().hold());
/// ```
pub struct Conditions {
    state: Box<dyn Fn() -> DeviceState + Send + Sync>,
    idle: bool,
    charging: bool,
    unmetered: bool,
}

impl Default for Conditions {
    /// At any time.
    fn default() -> Self {
        Conditions::of(|| DeviceState { idle: true, charging: true, unmetered: true })
    }
}

impl Conditions {
    /// No condition yet, on a device whose state this function tells.
    pub fn of(state: impl Fn() -> DeviceState + Send + Sync + 'static) -> Self {
        Conditions { state: Box::new(state), idle: false, charging: false, unmetered: false }
    }

    /// Only while nobody uses the device.
    pub fn idle(self) -> Self {
        Conditions { idle: true, ..self }
    }

    /// Only while it is connected to power.
    pub fn charging(self) -> Self {
        Conditions { charging: true, ..self }
    }

    /// Only while its network doesn't count bytes.
    pub fn unmetered(self) -> Self {
        Conditions { unmetered: true, ..self }
    }

    /// Whether the client may take part now.
    pub fn hold(&self) -> bool {
        let state = (self.state)();
        (state.idle || !self.idle)
            && (state.charging || !self.charging)
            && (state.unmetered || !self.unmetered)
    }
}

impl std::fmt::Debug for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Conditions { idle, charging, unmetered, .. } = self;
        write!(f, "Conditions {{ idle: {idle}, charging: {charging}, unmetered: {unmetered} }}")
    }
}
