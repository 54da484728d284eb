//! Advice on a region of guest memory.

use std::io;

use vm_memory::MmapRegion;
use vm_memory::bitmap::AtomicBitmap;

/// Advice that changes how the kernel treats a mapping, never what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Advice {
    /// A forked child does not get the mapping.
    DontFork,
    /// A core dump does not contain it.
    DontDump,
    /// It is never backed by huge pages.
    NoHugePage,
}

/// Gives `advice` on the whole of `region`.
pub(crate) fn advise(region: &MmapRegion<AtomicBitmap>, advice: Advice) -> io::Result<()> {
    let advice = match advice {
        Advice::DontFork => libc::MADV_DONTFORK,
        Advice::DontDump => libc::MADV_DONTDUMP,
        Advice::NoHugePage => libc::MADV_NOHUGEPAGE,
    };
    // SAFETY: madvise(2) requires a range that is ours to advise on, and advice that does not take
    // memory away from under references: the range is exactly the mapping that `region` owns and
    // that the borrow keeps alive, and none of the three changes content or access rights.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
