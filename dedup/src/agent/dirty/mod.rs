//! Which pages have changed: what change sources name, what a sweep finds, and what is swapped out.

pub(super) mod collection;
pub(super) mod shared_changes;
pub(super) mod swapped;
pub(super) mod sweep;
pub(super) mod tracking;
