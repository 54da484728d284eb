//! The registers by which a guest turns its machine off, or resets it.
//!
//! | file | what it is |
//! |---|---|
//! | `device` | sleep control, sleep status and reset, as the guest sees them |

mod device;

pub use device::{PowerRegisters, RESET_VALUE, SLEEP_TYPE_OFF};
