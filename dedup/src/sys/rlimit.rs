//! Limits of the process that the kernel would enforce with a signal.

use std::io;

/// How long this process may make a file, in bytes; `u64::MAX` where nothing limits it
/// (getrlimit(2), `RLIMIT_FSIZE`).
///
/// # Errors
///
/// The kernel's.
pub(super) fn max_file_bytes() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one `rlimit`, which is this one.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    // RLIM_INFINITY is the greatest of all numbers.
    if result == 0 { Ok(limit.rlim_cur) } else { Err(io::Error::last_os_error()) }
}
