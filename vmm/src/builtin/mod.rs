//! The built-in guest, as its VMM knows it: its parameters, its reports, and the devices through which
//! they pass. Nothing else of the VMM knows of its workload. A flat image has the same devices, and may
//! report in the same way.
//!
//! | file | what it is |
//! |---|---|
//! | `devices` | its serial port and its paravirtual block |
//! | `reports` | what it has printed so far |
//! | `status` | the same, for people and programs |
//!
//! How it is loaded is in [`loader`](crate::loader); the methods of [`VmHandle`](crate::VmHandle) that only it
//! answers to are in `vm`.

mod devices;
mod reports;
mod status;

use pagefold_devices::ControlWord;
use pagefold_guest::params::Params;
use pagefold_guest::ports::Control;

use crate::config::Guest;
use crate::loader::BuiltinError;

pub(crate) use devices::{devices, output};
pub(crate) use reports::Reports;
pub use status::BuiltinStatus;

/// The VMM's side of the built-in guest, or of a flat image.
#[derive(Debug)]
pub(crate) struct Builtin {
    /// Its parameters; `None` for a flat image, which has none.
    pub(crate) params: Option<Params>,
    /// What its CONTROL register reads.
    pub(crate) control: ControlWord,
}

impl Builtin {
    /// The side of `guest` in a VM with so much memory and a time-stamp counter at `tsc_khz`.
    ///
    /// # Errors
    ///
    /// When the built-in guest does not run in that much memory.
    pub(crate) fn new(
        guest: &Guest,
        memory_bytes: u64,
        tsc_khz: u32,
    ) -> Result<Self, BuiltinError> {
        let params = match guest {
            Guest::Builtin(builtin) => Some(builtin.params(memory_bytes, tsc_khz)?),
            Guest::Flat(_) => None,
        };
        Ok(Self { params, control: ControlWord::new(Control::Run.to_register()) })
    }
}
