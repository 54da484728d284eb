//! What the kernel reports of this process.
//!
//! Source: the kernel's `Documentation/filesystems/proc.rst`.

use std::fs;
use std::time::Duration;

use pagefold::limits::memory::field_kib;

/// `/proc` counts processor time in these: `USER_HZ`, the same on every x86-64 kernel.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time that all threads of this process have used, ended ones included, to a hundredth
/// of a second. `None` if the kernel does not report it.
pub(super) fn cpu_time() -> Option<Duration> {
    cpu_time_of(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn cpu_time_of(stat: &str) -> Option<Duration> {
    // The second field is the command's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// Memory that is this process's, in bytes: what it shares with others is counted in part (`Pss`).
/// `None` if the kernel does not report it.
pub(super) fn pss_bytes() -> Option<u64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    field_kib(&rollup, "Pss:")
}

/// Whether the process ignores a signal, as one does from its start that `nohup` has started. False
/// if the kernel does not report it.
pub(super) fn ignores(signal: libc::c_int) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_by(&status, signal))
}

fn ignores_by(status: &str, signal: libc::c_int) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 250 150 0 0 20 0";
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(4)));
        assert_eq!(cpu_time_of("7 (a"), None);
    }

    #[test]
    fn an_ignored_signal_is_a_bit_of_a_mask() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let ignored: Vec<_> = (1..=64).filter(|&signal| ignores_by(status, signal)).collect();
        assert_eq!(ignored, [libc::SIGHUP, libc::SIGPIPE]);
        assert!(!ignores_by("Name:\tx\n", libc::SIGHUP));
    }

    #[test]
    fn the_kernel_says_what_this_process_has() {
        assert!(pss_bytes().expect("Pss") > 0);
        assert!(cpu_time().is_some());
    }
}
