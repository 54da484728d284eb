//! What page faults take, by a thread that does nothing but have them. The time for which it could have run
//! and others had the processor does not count: that is nobody's fault.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagefold_dedup::{AnonymousMemory, PAGE_SIZE};

/// Pages that are written before their memory is new again.
const ROUND_PAGES: u32 = 1 << 13;

/// What counts as a long fault.
const LONG: Duration = Duration::from_millis(2);

/// What page faults took.
pub(crate) struct Faults {
    pub(crate) worst: Duration,
    /// What one in 10,000 took, or more.
    pub(crate) rare: Duration,
    /// How many took longer than anybody should wait.
    pub(crate) long_count: usize,
}

/// Does `work` while another thread writes fresh pages.
pub(crate) fn measure_faults<T>(work: impl FnOnce() -> T) -> (T, Faults) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let faults = scope.spawn(|| have_faults(&stop));
        let result = work();
        stop.store(true, Ordering::Relaxed);
        (result, faults.join().unwrap())
    })
}

/// How long the thread has waited for a processor, by the kernel's account.
struct RunQueue(File);

impl RunQueue {
    fn time(&self) -> Duration {
        let mut text = [0; 64];
        let len = self.0.read_at(&mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..len]).unwrap();
        Duration::from_nanos(text.split(' ').nth(1).unwrap().parse().unwrap())
    }
}

fn have_faults(stop: &AtomicBool) -> Faults {
    let mut all = Vec::new();
    let queue = RunQueue(File::open("/proc/thread-self/schedstat").unwrap());
    while !stop.load(Ordering::Relaxed) {
        let memory = AnonymousMemory::new(ROUND_PAGES).unwrap();
        for page in 0..ROUND_PAGES as usize {
            let (start, queued) = (Instant::now(), queue.time());
            memory.swap(page * PAGE_SIZE, 1);
            let took = start.elapsed();
            all.push(took.saturating_sub(queue.time().saturating_sub(queued)));
        }
    }
    all.sort_unstable();
    let long_count = all.iter().filter(|&&took| took > LONG).count();
    let rare = all[all.len() - 1 - all.len() / 10_000];
    Faults { worst: all[all.len() - 1], rare, long_count }
}
