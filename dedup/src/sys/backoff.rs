//! Pauses between attempts at what the kernel refuses for want of memory, and what cannot be left out.

use std::time::Duration;
use std::{fmt, io, thread};

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(64);

/// Ever longer pauses while guest pages wait for the kernel.
#[derive(Debug)]
pub(super) struct Backoff {
    /// What the pages wait for.
    what: &'static str,
    attempts: u32,
}

impl Backoff {
    /// Before the first attempt.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, attempts: 0 }
    }

    /// Sleeps after an attempt that was refused. Just the first refusal is logged as an error.
    pub(super) fn wait(&mut self, error: &io::Error) {
        if self.attempts == 0 {
            log::error!("guest pages wait for the kernel to {}: {error}", self.what);
        }
        thread::sleep(self.next_pause());
    }

    fn next_pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        pause
    }
}

impl Drop for Backoff {
    /// Who has read the warning reads how it ended.
    fn drop(&mut self) {
        if self.attempts > 0 {
            log::warn!("{self}");
        }
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, attempts } = self;
        write!(f, "guest pages no longer wait for the kernel to {what}, after {attempts} refusals")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_millisecond_to_a_bound_however_long_the_kernel_refuses() {
        let mut backoff = Backoff::new("test");
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        backoff.attempts = u32::MAX;
        assert_eq!(backoff.next_pause(), LONGEST);
    }
}
