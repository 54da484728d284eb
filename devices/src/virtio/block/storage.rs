//! What a block device stores its sectors in.

use std::io;

use vm_memory::VolatileSlice;

/// Bytes of a sector, whatever the medium has.
pub const SECTOR_BYTES: u64 = 512;

/// Bytes of a disk's identifier.
pub const ID_BYTES: usize = 20;

/// What a block device stores its sectors in. Requests are carried out by several threads at once; the device has
/// checked that they lie within the capacity, and writes nothing to what is read-only.
pub trait Storage: Send + Sync {
    /// Its size in sectors, which stays as it is.
    fn capacity_sectors(&self) -> u64;

    /// Whether it must not be written.
    fn is_readonly(&self) -> bool;

    /// What distinguishes it from others: ASCII, zeroes behind it.
    fn id(&self) -> [u8; ID_BYTES];

    /// Reads from the byte `offset` on into some of the buffers, the first ones first; returns how many bytes, and 0 if
    /// there are none. The buffers are guest memory, and not marked as written.
    ///
    /// # Errors
    ///
    /// The medium's; some bytes may have been written to the buffers. `EFAULT` where the kernel could not write to them
    /// on our behalf: the caller copies then.
    fn read_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Writes some of the buffers from the byte `offset` on, the first ones first; returns how many bytes.
    ///
    /// # Errors
    ///
    /// The medium's; some bytes may have been written. `EFAULT` as for [`read_at`](Self::read_at).
    fn write_at(&self, buffers: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Has everything that was written survive a loss of power.
    ///
    /// # Errors
    ///
    /// The medium's: what was written may be lost.
    fn flush(&self) -> io::Result<()>;

    /// Gives up what is stored in `len_bytes` from the byte `offset` on, which reads as anything afterwards; a medium
    /// that cannot does nothing.
    ///
    /// # Errors
    ///
    /// The medium's.
    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()>;

    /// Has `len_bytes` from the byte `offset` on read as zeroes. With `may_unmap` they may take no space afterwards.
    ///
    /// # Errors
    ///
    /// The medium's; some of them may be zeroes.
    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> io::Result<()>;
}
