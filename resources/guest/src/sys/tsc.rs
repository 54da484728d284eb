//! The clock.

use core::arch::x86_64::_rdtsc;

/// The time-stamp counter, in ticks of `Params::tsc_khz`.
pub(crate) fn read_tsc() -> u64 {
    // SAFETY: RDTSC exists on every x86-64, and CR4.TSD is clear, so that CPL 3 may use it.
    unsafe { _rdtsc() }
}
