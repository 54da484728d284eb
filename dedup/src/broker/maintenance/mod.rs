//! What is done to slots and nodes besides sharing pages, step by step, when the engine asks for it.

mod compaction;
pub(super) mod left_alone;
pub(super) mod pruning;
mod recovery;
