//! The built-in guest: its image, its page tables and its parameter page.

use pagefold_guest::layout::{ENTRY_RSP, MemorySizeError, PARAMS_GPA};
use pagefold_guest::params::Params;
use vm_memory::{Bytes, GuestAddress};

use super::image::load_elf;
use super::paging::write_page_tables;
use super::{Entry, LoadImageError, WriteError};
use crate::config::{BuiltinGuest, Privilege};
use crate::memory::GuestRam;

/// The built-in guest's program, an ELF executable.
pub static BUILTIN_IMAGE: &[u8] = include_bytes!(env!("PAGEFOLD_GUEST_IMAGE"));

/// Why the built-in guest could not be loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// It does not run in that much memory.
    #[error(transparent)]
    MemorySize(#[from] MemorySizeError),
    /// Its program does not load.
    #[error("cannot load the built-in guest")]
    Image(#[from] LoadImageError),
    /// Its page tables or parameters do not fit.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Loads `guest` into memory that is still zero, and says what it was told; its time-stamp counter
/// will run at `tsc_khz`.
pub(crate) fn load_builtin(
    ram: &GuestRam,
    guest: &BuiltinGuest,
    tsc_khz: u32,
) -> Result<(Entry, Params), BuiltinError> {
    let params = guest.preset.params(guest.seed, guest.vm_number, ram.len_bytes(), tsc_khz)?;
    let instruction = load_elf(ram, BUILTIN_IMAGE)?;
    let page_tables = write_page_tables(ram)?;
    ram.memory()
        .write_slice(&params.encode(), GuestAddress(PARAMS_GPA))
        .map_err(|source| WriteError { what: "parameter page", address: PARAMS_GPA, source })?;
    let entry = Entry {
        instruction,
        stack: ENTRY_RSP,
        page_tables,
        argument: PARAMS_GPA,
        privilege: Privilege::User,
    };
    Ok((entry, params))
}

#[cfg(test)]
mod tests {
    use pagefold_guest::layout::{IMAGE_END_GPA, IMAGE_GPA};
    use pagefold_guest::params::PARAMS_BYTES;
    use pagefold_guest::workload::Preset;

    use super::*;

    const GUEST: BuiltinGuest = BuiltinGuest { preset: Preset::Mix, vm_number: 3, seed: 9 };

    #[test]
    fn a_loaded_guest_finds_its_parameters_and_starts_in_its_image() {
        let ram = GuestRam::new(8 << 20).unwrap();
        let (entry, told) = load_builtin(&ram, &GUEST, 1_000_000).unwrap();
        assert!((IMAGE_GPA..IMAGE_END_GPA).contains(&entry.instruction.0));
        let mut page = [0; PARAMS_BYTES];
        ram.memory().read_slice(&mut page, GuestAddress(PARAMS_GPA)).unwrap();
        let params = Params::decode(&page).unwrap();
        assert_eq!(params, told);
        assert_eq!((params.seed, params.vm_number, params.memory_bytes), (9, 3, 8 << 20));
    }

    #[test]
    fn memory_the_guest_does_not_run_in_is_refused() {
        let ram = GuestRam::new(1 << 20).unwrap();
        let error = load_builtin(&ram, &GUEST, 1_000_000).unwrap_err();
        assert!(matches!(error, BuiltinError::MemorySize(_)), "{error}");
    }
}
