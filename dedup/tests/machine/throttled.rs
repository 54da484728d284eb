//! Folding threads that a CPU quota stops while they hold pages back from a guest.

use std::fs;
use std::hint::spin_loop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use pagefold_dedup::{Engine, EngineConfig, Knobs};

use super::common::{TestVm, settle};

const PAGES: usize = 4096;

/// How long the guest writes.
const MEASURED: Duration = Duration::from_secs(10);

/// A share of a processor: so much of each period of 100 ms.
const QUOTA: Duration = Duration::from_millis(10);

/// Where control groups of version 1 bound CPU time.
const CPU_GROUPS: &str = "/sys/fs/cgroup/cpu";

/// A control group that threads of this process are in, for as long as this lives.
struct Quota(PathBuf);

impl Quota {
    /// Bounds all threads of the process but one.
    ///
    /// # Errors
    ///
    /// Why that is not possible here.
    fn bound_all_but(exempt: &str) -> Result<Self, String> {
        let path = Path::new(CPU_GROUPS).join(format!("pagefold-test-{}", std::process::id()));
        let refused = |error| format!("{} cannot be set up: {error}", path.display());
        fs::create_dir(&path).map_err(refused)?;
        let group = Self(path.clone());
        let quota = QUOTA.as_micros().to_string();
        fs::write(path.join("cpu.cfs_quota_us"), quota).map_err(refused)?;
        for thread in fs::read_dir("/proc/self/task").map_err(refused)? {
            let thread = thread.map_err(refused)?.file_name();
            if thread != exempt {
                fs::write(path.join("tasks"), thread.as_encoded_bytes()).map_err(refused)?;
            }
        }
        Ok(group)
    }

    /// How often its threads were stopped.
    fn stop_count(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        for thread in fs::read_to_string(self.0.join("tasks")).unwrap_or_default().lines() {
            let _ = fs::write(Path::new(CPU_GROUPS).join("tasks"), thread);
        }
        let removed = fs::remove_dir(&self.0);
        assert!(removed.is_ok() || thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

/// What the guest's writes took, and how often the folding threads were stopped.
struct Stalls {
    worst: Duration,
    /// Writes that took more than a millisecond, and more than ten.
    long: [usize; 2],
    write_count: usize,
    stop_count: u64,
}

/// How long the calling thread has waited for a processor, which is nobody's fault.
fn queued() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').nth(1).unwrap().parse().unwrap())
}

/// Writes both VMs alike, and notes what each write takes.
fn write(vms: &[TestVm; 2], stop: &AtomicBool) -> Vec<Duration> {
    let (mut took, mut words) = (Vec::new(), vec![0; PAGES]);
    let mut page = 0;
    while !stop.load(Ordering::Relaxed) {
        page = (page + 1237) % PAGES;
        for vm in vms {
            let before = queued();
            let start = Instant::now();
            assert_eq!(vm.swap(page, words[page] + 1), words[page], "page {page}");
            took.push(start.elapsed().saturating_sub(queued().saturating_sub(before)));
        }
        words[page] += 1;
        // Most pages are unchanged from one pass to the next.
        (0..2000).for_each(|_| spin_loop());
    }
    took
}

fn measure(is_bounded: bool) -> Result<Stalls, String> {
    let knobs = Knobs { smart_scan: false, ..Knobs::default() };
    let config = EngineConfig { knobs, thread_count: Some(1), ..EngineConfig::default() };
    let mut engine = Engine::new(config).unwrap();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, PAGES as u32));
    settle(&mut engine);
    let stop = AtomicBool::new(false);
    let (started, writer) = channel();
    thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let thread = fs::read_link("/proc/thread-self").unwrap();
            started.send(thread.file_name().unwrap().to_str().unwrap().to_owned()).unwrap();
            write(&vms, &stop)
        });
        let exempt = writer.recv().unwrap();
        let quota = is_bounded.then(|| Quota::bound_all_but(&exempt)).transpose();
        let start = Instant::now();
        while quota.is_ok() && start.elapsed() < MEASURED {
            engine.pass();
        }
        stop.store(true, Ordering::Relaxed);
        let mut took = guest.join().unwrap();
        took.sort_unstable();
        let longer = |than| took.iter().filter(|&&took| took > Duration::from_millis(than)).count();
        let quota = quota?;
        Ok(Stalls {
            worst: took[took.len() - 1],
            long: [longer(1), longer(10)],
            write_count: took.len(),
            stop_count: quota.as_ref().map_or(0, Quota::stop_count),
        })
    })
}

#[test]
#[ignore = "bounds the process's CPU time, and its figures are the machine's: make machine-tests"]
fn what_a_guests_writes_wait_for_folding_threads_that_a_quota_stops() {
    let _alone = super::alone();
    for is_bounded in [false, true] {
        match measure(is_bounded) {
            Ok(Stalls { worst, long: [ms, tens], write_count, stop_count }) => eprintln!(
                "quota: {is_bounded}, stopped {stop_count} times: of {write_count} writes the worst took \
                 {worst:?}, {ms} more than 1 ms, {tens} more than 10 ms"
            ),
            Err(why) => eprintln!("skipped: {why}"),
        }
    }
}
