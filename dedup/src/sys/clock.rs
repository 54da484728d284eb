//! Processor time of threads.

use std::time::Duration;

/// The clock of one thread's processor time, readable from any thread while that one lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The calling thread's clock, where the C library can name it.
    pub(crate) fn current() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: takes nothing and cannot fail.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: the calling thread exists, and `clock` is writable for the answer.
        let result = unsafe { libc::pthread_getcpuclockid(thread, &raw mut clock) };
        (result == 0).then_some(Self(clock))
    }

    /// The thread's time so far; `None` once the thread has ended.
    pub(crate) fn now(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is writable for the answer; the clock of a thread that is gone is refused.
        if unsafe { libc::clock_gettime(self.0, &raw mut time) } != 0 {
            return None;
        }
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }
}
