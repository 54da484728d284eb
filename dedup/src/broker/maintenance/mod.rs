//! What is done to slots and nodes besides sharing pages, step by step, when the engine calls for it.

mod compaction;
pub(super) mod dup_joining;
pub(super) mod left_alone;
mod recovery;
