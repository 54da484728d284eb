//! The host's time-stamp counter.

/// The counter now.
pub(crate) fn read() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 and is open to user space unless a process forbids it to
    // itself by prctl(2), in which case it is ended: nothing is corrupted.
    unsafe { std::arch::x86_64::_rdtsc() }
}
