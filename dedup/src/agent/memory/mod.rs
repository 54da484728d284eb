//! What of a VM's memory may be folded, and where it lies: locks, huge pages, layout and mode.

pub(super) mod huge;
pub(super) mod layout;
pub(super) mod locked;
pub(super) mod mode;
