//! The display, which no command of Tern's looks for.
//!
//! ```
//! // The first that `main` does.
//! // SAFETY: no other thread is there yet.
//! unsafe { tern_host::display::look_for_none() };
//! ```

/// Keeps Mesa's layer that puts the GPU of the display first from saying on standard error, twice,
/// that there is no display. Where somebody asked it for a GPU, it stays.
///
/// # Safety
/// It changes the environment: no other thread may read or write that meanwhile. Call it first in
/// `main`.
pub unsafe fn look_for_none() {
    let asked = ["XDG_RUNTIME_DIR", "MESA_VK_DEVICE_SELECT", "DRI_PRIME"];
    if asked.into_iter().all(|name| std::env::var_os(name).is_none()) {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
