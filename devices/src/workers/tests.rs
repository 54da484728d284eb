use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);

/// Work that reports its name, and is done when its channel is closed.
struct Blocking {
    name: u32,
    begun: Mutex<Sender<u32>>,
    end: Mutex<Receiver<()>>,
}

impl Work for Blocking {
    fn carry_out(&self) -> bool {
        self.begun.lock().unwrap().send(self.name).unwrap();
        let _ = self.end.lock().unwrap().recv();
        false
    }
}

/// Work of so many pieces, which reports its name with each.
struct Pieces {
    name: u32,
    left: Mutex<u32>,
    begun: Mutex<Sender<u32>>,
}

impl Work for Pieces {
    fn carry_out(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        *left -= 1;
        self.begun.lock().unwrap().send(self.name).unwrap();
        *left > 0
    }
}

fn blocking(name: u32, begun: &Sender<u32>) -> (Sender<()>, Arc<Blocking>) {
    let (sender, end) = channel();
    let (begun, end) = (Mutex::new(begun.clone()), Mutex::new(end));
    (sender, Arc::new(Blocking { name, begun, end }))
}

#[test]
fn threads_are_started_as_there_is_work_up_to_their_number() {
    let (begun, names) = channel();
    let pool = WorkerPool::with_threads(3, || ());
    let (ends, work): (Vec<_>, Vec<_>) = (0..4).map(|name| blocking(name, &begun)).unzip();
    for (count, work) in work.into_iter().enumerate() {
        assert!(format!("{pool:?}").contains(&format!("threads: {}", count.min(3))), "{pool:?}");
        pool.add(work, false);
    }
    let mut first: Vec<u32> = (0..3).map(|_| names.recv_timeout(PATIENCE).unwrap()).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2]);
    assert!(names.try_recv().is_err(), "there are three threads");
    drop(ends);
    assert_eq!(names.recv_timeout(PATIENCE), Ok(3));
}

#[test]
fn half_of_the_threads_is_kept_for_those_that_have_none() {
    let (begun, names) = channel();
    let pool = WorkerPool::with_threads(4, || ());
    let mut ends = Vec::new();
    for (name, is_further) in [(0, false), (1, true), (2, true), (3, true), (4, false)] {
        let (end, work) = blocking(name, &begun);
        ends.push(end);
        pool.add(work, is_further);
    }
    let mut first: Vec<u32> = (0..4).map(|_| names.recv_timeout(PATIENCE).unwrap()).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 4]);
    // One that ends makes room for the next of its kind.
    drop(ends.remove(1));
    assert_eq!(names.recv_timeout(PATIENCE), Ok(3));
}

#[test]
fn those_that_have_more_work_take_turns() {
    let (begun, names) = channel();
    let pool = WorkerPool::with_threads(1, || ());
    let (end, work) = blocking(9, &begun);
    pool.add(work, false);
    for name in 0..2 {
        let begun = Mutex::new(begun.clone());
        pool.add(Arc::new(Pieces { name, left: Mutex::new(3), begun }), false);
    }
    drop(end);
    let order: Vec<u32> = (0..7).map(|_| names.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(order, [9, 0, 1, 0, 1, 0, 1]);
}

#[test]
fn a_pool_ends_when_its_threads_have_done_what_they_are_at() {
    let (begun, names) = channel();
    let pool = WorkerPool::new(|| ());
    pool.ensure_thread().unwrap();
    let (end, work) = blocking(0, &begun);
    let held = Arc::downgrade(&work);
    pool.add(work, false);
    names.recv_timeout(PATIENCE).unwrap();
    let ended = std::thread::spawn(move || drop(pool));
    assert!(!ended.is_finished());
    drop(end);
    ended.join().unwrap();
    assert!(held.upgrade().is_none());
}
