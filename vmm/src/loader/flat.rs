//! A flat image: machine code without a format.

use pagefold_guest::layout::{ENTRY_RSP, IMAGE_GPA};
use vm_memory::{Bytes, GuestAddress};

use super::paging::write_page_tables;
use super::{Entry, LoadError, Loader, WriteError};
use crate::config::FlatImage;
use crate::memory::{GuestRam, MemoryLayout};

/// Why a flat image could not be loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FlatError(#[from] WriteError);

impl Loader for FlatImage {
    /// Whether the code fits is seen when it is written.
    fn check(&self, _layout: MemoryLayout) -> Result<(), LoadError> {
        Ok(())
    }

    fn load(&self, ram: &GuestRam, _tsc_khz: u32) -> Result<Entry, LoadError> {
        Ok(load(ram, self)?)
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
        page_tables,
        argument: 0,
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
        let entry = image(3).loader().load(&ram, 1).unwrap();
        assert_eq!((entry.instruction.0, entry.privilege), (IMAGE_GPA, Privilege::Kernel));
        let mut code = [0; 4];
        ram.memory().read_slice(&mut code, entry.instruction).unwrap();
        assert_eq!(code, [0xf4, 0xf4, 0xf4, 0]);
    }

    #[test]
    fn code_that_does_not_fit_is_refused_with_its_place() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let error = image(2 << 20).loader().load(&ram, 1).unwrap_err();
        assert!(
            error.to_string().contains("the flat image to guest memory at 0x100000"),
            "{error}"
        );
    }
}
