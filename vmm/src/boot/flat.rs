//! A flat image: machine code without a format.

use pagefold_guest::layout::{ENTRY_RSP, IMAGE_GPA};
use vm_memory::{Bytes, GuestAddress};

use super::paging::write_page_tables;
use super::{Entry, WriteError};
use crate::config::FlatImage;
use crate::memory::GuestRam;

/// Why a flat image could not be loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct FlatError(#[from] WriteError);

/// Loads `image` into memory that is still zero.
pub(crate) fn load_flat(ram: &GuestRam, image: &FlatImage) -> Result<Entry, FlatError> {
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
