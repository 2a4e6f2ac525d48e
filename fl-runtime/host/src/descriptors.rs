//! Open files and connections of this process: how many there may be.

/// Raises the number of files that this process may have open to what the system allows it, and
/// says how many that are; `None` where the system has no such number.
///
/// ```
/// # if cfg!(unix) {
/// assert!(tern_host::descriptors::raise().is_some_and(|most| most >= 16));
/// # }
/// ```
#[cfg(unix)]
pub fn raise() -> Option<usize> {
    let raised = rlimit::increase_nofile_limit(u64::MAX);
    // Some systems allow fewer than they say: what was there before stays.
    let most = raised.or_else(|_| rlimit::Resource::NOFILE.get_soft()).ok()?;
    Some(usize::try_from(most).unwrap_or(usize::MAX))
}

/// Windows has no such number.
#[cfg(not(unix))]
pub fn raise() -> Option<usize> {
    None
}
