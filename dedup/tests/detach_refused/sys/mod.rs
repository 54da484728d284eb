//! How many descriptors the process may have.
#![allow(unsafe_code)]

use std::io;

/// Has new descriptors be below a number, and returns what that was.
pub(crate) fn set_max_files(max_files: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    done(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) });
    let before = std::mem::replace(&mut limit.rlim_cur, max_files);
    // SAFETY: the kernel reads one `rlimit`.
    done(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) });
    before
}

fn done(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
