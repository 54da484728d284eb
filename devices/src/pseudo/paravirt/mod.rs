//! The paravirtual block: three ports by which a guest sleeps, reads its VMM's commands, and ends.

mod device;

pub use device::{ControlWord, Paravirt, ParavirtPorts};
