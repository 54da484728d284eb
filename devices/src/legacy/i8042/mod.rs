//! A keyboard controller without a keyboard: what is left of it is the line that resets the machine.
//!
//! | file | what it is |
//! |---|---|
//! | `device` | its ports, as the guest sees them |

mod device;

pub use device::{I8042, I8042_PORTS};
