//! The page tables a guest starts on.

use pagefold_guest::page_tables::{CR3, entries};
use vm_memory::{Bytes, GuestAddress};

use super::WriteError;
use crate::memory::GuestRam;

/// Writes the identity map that the built-in guest needs, user-accessible 2 MiB pages, into
/// memory that is still zero, and gives the address of its top table.
pub(super) fn write_page_tables(ram: &GuestRam) -> Result<u64, WriteError> {
    for (address, entry) in entries() {
        ram.memory()
            .write_obj(entry.to_le(), GuestAddress(address))
            .map_err(|source| WriteError { what: "page tables", address, source })?;
    }
    Ok(CR3)
}
