//! How fast a guest's time-stamp counter runs.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuFd;

use crate::sys::tsc;

/// Long enough for an error well below a tenth of a per cent.
const MEASURE_FOR: Duration = Duration::from_millis(20);

/// The frequency of `vcpu`'s time-stamp counter in kHz: what KVM reports, or else the host's, measured
/// once for the process.
pub(crate) fn tsc_khz(vcpu: &VcpuFd) -> u32 {
    static MEASURED: OnceLock<u32> = OnceLock::new();
    match vcpu.get_tsc_khz() {
        Ok(khz) if khz != 0 => khz,
        _ => *MEASURED.get_or_init(measure),
    }
}

fn measure() -> u32 {
    let (start, first) = (Instant::now(), tsc::read());
    thread::sleep(MEASURE_FOR);
    let (ticks, elapsed) = (tsc::read().wrapping_sub(first), start.elapsed());
    // Ticks in a microsecond, times 1000.
    let khz = u128::from(ticks) * 1_000_000 / elapsed.as_nanos().max(1);
    u32::try_from(khz).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_frequency_is_one_a_processor_could_have() {
        assert!((100_000..20_000_000).contains(&measure()));
    }
}
