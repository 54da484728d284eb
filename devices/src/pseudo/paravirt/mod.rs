//! The paravirtual block: three ports by which a guest and its VMM speak about time and ending.

mod device;

pub use device::{ControlWord, Paravirt, ParavirtPorts};
