//! Making pages sharers of slots, or zero pages: requests, cut into runs, and executed under write
//! protection.

pub(super) mod copy;
pub(super) mod directives;
pub(super) mod execution;
pub(super) mod protocol;
pub(super) mod runs;
pub(super) mod terms;
