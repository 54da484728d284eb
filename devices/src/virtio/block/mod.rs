//! The block device: a disk of sectors.
//!
//! | file | what it is |
//! |---|---|
//! | `storage` | what it stores its sectors in |
//! | `image` | a file, or a block device of the host's |
//! | `config` | what a driver is offered, and reads of the disk |
//! | `request` | a request, as its driver has put it into memory |
//! | `buffers` | its buffers, and what is moved between them and the disk |
//! | `execution` | requests carried out |
//! | `flight` | requests between the queue and the threads that carry them out |
//! | `device` | requests taken off the queue, and handed back |
//! | `metrics` | what it has done |
//!
//! Whoever processes the queue, the event loop, takes requests and hands them back, and waits for nothing. Threads
//! that all disks of a host have together ([`WorkerPool`](crate::WorkerPool)) carry them out, a few of each disk at a
//! time, and in any order: what is done has the loop process the queue again. Guest memory is read and written through
//! the mapping that the VMM has, by calls that pin no page (`preadv`, `pwritev`), so that folding may replace pages at any time.
//!
//! A device that is paused, reset or ended begins no request. Whoever has that done waits for those in the works
//! (`InFlight`), without the transport's lock. What was taken and not begun is carried out after a pause, and never
//! after a reset, which also gives up long requests half way.
//!
//! Source: virtio 1.2, section 5.2.

mod buffers;
mod config;
mod device;
mod execution;
mod flight;
mod image;
mod metrics;
mod request;
mod storage;

pub use device::Block;
pub use flight::MAX_RUNNING;
pub use image::{OpenImageError, RawImage};
pub use metrics::{BlockCounts, BlockMetrics};
pub use storage::{ID_BYTES, SECTOR_BYTES, Storage};

#[cfg(test)]
mod tests;
