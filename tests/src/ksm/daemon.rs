//! ksmd itself: a kernel thread, whose time is that of KSM.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{KsmError, format_error, read};

/// Units of processor time in `/proc/PID/stat`: on x86, a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// Where the thread's time is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuSource {
    /// `/proc/PID/schedstat`, in nanoseconds.
    Schedstat,
    /// `/proc/PID/stat`, in ticks of 10 ms.
    Stat,
}

impl fmt::Display for CpuSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Schedstat => "/proc/PID/schedstat (nanoseconds)",
            Self::Stat => "/proc/PID/stat (10 ms ticks)",
        })
    }
}

/// The kernel thread.
#[derive(Debug, Clone)]
pub struct Ksmd {
    process: PathBuf,
    source: CpuSource,
}

impl Ksmd {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// When it is not there, or its time is not known.
    pub fn find() -> Result<Self, KsmError> {
        let proc = Path::new("/proc");
        let list_error = |source| KsmError::Read { path: proc.to_owned(), source };
        for entry in std::fs::read_dir(proc).map_err(list_error)? {
            let process = entry.map_err(list_error)?.path();
            let is_named = |name: &str| {
                std::fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.trim() == name)
            };
            // Only a kernel thread has no command line.
            let is_kernel = || std::fs::read(process.join("cmdline")).is_ok_and(|c| c.is_empty());
            if is_named("ksmd") && is_kernel() {
                let mut ksmd = Self { process, source: CpuSource::Schedstat };
                if ksmd.cpu_time().is_err() {
                    ksmd.source = CpuSource::Stat;
                    ksmd.cpu_time()?;
                }
                return Ok(ksmd);
            }
        }
        Err(KsmError::Absent)
    }

    /// Where its time is read, and so how exact it is.
    pub fn cpu_source(&self) -> CpuSource {
        self.source
    }

    /// Processor time that it has used since the kernel was started.
    ///
    /// # Errors
    ///
    /// When the kernel does not report it.
    pub fn cpu_time(&self) -> Result<Duration, KsmError> {
        let (file, parse): (_, fn(&str) -> Option<Duration>) = match self.source {
            CpuSource::Schedstat => ("schedstat", parse_schedstat),
            CpuSource::Stat => ("stat", parse_stat),
        };
        let path = self.process.join(file);
        let text = read(&path)?;
        parse(&text).ok_or_else(|| format_error(&path, &text))
    }
}

fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Fields 14 and 15 of `proc_pid_stat(5)`, of which the second is in parentheses and may hold
/// anything.
fn parse_stat(text: &str) -> Option<Duration> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_is_found_in_either_file() {
        let stat = "44 (ks) md) S 2 0 0 0 -1 2097216 0 0 0 0 3 122 0 0 25 5 1 0 63 0 0";
        assert_eq!(parse_stat(stat), Some(Duration::from_millis(1250)));
        assert_eq!(parse_stat("44 (ksmd"), None);
        assert_eq!(parse_schedstat("5829 278694 2"), Some(Duration::from_nanos(5829)));
        assert_eq!(parse_schedstat(""), None);
    }
}
