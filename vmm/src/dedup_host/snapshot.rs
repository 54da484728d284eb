//! The last answer to a question that is asked all the time and takes long to answer.

use std::time::{Duration, Instant};

/// How long an answer is given again, at least.
const MIN_AGE: Duration = Duration::from_millis(50);

/// How many times as long as finding it took an answer is given again, at least: so no more than an
/// eleventh of the time is spent on finding answers, however often somebody asks.
const AGE_PER_COST: u32 = 10;

/// An answer, and how long it will do.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    last: Option<Answer<T>>,
}

#[derive(Debug)]
struct Answer<T> {
    value: T,
    /// What its question was about, of which this is the number of changes, or fewer than there had been.
    changes: u64,
    until: Instant,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Clone> Snapshot<T> {
    /// The last answer, or, if that has become too old, or there have been more `changes` to what it
    /// depends on, a new one. Others may have noticed more of them since `changes` were counted. `now` is the
    /// clock.
    ///
    /// # Errors
    ///
    /// When no new one can be found; there is none then.
    pub(super) fn get<E>(
        &mut self,
        changes: u64,
        now: impl Fn() -> Instant,
        find: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let requested_at = now();
        self.last.take_if(|last| last.until <= requested_at || last.changes < changes);
        if let Some(last) = &self.last {
            return Ok(last.value.clone());
        }
        let value = find()?;
        let found = now();
        let cost = found.saturating_duration_since(requested_at);
        let until = found + MIN_AGE.max(cost * AGE_PER_COST);
        self.last = Some(Answer { value: value.clone(), changes, until });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    /// Asks at a time, in milliseconds, for something that takes `cost` to find; returns whether that
    /// was needed.
    fn is_new(
        snapshot: &mut Snapshot<u64>,
        changes: u64,
        begin: Instant,
        at: u64,
        cost: u64,
    ) -> bool {
        let time = Cell::new(at);
        let clock = || begin + Duration::from_millis(time.get());
        let find = || {
            time.set(at + cost);
            Ok::<_, Infallible>(at)
        };
        snapshot.get(changes, clock, find) == Ok(at)
    }

    #[test]
    fn an_answer_is_given_again_for_ten_times_as_long_as_it_took_and_a_moment_at_least() {
        let (mut snapshot, begin) = (Snapshot::default(), Instant::now());
        let mut is_new = |at, cost| is_new(&mut snapshot, 0, begin, at, cost);
        assert!(is_new(1, 0));
        assert!(!is_new(2, 0) && !is_new(50, 0));
        assert!(is_new(51, 20), "it was 50 ms old");
        assert!(!is_new(72, 0) && !is_new(270, 0));
        assert!(is_new(271, 0), "it was 200 ms old");
        assert!(!is_new(320, 0));
        assert!(is_new(321, 0));
    }

    #[test]
    fn an_answer_that_shows_more_changes_than_are_asked_for_will_do() {
        let (mut snapshot, begin) = (Snapshot::default(), Instant::now());
        assert!(is_new(&mut snapshot, 2, begin, 1, 20));
        assert!(!is_new(&mut snapshot, 1, begin, 22, 20));
        assert!(is_new(&mut snapshot, 3, begin, 23, 20));
    }

    #[test]
    fn an_answer_is_forgotten_when_something_has_changed() {
        let (mut snapshot, begin) = (Snapshot::default(), Instant::now());
        assert!(is_new(&mut snapshot, 0, begin, 1, 20));
        assert!(is_new(&mut snapshot, 1, begin, 2, 20));
        assert!(!is_new(&mut snapshot, 1, begin, 23, 20));
    }
}
