//! Requests carried out.

use std::io;
use std::ops::Deref;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use virtio_queue::DescriptorChain;
use vm_memory::GuestMemory;

use super::metrics::{BlockMetrics, count};
use super::request::{Bytes, Request, Status, parse};
use super::storage::{SECTOR_BYTES, Storage};
use crate::DeviceMemory;

/// Ranges of one request for discards at most, and sectors of each.
pub(super) const MAX_DISCARD_RANGES: u32 = 16;
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 22;

/// The same of requests for zeroes: as many as can be written in a moment where there is no faster way.
pub(super) const MAX_ZEROES_RANGES: u32 = 1;
pub(super) const MAX_ZEROES_SECTORS: u32 = 1 << 16;

/// Bytes of a range.
const RANGE_BYTES: usize = 16;

/// A disk, as its driver has agreed to use it.
pub(super) struct Disk<'storage> {
    pub(super) storage: &'storage dyn Storage,
    /// Whether nothing that is written waits for a flush.
    pub(super) is_write_through: bool,
    /// Whether anybody waits for what comes of a request: asked again and again, as one may take long.
    pub(super) is_wanted: &'storage dyn Fn() -> bool,
    pub(super) metrics: &'storage BlockMetrics,
}

/// Why a request was not carried out.
#[derive(Debug)]
enum Refusal {
    /// It makes no sense.
    Malformed,
    /// There is no such request.
    Unsupported,
    /// The medium fails.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Disk<'_> {
    /// Carries a request out, and returns how many bytes of its buffers were written, from the first one on.
    pub(super) fn carry_out<M: DeviceMemory, T>(&self, chain: DescriptorChain<T>, memory: &M) -> u32
    where
        T: Deref,
        T::Target: GuestMemory,
    {
        let (status, request) = parse(chain, memory);
        let (result, fillable, unfilled) = match request {
            Ok(mut request) => {
                let fillable = request.filled.len();
                let result = self.try_to(&mut request);
                (result, fillable, request.filled.len())
            }
            // What there is to be filled is not known, and nothing is.
            Err(_) => (Err(Refusal::Malformed), 1, 1),
        };
        if matches!(result, Err(Refusal::Io(_))) && !(self.is_wanted)() {
            // Given up: that is no failure, and nobody reads the status.
            return 0;
        }
        let value = match result {
            Ok(()) => Status::Done,
            Err(Refusal::Malformed) => Status::Failed,
            Err(Refusal::Unsupported) => Status::Unsupported,
            Err(Refusal::Io(ref error)) => {
                let failed = self.metrics.counts().failed_requests + 1;
                // A guest can have that happen as often as it likes.
                let level =
                    if failed.is_power_of_two() { log::Level::Warn } else { log::Level::Debug };
                log::log!(level, "request {failed} of a disk that fails: {error}");
                Status::Failed
            }
        };
        match result {
            Ok(()) => {}
            Err(Refusal::Io(_)) => count(&self.metrics.failed_requests, 1),
            Err(_) => count(&self.metrics.refused_requests, 1),
        }
        let Some(status) = status else { return 0 };
        status.copy_from(&[value as u8]);
        let filled = fillable - unfilled;
        // The status is behind what was to be filled.
        let written = if unfilled == 0 { filled + 1 } else { filled };
        u32::try_from(written).unwrap_or(u32::MAX)
    }

    fn try_to<M: DeviceMemory>(&self, request: &mut Request<'_, M>) -> Result<(), Refusal> {
        match request.kind {
            VIRTIO_BLK_T_IN => self.read(request),
            VIRTIO_BLK_T_OUT => self.write(request),
            VIRTIO_BLK_T_FLUSH => {
                self.storage.flush()?;
                count(&self.metrics.flushes, 1);
                Ok(())
            }
            VIRTIO_BLK_T_GET_ID => {
                let id = self.storage.id();
                if request.filled.put(&id) == id.len() { Ok(()) } else { Err(Refusal::Malformed) }
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if self.storage.is_readonly() => {
                Err(Refusal::Unsupported)
            }
            VIRTIO_BLK_T_DISCARD => self.discard::<M>(&mut request.sent),
            VIRTIO_BLK_T_WRITE_ZEROES => self.write_zeroes::<M>(&mut request.sent),
            _ => Err(Refusal::Unsupported),
        }
    }

    fn read<M: DeviceMemory>(&self, request: &mut Request<'_, M>) -> Result<(), Refusal> {
        let bytes = request.filled.len() as u64;
        let offset = self.offset(request.sector, bytes)?;
        request.filled.fill_from(self.storage, offset, self.is_wanted)?;
        count(&self.metrics.reads, 1);
        count(&self.metrics.read_bytes, bytes);
        Ok(())
    }

    fn write<M: DeviceMemory>(&self, request: &mut Request<'_, M>) -> Result<(), Refusal> {
        let bytes = request.sent.len() as u64;
        let offset = self.offset(request.sector, bytes)?;
        if self.storage.is_readonly() {
            return Err(Refusal::Malformed);
        }
        request.sent.write_to(self.storage, offset, self.is_wanted)?;
        self.settle()?;
        count(&self.metrics.writes, 1);
        count(&self.metrics.written_bytes, bytes);
        Ok(())
    }

    fn discard<M: DeviceMemory>(&self, ranges: &mut Bytes<'_, M>) -> Result<(), Refusal> {
        let ranges = self.ranges::<M>(ranges, (MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS), 0)?;
        for (offset, bytes, _) in ranges {
            self.storage.discard(offset, bytes)?;
        }
        self.settle()?;
        count(&self.metrics.discards, 1);
        Ok(())
    }

    fn write_zeroes<M: DeviceMemory>(&self, ranges: &mut Bytes<'_, M>) -> Result<(), Refusal> {
        let unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        let ranges = self.ranges::<M>(ranges, (MAX_ZEROES_RANGES, MAX_ZEROES_SECTORS), unmap)?;
        for (offset, bytes, flags) in ranges {
            self.storage.write_zeroes(offset, bytes, flags & unmap != 0)?;
        }
        self.settle()?;
        count(&self.metrics.zeroes, 1);
        Ok(())
    }

    /// Has what was written survive a loss of power, if the driver never asks for that.
    fn settle(&self) -> io::Result<()> {
        if self.is_write_through { self.storage.flush() } else { Ok(()) }
    }

    /// Where the bytes lie that begin with `sector`, if they are whole sectors of the disk's.
    fn offset(&self, sector: u64, bytes: u64) -> Result<u64, Refusal> {
        let end = sector.checked_add(bytes / SECTOR_BYTES);
        let is_inside = end.is_some_and(|end| end <= self.storage.capacity_sectors());
        if !is_inside || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(Refusal::Malformed);
        }
        // A disk's bytes can be counted.
        Ok(sector * SECTOR_BYTES)
    }

    /// The offsets, lengths in bytes, and flags of ranges that are empty nowhere: all of them make sense, or none is
    /// returned.
    fn ranges<M: DeviceMemory>(
        &self,
        sent: &mut Bytes<'_, M>,
        (max_ranges, max_sectors): (u32, u32),
        known_flags: u32,
    ) -> Result<Vec<(u64, u64, u32)>, Refusal> {
        let bytes = sent.len();
        let count = bytes / RANGE_BYTES;
        let is_allowed = (1..=max_ranges as usize).contains(&count);
        if !is_allowed || !bytes.is_multiple_of(RANGE_BYTES) {
            return Err(Refusal::Malformed);
        }
        let mut ranges = Vec::new();
        for _ in 0..count {
            let mut range = [0; RANGE_BYTES];
            sent.take(&mut range);
            let word =
                |at| u32::from_le_bytes([range[at], range[at + 1], range[at + 2], range[at + 3]]);
            let (sector, sectors, flags) =
                (u64::from(word(4)) << 32 | u64::from(word(0)), word(8), word(12));
            if flags & !known_flags != 0 {
                return Err(Refusal::Unsupported);
            }
            if sectors > max_sectors {
                return Err(Refusal::Malformed);
            }
            let len = u64::from(sectors) * SECTOR_BYTES;
            let offset = self.offset(sector, len)?;
            if len > 0 {
                ranges.push((offset, len, flags));
            }
        }
        Ok(ranges)
    }
}
