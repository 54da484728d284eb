//! What a benchmark notes while its VMs are folded and released.

use std::time::Duration;

use pagefold_dedup::VmId;
use pagefold_dedup::internals::Extent;

/// What a request asks of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// An offer without a twin.
    Wait,
    /// An offer that finds the first of its kind.
    Match,
    /// An offer that finds a slot.
    Join,
    /// `Outcome::Merged`.
    Confirm,
    /// `Outcome::Left`.
    Release,
    /// Bytes handed over.
    Fill,
}

/// Is notified of every request.
pub(crate) trait Record {
    /// A request about `items` pages, one or more, took `time`.
    fn took(&mut self, operation: Operation, items: usize, time: Duration);

    /// The agent of `vm` has confirmed `extent`, which it now has to remember.
    fn mapped(&mut self, _vm: VmId, _extent: Extent) {}
}
