//! Whether there was a stdout when the program started.
//!
//! Before `main`, Rust's runtime opens /dev/null in place of a stdout that is closed (`temper … >&-`), so that no file can be mistaken for
//! it. Whatever is printed is lost there without an error, and nothing tells it from a `>/dev/null` that somebody asked for. So this looks
//! before the runtime does.

/// Whether stdout was closed when the program started: all results that are printed would be lost.
pub(crate) fn was_closed() -> bool {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    return early::CLOSED.load(std::sync::atomic::Ordering::Relaxed);
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    return false;
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod early {
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::libc::{F_GETFD, STDOUT_FILENO, fcntl};

    pub(super) static CLOSED: AtomicBool = AtomicBool::new(false);

    extern "C" fn look() {
        // SAFETY: it asks for a number, and touches no memory.
        let open = unsafe { fcntl(STDOUT_FILENO, F_GETFD) } != -1;
        CLOSED.store(!open, Ordering::Relaxed);
    }

    // SAFETY: what is listed in this section is called once before `main`; this function needs nothing of Rust's runtime.
    #[used]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;
}
