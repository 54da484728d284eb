use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;
use crate::sys::Faults;
use crate::sys::{AnonymousMemory, LateSleepers, PageKind, Pagemap, Space};
use crate::{LinearIndex, PAGE_SIZE};

/// Whether a thread of this process sleeps, as it does in a page fault that is held up.
fn sleeps(thread: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
    matches!(state, Some('S' | 'D'))
}

/// A thread that has begun `work` and sleeps in it, held up by a protected page.
fn held_up<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (started, worker) = channel();
    let work = thread::spawn(move || {
        // SAFETY: gettid(2) has no preconditions.
        started.send(unsafe { libc::gettid() }).unwrap();
        work()
    });
    let thread = worker.recv().unwrap();
    while !sleeps(thread) {
        assert!(!work.is_finished(), "nobody was held up");
        thread::yield_now();
    }
    work
}

/// Protects one page of new memory, has `writer` write to it, and looks at the page when the
/// writer sleeps.
fn hold_up_a_writer(populate: bool) {
    let memory = Arc::new(AnonymousMemory::new(1).unwrap());
    if populate {
        memory.write(0, &[1]);
    }
    let space = Space::new(memory.clone()).unwrap();
    let span = space.span(LinearIndex(0), 1);
    let uffd = Userfaultfd::new(Faults::All).unwrap();
    uffd.register(span).unwrap();
    let protected = Protected::new(&uffd, span).unwrap();
    let writer = held_up({
        let memory = memory.clone();
        move || memory.swap(0, 7)
    });
    let before = u8::from(populate);
    assert_eq!(protected.page(0)[0], before);
    assert_eq!(protected.page(0)[1..], [0; PAGE_SIZE - 1]);
    drop(protected);
    assert_eq!(writer.join().unwrap(), u64::from(before));
    assert_eq!(memory.swap(0, 0), 7, "and then its write was done");
}

#[test]
fn a_writer_to_a_protected_page_sleeps_until_it_is_unprotected() {
    hold_up_a_writer(true);
}

// The kernel's ksm_functional_tests, test_unmerge_uffd_wp (docs/kernel-selftests.md).
#[test]
fn unmerging_a_range_that_somebody_protected_waits_until_it_is_unprotected() {
    let store = Memfd::new(2).unwrap();
    store.write(Slot(0), &[7; PAGE_SIZE]).unwrap();
    store.write(Slot(1), &[8; PAGE_SIZE]).unwrap();
    let memory = Arc::new(AnonymousMemory::new(2).unwrap());
    let space = Arc::new(Space::new(memory.clone()).unwrap());
    let span = space.span(LinearIndex(0), 2);
    let uffd = Userfaultfd::new(Faults::All).unwrap();
    span.map_file(store.raw(), 0).unwrap();
    uffd.register(span).unwrap();
    // Somebody protects the second page of two that share slots.
    let protected = Protected::new(&uffd, span.part(1, 1)).unwrap();
    let unmerge = held_up({
        let space = space.clone();
        move || space.span(LinearIndex(0), 2).populate_write()
    });
    assert_eq!(protected.page(0), &[8; PAGE_SIZE], "and still is");
    drop(protected);
    unmerge.join().unwrap().unwrap();
    let mut kinds = Vec::new();
    let pagemap = Pagemap::open().unwrap();
    pagemap.scan(span, |_, page_count, kind| kinds.push((page_count, kind))).unwrap();
    assert_eq!(kinds, [(2, PageKind::Private)], "both have their own memory");
    let mut bytes = [0; 2 * PAGE_SIZE];
    memory.read(0, &mut bytes);
    assert_eq!(bytes[..PAGE_SIZE], [7; PAGE_SIZE]);
    assert_eq!(bytes[PAGE_SIZE..], [8; PAGE_SIZE]);
    assert_eq!(memory.swap(PAGE_SIZE, 0), 0x0808_0808_0808_0808, "nobody is held up");
}

#[test]
fn so_does_the_first_writer_to_a_page_that_is_not_there() {
    hold_up_a_writer(false);
}

#[test]
fn a_protection_that_fails_half_way_leaves_no_writer_asleep() {
    let store = Memfd::new(1).unwrap();
    let memory = Arc::new(AnonymousMemory::new(3).unwrap());
    memory.write(0, &[1; 3 * PAGE_SIZE]);
    let space = Space::new(memory.clone()).unwrap();
    let span = space.span(LinearIndex(0), 3);
    let uffd = Userfaultfd::new(Faults::All).unwrap();
    uffd.register(span).unwrap();
    // As after a merge that the kernel refused to cover with the userfaultfd.
    span.part(1, 1).map_file(store.raw(), 0).unwrap();
    // Protected already, so that the writer sleeps for sure when the attempt is made.
    uffd.write_protect(span.part(0, 1), true).unwrap();
    let (finished, writer) = channel();
    held_up({
        let memory = memory.clone();
        move || finished.send(memory.swap(0, 7)).unwrap()
    });

    assert!(Protected::new(&uffd, span).is_err(), "the second page cannot be protected");
    // Nobody else would ever wake the writer; the limit only keeps a failure from hanging.
    let before = writer.recv_timeout(Duration::from_mins(1));
    assert_eq!(before, Ok(0x0101_0101_0101_0101), "the writer sleeps for good");
    for page in 0..3 {
        memory.swap(page * PAGE_SIZE, 8);
    }
}

// The state that a fault is left in which found the page protected and queued up after the wake-up.
#[test]
fn a_writer_that_sleeps_on_a_page_that_is_not_protected_any_more_is_woken() {
    let store = Memfd::new(1).unwrap();
    store.write(Slot(0), &[7; PAGE_SIZE]).unwrap();
    let memory = Arc::new(AnonymousMemory::new(1).unwrap());
    let space = Space::new(memory.clone()).unwrap();
    let span = space.span(LinearIndex(0), 1);
    let uffd = Arc::new(Userfaultfd::new(Faults::All).unwrap());
    span.map_file(store.raw(), 0).unwrap();
    uffd.register(span).unwrap();
    uffd.write_protect(span, true).unwrap();
    let writer = held_up(move || memory.swap(0, 8));
    uffd.unprotect_without_waking(span).unwrap();
    thread::sleep(Duration::from_millis(20));
    assert!(!writer.is_finished(), "somebody else has woken it");
    let _late_sleepers = LateSleepers::wake(&uffd).unwrap();
    assert_eq!(writer.join().unwrap(), 0x0707_0707_0707_0707);
}

/// How often threads of this process that have a name have gone to sleep.
fn sleeps_of(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let read = |task: &std::fs::DirEntry, file| {
        std::fs::read_to_string(task.path().join(file)).unwrap_or_default()
    };
    let tasks = tasks.map(Result::unwrap).filter(|task| read(task, "comm").trim_end() == name);
    let sleeps = tasks.map(|task| {
        let status = read(&task, "status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    });
    sleeps.sum()
}

// As they do while a CPU quota throttles who protected it: 32 kept two processors busy.
#[test]
fn many_writers_to_a_page_that_stays_protected_are_not_woken_more_often_than_one() {
    const WRITERS: usize = 16;
    let memory = Arc::new(AnonymousMemory::new(1).unwrap());
    let space = Space::new(memory.clone()).unwrap();
    let span = space.span(LinearIndex(0), 1);
    let uffd = Arc::new(Userfaultfd::new(Faults::All).unwrap());
    uffd.register(span).unwrap();
    let _late_sleepers = LateSleepers::wake(&uffd).unwrap();
    let protected = Protected::new(&uffd, span).unwrap();
    let writers: Vec<JoinHandle<u64>> = (0..WRITERS)
        .map(|_| {
            let (memory, writer) = (memory.clone(), thread::Builder::new());
            writer.name("held-up".to_owned()).spawn(move || memory.swap(0, 7)).unwrap()
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    let (before, since) = (sleeps_of("held-up"), std::time::Instant::now());
    thread::sleep(Duration::from_millis(200));
    let (sleeps, millis) = (sleeps_of("held-up") - before, since.elapsed().as_millis());
    let most = 2 * WRITERS as u128 * (millis + 1);
    assert!(u128::from(sleeps) <= most, "{sleeps} in {millis} ms");
    assert!(sleeps > 0, "nobody was held up");
    drop(protected);
    for writer in writers {
        assert!([0, 7].contains(&writer.join().unwrap()));
    }
}
