//! The VMM's part of the built-in guest: its parameters, its reports, and the devices through which
//! they pass. Nothing else of the VMM depends on its workload. A flat image has the same devices, and may
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

use pagefold_guest::params::Params;

use crate::config::Guest;
use crate::loader::BuiltinError;

pub(crate) use devices::{devices, output};
pub(crate) use reports::Reports;
pub use status::BuiltinStatus;

/// What is known of the built-in guest alone.
#[derive(Debug)]
pub(crate) struct Builtin {
    /// What is on its parameter page.
    pub(crate) params: Params,
}

impl Builtin {
    /// What is known of `guest` in a VM with so much memory and a time-stamp counter at `tsc_khz`; `None`
    /// if it is another than the built-in guest.
    ///
    /// # Errors
    ///
    /// When the built-in guest does not run in that much memory.
    pub(crate) fn of(
        guest: &Guest,
        memory_bytes: u64,
        tsc_khz: u32,
    ) -> Result<Option<Self>, BuiltinError> {
        match guest {
            Guest::Builtin(builtin) => {
                Ok(Some(Self { params: builtin.params(memory_bytes, tsc_khz)? }))
            }
            Guest::Flat(_) | Guest::Linux(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use pagefold_guest::workload::Preset;

    use super::*;
    use crate::config::{BuiltinGuest, FlatImage, Privilege};

    #[test]
    fn only_the_built_in_guest_has_parameters() {
        let of = |guest| Builtin::of(&guest, 64 << 20, 1_000_000).unwrap();
        let guest = BuiltinGuest { preset: Preset::Mix, vm_number: 3, seed: 1 };
        let params = of(Guest::Builtin(guest)).map(|builtin| builtin.params);
        assert_eq!(params.map(|params| params.memory_bytes), Some(64 << 20));
        let flat = FlatImage { code: vec![0xf4], privilege: Privilege::User };
        assert!(of(Guest::Flat(flat)).is_none());
    }
}
