//! The built-in guest: its image, its page tables and its parameter page.

use pagefold_guest::layout::{ENTRY_RSP, MAX_MEMORY_BYTES, MemorySizeError, PARAMS_GPA, heap};
use pagefold_guest::params::Params;
use vm_memory::{Bytes, GuestAddress};

use super::image::load_elf;
use super::paging::write_page_tables;
use super::{Argument, Entry, LoadError, LoadImageError, Loader, WriteError};
use crate::config::{BuiltinGuest, Privilege};
use crate::memory::{GuestRam, MemoryLayout};

/// The built-in guest's program, an ELF executable.
pub static BUILTIN_IMAGE: &[u8] = include_bytes!(env!("PAGEFOLD_GUEST_IMAGE"));

/// Why the built-in guest could not be loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// It does not run in that much memory.
    #[error(transparent)]
    MemorySize(#[from] MemorySizeError),
    /// It could not use all of the memory.
    #[error(
        "the built-in guest can have at most {} MiB of memory, and {} MiB was asked for: its page \
         tables end at 3 GiB, and it could not use what lies above 4 GiB",
        MAX_MEMORY_BYTES >> 20, memory_bytes >> 20
    )]
    AboveTheHole {
        /// The size requested.
        memory_bytes: u64,
    },
    /// It does not run on that many vCPUs.
    #[error("the built-in guest runs on one vCPU, and {vcpus} were asked for: use more VMs")]
    Vcpus {
        /// The number requested.
        vcpus: u32,
    },
    /// Its program does not load.
    #[error("cannot load the built-in guest")]
    Image(#[from] LoadImageError),
    /// Its page tables or parameters do not fit.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl BuiltinGuest {
    /// Its parameters in a VM with so much memory and a time-stamp counter at `tsc_khz`.
    ///
    /// # Errors
    ///
    /// When it does not run in that much memory.
    pub(crate) fn params(
        &self,
        memory_bytes: u64,
        tsc_khz: u32,
    ) -> Result<Params, MemorySizeError> {
        self.preset.params(self.seed, self.vm_number, memory_bytes, tsc_khz)
    }
}

impl Loader for BuiltinGuest {
    fn check(&self, layout: MemoryLayout, vcpus: u32) -> Result<(), LoadError> {
        if vcpus != 1 {
            return Err(BuiltinError::Vcpus { vcpus }.into());
        }
        let memory_bytes = layout.memory_bytes();
        if memory_bytes > MAX_MEMORY_BYTES {
            return Err(BuiltinError::AboveTheHole { memory_bytes }.into());
        }
        heap(memory_bytes).map_err(BuiltinError::from)?;
        Ok(())
    }

    fn load(&self, ram: &GuestRam, _vcpus: u32, tsc_khz: u32) -> Result<Vec<Entry>, LoadError> {
        Ok(vec![load(ram, self, tsc_khz)?])
    }
}

fn load(ram: &GuestRam, guest: &BuiltinGuest, tsc_khz: u32) -> Result<Entry, BuiltinError> {
    let params = guest.params(ram.len_bytes(), tsc_khz)?;
    let instruction = load_elf(ram, BUILTIN_IMAGE)?;
    let page_tables = write_page_tables(ram)?;
    ram.memory()
        .write_slice(&params.encode(), GuestAddress(PARAMS_GPA))
        .map_err(|source| WriteError { what: "parameter page", address: PARAMS_GPA, source })?;
    Ok(Entry {
        instruction,
        stack: ENTRY_RSP,
        page_tables: Some(page_tables),
        argument: Argument::Rdi(PARAMS_GPA),
        privilege: Privilege::User,
    })
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
        let entry = GUEST.load(&ram, 1, 1_000_000).unwrap()[0];
        assert!((IMAGE_GPA..IMAGE_END_GPA).contains(&entry.instruction.0));
        let mut page = [0; PARAMS_BYTES];
        ram.memory().read_slice(&mut page, GuestAddress(PARAMS_GPA)).unwrap();
        let params = Params::decode(&page).unwrap();
        assert_eq!(Ok(params), GUEST.params(8 << 20, 1_000_000));
        assert_eq!((params.seed, params.vm_number, params.memory_bytes), (9, 3, 8 << 20));
    }

    #[test]
    fn more_than_one_vcpu_is_refused_with_the_number() {
        let layout = MemoryLayout::new(8 << 20).unwrap();
        for vcpus in [0, 2, 64] {
            let error = GUEST.check(layout, vcpus).unwrap_err().to_string();
            assert!(error.contains(&format!("one vCPU, and {vcpus} were")), "{error}");
        }
        assert!(GUEST.check(layout, 1).is_ok());
    }

    #[test]
    fn memory_the_guest_does_not_run_in_is_refused() {
        let check = |memory_bytes| GUEST.check(MemoryLayout::new(memory_bytes).unwrap(), 1);
        for memory_bytes in [1 << 20, MAX_MEMORY_BYTES + 4096, 1 << 40] {
            assert!(check(memory_bytes).is_err(), "{memory_bytes}");
        }
        assert!(check(MAX_MEMORY_BYTES).is_ok());
        let ram = GuestRam::new(1 << 20).unwrap();
        let error = GUEST.load(&ram, 1, 1_000_000).unwrap_err();
        assert!(matches!(error, LoadError::Builtin(BuiltinError::MemorySize(_))), "{error}");
    }
}
