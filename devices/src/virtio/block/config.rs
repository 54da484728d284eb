//! What a driver is offered, and what it reads of the disk before it uses it.
//!
//! Source: virtio 1.2, sections 5.2.3 and 5.2.4.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::execution::{
    MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_ZEROES_RANGES, MAX_ZEROES_SECTORS,
};
use super::request::MAX_DESCRIPTORS;
use super::storage::{SECTOR_BYTES, Storage};

pub(super) const CONFIG_BYTES: usize = 60;

/// A page of the host's is so many sectors, by their power of 2: writes of such ones need nothing to be read.
const PAGE_EXPONENT: u8 = 3;
const PAGE_SECTORS: u16 = 1 << PAGE_EXPONENT;

/// That nothing that was written waits for a flush, unless the driver accepts this.
pub(super) const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

pub(super) fn features(storage: &dyn Storage) -> u64 {
    let for_all =
        FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_TOPOLOGY;
    if storage.is_readonly() {
        for_all | 1 << VIRTIO_BLK_F_RO
    } else {
        for_all | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
    }
}

/// The configuration, as it lies in the device's registers.
pub(super) fn config(storage: &dyn Storage) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &storage.capacity_sectors().to_le_bytes());
    // Beside a request's data there is its header and its status.
    put(12, &u32::from(MAX_DESCRIPTORS - 2).to_le_bytes());
    put(20, &SECTOR_BYTES.to_le_bytes()[..4]);
    put(24, &[PAGE_EXPONENT]);
    put(26, &PAGE_SECTORS.to_le_bytes());
    if !storage.is_readonly() {
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_RANGES.to_le_bytes());
        put(44, &u32::from(PAGE_SECTORS).to_le_bytes());
        put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
        put(52, &MAX_ZEROES_RANGES.to_le_bytes());
        // Zeroes may take no space.
        put(56, &[1]);
    }
    config
}
