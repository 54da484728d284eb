//! A request, as its driver has put it into memory.
//!
//! Source: virtio 1.2, section 5.2.6.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::bitmap::BS;
use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};

use super::buffers::Buffers;
use crate::DeviceMemory;

/// Descriptors of a request at most. A driver that keeps to what is announced to it uses no more.
pub(super) const MAX_DESCRIPTORS: u16 = 256;

/// What a driver finds in the last byte of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Done = 0,
    Failed = 1,
    Unsupported = 2,
}

/// Bytes in memory of type `M`.
pub(super) type Bytes<'memory, M> = Buffers<'memory, BS<'memory, <M as GuestMemory>::Bitmap>>;

/// One byte in it.
pub(super) type Byte<'memory, M> = VolatileSlice<'memory, BS<'memory, <M as GuestMemory>::Bitmap>>;

/// What is requested.
pub(super) struct Request<'memory, M: GuestMemory> {
    /// The kind of request.
    pub(super) kind: u32,
    /// The first sector.
    pub(super) sector: u64,
    /// What the driver sends.
    pub(super) sent: Bytes<'memory, M>,
    /// What is to be filled, without the byte of the status.
    pub(super) filled: Bytes<'memory, M>,
}

/// A request that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a chain of descriptors. Returns where its status belongs, if there is such a byte, and what is requested.
/// O(descriptors), 256 at most.
pub(super) fn parse<M: DeviceMemory, T>(
    chain: DescriptorChain<T>,
    memory: &M,
) -> (Option<Byte<'_, M>>, Result<Request<'_, M>, Malformed>)
where
    T: Deref,
    T::Target: GuestMemory,
{
    let descriptors: Vec<Descriptor> = chain.take(MAX_DESCRIPTORS.into()).collect();
    // It goes on where nothing can be read, in circles, or for too long: nobody knows where it ends.
    if descriptors.last().is_none_or(Descriptor::has_next) {
        return (None, Err(Malformed));
    }
    let status = status(&descriptors, memory);
    let request = if status.is_some() { request(&descriptors, memory) } else { Err(Malformed) };
    (status, request)
}

/// The last byte that may be written.
fn status<'memory, M: DeviceMemory>(
    descriptors: &[Descriptor],
    memory: &'memory M,
) -> Option<Byte<'memory, M>> {
    let is_writable = |one: &&Descriptor| one.is_write_only() && one.len() > 0;
    let last = descriptors.iter().rfind(is_writable)?;
    let address = last.addr().0.checked_add(u64::from(last.len()) - 1)?;
    memory.get_slices(GuestAddress(address), 1, Permissions::Write).ok()?.next()?.ok()
}

fn request<'memory, M: DeviceMemory>(
    descriptors: &[Descriptor],
    memory: &'memory M,
) -> Result<Request<'memory, M>, Malformed> {
    if !descriptors.is_sorted_by_key(Descriptor::is_write_only) {
        return Err(Malformed);
    }
    let (mut sent, mut filled) = (Bytes::<M>::none(), Bytes::<M>::none());
    for one in descriptors {
        let (buffers, access) = if one.is_write_only() {
            (&mut filled, Permissions::Write)
        } else {
            (&mut sent, Permissions::Read)
        };
        // There are no processors here with fewer bits.
        let len = usize::try_from(one.len()).map_err(|_| Malformed)?;
        for slice in memory.get_slices(one.addr(), len, access).map_err(|_| Malformed)? {
            buffers.push(slice.map_err(|_| Malformed)?);
        }
    }
    filled.pop_byte().ok_or(Malformed)?;
    let mut header = [0; 16];
    if !sent.take(&mut header) {
        return Err(Malformed);
    }
    let [kind, _reserved, low, high] =
        [0, 4, 8, 12].map(|at| [header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let [kind, low, high] = [kind, low, high].map(u32::from_le_bytes);
    let sector = u64::from(high) << 32 | u64::from(low);
    Ok(Request { kind, sector, sent, filled })
}
