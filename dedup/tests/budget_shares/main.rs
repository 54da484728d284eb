//! What a budget of mappings buys near its limit, and who gets it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

#[path = "../common/mod.rs"]
mod common;
mod left_alone;
mod memory;
mod savings;
mod scattered;
mod shares;
mod topologies;
