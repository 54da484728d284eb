//! Memory deduplication for microVMs in user space.

pub mod agent;
pub mod bitmap;
mod types;

pub use agent::track::ChangeSource;
pub use types::{LinearIndex, PAGE_SIZE, Slot, VmId};
