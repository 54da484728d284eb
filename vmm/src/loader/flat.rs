//! A flat image: machine code without a format.

use pagefold_guest::layout::{ENTRY_RSP, IMAGE_GPA, STACK_BOTTOM_GPA, STACK_TOP_GPA};
use vm_memory::{Bytes, GuestAddress};

use super::paging::write_page_tables;
use super::{Argument, Entry, LoadError, Loader, WriteError};
use crate::config::FlatImage;
use crate::memory::{GuestRam, MemoryLayout};

/// Why a flat image could not be loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum FlatError {
    /// It does not fit.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is not a stack for each vCPU.
    #[error("a flat image runs on at most {MAX_VCPUS} vCPUs, and {vcpus} were asked for")]
    Vcpus {
        /// The number requested.
        vcpus: u32,
    },
}

/// A vCPU's stack.
const STACK_BYTES: u64 = 4096;

/// As many stacks as there is room for.
const MAX_VCPUS: u64 = (STACK_TOP_GPA - STACK_BOTTOM_GPA) / STACK_BYTES;

impl Loader for FlatImage {
    /// Whether the code fits is seen when it is written.
    fn check(&self, _layout: MemoryLayout, vcpus: u32) -> Result<(), LoadError> {
        if u64::from(vcpus) > MAX_VCPUS {
            return Err(FlatError::Vcpus { vcpus }.into());
        }
        Ok(())
    }

    fn load(&self, ram: &GuestRam, vcpus: u32, _tsc_khz: u32) -> Result<Vec<Entry>, LoadError> {
        let first = load(ram, self)?;
        let entry = |vcpu| Entry {
            stack: first.stack - vcpu * STACK_BYTES,
            argument: Argument::Rdi(vcpu),
            ..first
        };
        Ok((0..u64::from(vcpus)).map(entry).collect())
    }
}

fn load(ram: &GuestRam, image: &FlatImage) -> Result<Entry, FlatError> {
    let page_tables = write_page_tables(ram)?;
    let instruction = GuestAddress(IMAGE_GPA);
    ram.memory().write_slice(&image.code, instruction).map_err(|source| WriteError {
        what: "flat image",
        address: IMAGE_GPA,
        source,
    })?;
    Ok(Entry {
        instruction,
        stack: ENTRY_RSP,
        page_tables: Some(page_tables),
        argument: Argument::Rdi(0),
        privilege: image.privilege,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Guest, Privilege};

    fn image(len_bytes: usize) -> Guest {
        Guest::Flat(FlatImage { code: vec![0xf4; len_bytes], privilege: Privilege::Kernel })
    }

    #[test]
    fn a_vcpu_begins_at_the_first_byte_of_the_code() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let entry = image(3).loader().load(&ram, 1, 1).unwrap()[0];
        assert_eq!((entry.instruction.0, entry.privilege), (IMAGE_GPA, Privilege::Kernel));
        let mut code = [0; 4];
        ram.memory().read_slice(&mut code, entry.instruction).unwrap();
        assert_eq!(code, [0xf4, 0xf4, 0xf4, 0]);
    }

    #[test]
    fn each_vcpu_has_its_number_and_a_stack_of_its_own() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let vcpus = u32::try_from(MAX_VCPUS).unwrap();
        let guest = image(3);
        let entries = guest.loader().load(&ram, vcpus, 1).unwrap();
        for (number, entry) in (0..).zip(&entries) {
            let argument = Argument::Rdi(number);
            assert_eq!((entry.argument, entry.instruction), (argument, entries[0].instruction));
            assert_eq!(entry.stack, ENTRY_RSP - number * STACK_BYTES);
        }
        assert!(entries.last().unwrap().stack >= STACK_BOTTOM_GPA);
        let layout = MemoryLayout::new(4 << 20).unwrap();
        assert!(guest.loader().check(layout, vcpus).is_ok());
        let error = guest.loader().check(layout, vcpus + 1).unwrap_err().to_string();
        assert!(error.contains("at most 112 vCPUs, and 113 were"), "{error}");
    }

    #[test]
    fn code_that_does_not_fit_is_refused_with_its_place() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let error = image(2 << 20).loader().load(&ram, 1, 1).unwrap_err();
        assert!(
            error.to_string().contains("the flat image to guest memory at 0x100000"),
            "{error}"
        );
    }
}
