//! The paravirtual block: three ports by which a guest asks its VMM to sleep, for commands and to end.

mod device;

pub use device::{ControlWord, Paravirt, ParavirtPorts};
