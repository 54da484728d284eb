//! Memory for the pages of a file, one by one.
//!
//! Where the machine has huge pages for shared memory (`shmem_enabled`), the kernel allocates 2 MiB for the
//! first page that is written to a file. What it allocates for a mapping that was advised not to have any
//! is one page, and written to later, it stays that.
//!
//! Source: `shmem_allowable_huge_orders` of `mm/shmem.c`; the kernel's
//! `Documentation/admin-guide/mm/transhuge.rst`.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, ptr};

use super::large_folios::SETTINGS;

/// For how long the machine's settings are cached.
const CACHED_FOR: Duration = Duration::from_millis(100);

/// When the settings were read last, and whether files may get huge pages.
static LAST_READ: Mutex<Option<(Instant, bool)>> = Mutex::new(None);

/// Whether a write to a file may allocate more than it fills.
pub(super) fn are_needed() -> bool {
    let mut last = LAST_READ.lock().unwrap_or_else(PoisonError::into_inner);
    match *last {
        Some((at, are_needed)) if at.elapsed() < CACHED_FOR => are_needed,
        _ => {
            let are_needed = may_be_huge();
            *last = Some((Instant::now(), are_needed));
            are_needed
        }
    }
}

/// Whether the settings allow for huge pages of any size in files.
fn may_be_huge() -> bool {
    let settings = Path::new(SETTINGS);
    let is_on = |path: &Path| {
        fs::read_to_string(path).is_ok_and(|setting| {
            ["[always]", "[within_size]", "[force]"].iter().any(|on| setting.contains(on))
        })
    };
    let mut sizes = fs::read_dir(settings).into_iter().flatten().flatten();
    is_on(&settings.join("shmem_enabled"))
        || sizes.any(|size| is_on(&size.path().join("shmem_enabled")))
}

/// Has the kernel hold memory for each page of a part of a file, and for no other; what had none reads as
/// zeroes.
///
/// # Errors
///
/// The kernel's; some of the pages may have memory.
pub(super) fn allocate(fd: libc::c_int, offset_bytes: u64, len_bytes: usize) -> io::Result<()> {
    let offset_bytes = i64::try_from(offset_bytes).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let addr = unsafe {
        libc::mmap(ptr::null_mut(), len_bytes, libc::PROT_READ, libc::MAP_SHARED, fd, offset_bytes)
    };
    if addr == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let advice = [libc::MADV_NOHUGEPAGE, libc::MADV_POPULATE_READ];
    let result = advice.into_iter().try_for_each(|advice| {
        // SAFETY: just what was mapped, to which nothing else refers; the advice changes no byte.
        let result = unsafe { libc::madvise(addr, len_bytes, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
    // SAFETY: as before; nothing uses it any more.
    unsafe { libc::munmap(addr, len_bytes) };
    result
}
