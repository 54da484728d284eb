//! The agent: the part that lives with a VM, and the only one that touches guest memory.

pub mod track;
