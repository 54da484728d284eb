//! The stable and the unstable tree, and what they are made of.

mod arena;
pub(super) mod contested;
mod linear_hash;
pub(super) mod stable;
pub(super) mod unstable;
