//! How long the broker took for an item of each kind.

use std::time::Duration;

use crate::population::Operation;

/// The time of requests of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cost {
    pub(crate) items: u64,
    time: Duration,
    /// Nanoseconds an item in each batch.
    batches: Vec<f64>,
}

impl Cost {
    fn add(&mut self, items: usize, time: Duration) {
        self.time += time;
        self.items += items as u64;
        self.batches.push(time.as_nanos() as f64 / items as f64);
    }

    pub(crate) fn ns(&self) -> f64 {
        self.time.as_nanos() as f64 / self.items as f64
    }

    /// What an item takes in half of the batches or more: not in those during which the processor
    /// was somebody else's.
    pub(crate) fn ns_median(&self) -> f64 {
        let mut batches = self.batches.clone();
        batches.sort_unstable_by(f64::total_cmp);
        batches[batches.len() / 2]
    }

    pub(crate) fn millions(&self) -> f64 {
        self.items as f64 / self.time.as_secs_f64() / 1e6
    }
}

/// The time of all requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Costs {
    wait: Cost,
    twin: Cost,
    join: Cost,
    confirm: Cost,
    release: Cost,
    fill: Cost,
}

impl Costs {
    pub(crate) fn add(&mut self, operation: Operation, items: usize, time: Duration) {
        let cost = match operation {
            Operation::Wait => &mut self.wait,
            Operation::Match => &mut self.twin,
            Operation::Join => &mut self.join,
            Operation::Confirm => &mut self.confirm,
            Operation::Release => &mut self.release,
            Operation::Fill => &mut self.fill,
        };
        cost.add(items, time);
    }

    /// Each with its name, as a column is called.
    pub(crate) fn all(&self) -> [(&'static str, &Cost); 6] {
        [
            ("wait", &self.wait),
            ("match", &self.twin),
            ("join", &self.join),
            ("confirm", &self.confirm),
            ("release", &self.release),
            ("fill", &self.fill),
        ]
    }
}
