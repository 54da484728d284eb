//! The last answer to a question that is asked all the time and takes long to answer.

use std::time::{Duration, Instant};

/// How long an answer is given again, at least.
const MIN_AGE: Duration = Duration::from_millis(50);

/// How many times as long as finding it took an answer is given again, at least: so no more than an
/// eleventh of the time is spent on finding answers, however often somebody asks.
const AGE_PER_COST: u32 = 10;

/// An answer, and until when it will do.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    last: Option<(T, Instant)>,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Clone> Snapshot<T> {
    /// The last answer, or, if that has become too old, a new one. `now` is the clock.
    pub(super) fn get(&mut self, now: impl Fn() -> Instant, find: impl FnOnce() -> T) -> T {
        let asked = now();
        if let Some((last, until)) = &self.last
            && asked < *until
        {
            return last.clone();
        }
        let answer = find();
        let found = now();
        let cost = found.saturating_duration_since(asked);
        self.last = Some((answer.clone(), found + MIN_AGE.max(cost * AGE_PER_COST)));
        answer
    }

    /// Has the next answer be a new one: what it depends on has been changed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Asks at a time, in milliseconds, for something that takes `cost` to find; returns whether that
    /// was needed.
    fn is_new(snapshot: &mut Snapshot<u64>, begin: Instant, at: u64, cost: u64) -> bool {
        let time = Cell::new(at);
        let clock = || begin + Duration::from_millis(time.get());
        let found = snapshot.get(clock, || {
            time.set(at + cost);
            at
        });
        found == at
    }

    #[test]
    fn an_answer_is_given_again_for_ten_times_as_long_as_it_took_and_a_moment_at_least() {
        let (mut snapshot, begin) = (Snapshot::default(), Instant::now());
        let mut is_new = |at, cost| is_new(&mut snapshot, begin, at, cost);
        assert!(is_new(1, 0));
        assert!(!is_new(2, 0) && !is_new(50, 0));
        assert!(is_new(51, 20), "it was 50 ms old");
        assert!(!is_new(72, 0) && !is_new(270, 0));
        assert!(is_new(271, 0), "it was 200 ms old");
        assert!(!is_new(320, 0));
        assert!(is_new(321, 0));
    }

    #[test]
    fn an_answer_is_forgotten_when_something_has_changed() {
        let (mut snapshot, begin) = (Snapshot::default(), Instant::now());
        assert!(is_new(&mut snapshot, begin, 1, 20));
        snapshot.forget();
        assert!(is_new(&mut snapshot, begin, 2, 20));
        assert!(!is_new(&mut snapshot, begin, 23, 20));
    }
}
