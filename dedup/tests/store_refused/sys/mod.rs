//! The process's limits on the size of files, memory files included, and on its address space.
#![allow(unsafe_code)]
#![allow(dead_code, reason = "each test lowers one of them")]

use std::io;

/// Has the kernel refuse what is written beyond `max_bytes` of a file, or, with `None`, nothing.
pub(crate) fn limit_files(max_bytes: Option<u64>) {
    // SAFETY: sets a disposition that runs no code of ours: without it the refusal would also be a
    // signal that ends the process.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR, "{}", io::Error::last_os_error());
    lower_file_limit(max_bytes);
}

/// The same, where the signal does what it does.
pub(crate) fn lower_file_limit(max_bytes: Option<u64>) {
    limit(libc::RLIMIT_FSIZE, max_bytes);
}

/// Has the kernel refuse mappings beyond so many bytes in all, or, with `None`, none for that.
pub(crate) fn limit_address_space(max_bytes: Option<u64>) {
    limit(libc::RLIMIT_AS, max_bytes);
}

fn limit(resource: libc::__rlimit_resource_t, max: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` to a variable of that type.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    limit.rlim_cur = max.unwrap_or(limit.rlim_max);
    // SAFETY: the kernel reads one `rlimit`.
    let result = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
