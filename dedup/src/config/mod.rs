//! How an engine is set up, what can be changed while it works, and what it finds out about the host.

pub mod knobs;

use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::PAGE_SIZE;
use knobs::Knobs;

/// How an engine is set up. The defaults fit the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineConfig {
    /// Threads that read and hash pages, 1 to 4096; by default one a processor.
    pub thread_count: Option<usize>,
    /// Pages that one domain's store may hold, 1 to 2³² − 2; by default twice the host's memory, so that
    /// numbers can stay unused for long before they are used again. Costs memory, and address space, only as it fills.
    pub store_pages: Option<u32>,
    /// Mappings that the engine's guests together may use, at least 1; by default all engines of the process
    /// share what `vm.max_map_count` leaves. An engine that is given a number has it for itself: who gives
    /// numbers to several sees to it that the process can have their sum.
    pub max_mappings: Option<u64>,
    /// How long a [step](crate::Engine::step) may take before it begins no further piece of work; by default
    /// 1.5 ms. A piece takes a millisecond or two at most, on a machine that has nothing else to do. A step
    /// without any time does one piece. Whoever waits for the engine waits for a step.
    pub step_time: Option<Duration>,
    /// What [`Engine::set_knobs`](crate::Engine::set_knobs) changes later.
    pub knobs: Knobs,
}

/// A step that has so much time does about as much as it may by what it [handles](crate::Engine::last_step).
pub(crate) const STEP_TIME: Duration = Duration::from_micros(1500);

/// More threads would only wait for each other.
const THREADS: RangeInclusive<u64> = 1..=4096;
/// A slot's number and one that is none have 32 bits.
const STORE_PAGES: RangeInclusive<u64> = 1..=u32::MAX as u64 - 1;
const MAPPINGS: RangeInclusive<u64> = 1..=u64::MAX;

/// A limit of an engine that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} is from {min} to {max}, not {value}; leave it out for what fits the host")]
pub struct LimitError {
    /// The field of [`EngineConfig`].
    pub name: &'static str,
    /// What it was to be.
    pub value: u64,
    /// The least that it may be.
    pub min: u64,
    /// The most that it may be.
    pub max: u64,
}

impl EngineConfig {
    /// Verifies that each limit that is given is within its range. The knobs have a
    /// [check](Knobs::check) of their own.
    ///
    /// # Errors
    ///
    /// The first that is not.
    pub(crate) fn check_limits(&self) -> Result<(), LimitError> {
        let limits = [
            ("thread_count", self.thread_count.map(|count| count as u64), THREADS),
            ("store_pages", self.store_pages.map(u64::from), STORE_PAGES),
            ("max_mappings", self.max_mappings, MAPPINGS),
        ];
        for (name, value, range) in limits {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                return Err(LimitError { name, value, min: *range.start(), max: *range.end() });
            }
        }
        Ok(())
    }

    /// How long one domain's store is, in bytes: its length as a file in memory and the address
    /// space that it reserves.
    ///
    /// # Errors
    ///
    /// When `/proc` does not report how much memory the host has.
    pub fn store_bytes(&self) -> io::Result<u64> {
        let pages = self.store_pages.map_or_else(default_store_pages, Ok)?;
        Ok(u64::from(pages) * PAGE_SIZE as u64)
    }
}

/// Twice the host's memory, in pages.
///
/// # Errors
///
/// When `/proc` does not report it.
pub(crate) fn default_store_pages() -> io::Result<u32> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total_kib: Option<u64> = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    let total_kib = total_kib.ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))?;
    Ok(u32::try_from(2 * total_kib * 1024 / PAGE_SIZE as u64).unwrap_or(u32::MAX - 1))
}
