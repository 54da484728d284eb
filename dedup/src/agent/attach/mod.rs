//! What is needed of a VM's memory, its process and its store before any page is folded.

pub(super) mod policies;
pub(super) mod prepared;
pub(super) mod process;
pub(super) mod store;
