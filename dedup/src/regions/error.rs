//! What regions must be like.

use crate::{PAGE_SIZE, Region};

/// Why the regions of a VM cannot be changed as requested. They are as they were.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// A region without pages.
    #[error("region {0:?} has no pages")]
    Empty(Region),
    /// An address is not that of a page.
    #[error("region {0:?} does not begin on a page boundary")]
    Unaligned(Region),
    /// An index or an address would not fit its type.
    #[error("region {0:?} goes beyond the last page that can be numbered")]
    OutOfRange(Region),
    /// The VM has no such pages, or not side by side.
    #[error("the VM has no memory that could be region {0:?}")]
    NoMemory(Region),
    /// One guest-physical address would be two pages.
    #[error("region {region:?} takes guest-physical addresses of {other:?}")]
    GuestOverlap {
        /// The region that was to be added.
        region: Region,
        /// The one that is there.
        other: Region,
    },
    /// There are too many regions.
    #[error("there are as many regions as can be numbered")]
    Full,
    /// A region was named that does not exist.
    #[error("no region begins at guest-physical address {gpa:#x}")]
    NoRegion {
        /// The address.
        gpa: u64,
    },
    /// A part of a split would have no pages.
    #[error("cannot split {page_count} pages off region {region:?}: a part would be empty")]
    BadSplit {
        /// The region.
        region: Region,
        /// How many pages the first part was to have.
        page_count: u32,
    },
}

/// One above the region's last guest-physical address, in bytes.
///
/// # Errors
///
/// What is wrong with the region taken by itself.
pub(super) fn guest_end(region: &Region) -> Result<u64, LayoutError> {
    if region.page_count == 0 {
        return Err(LayoutError::Empty(*region));
    }
    if !region.host_addr.is_multiple_of(PAGE_SIZE) || !region.gpa.is_multiple_of(PAGE_SIZE as u64) {
        return Err(LayoutError::Unaligned(*region));
    }
    let linear = region.linear.0.checked_add(region.page_count);
    let host = region.host_addr.checked_add(region.len_bytes());
    let guest = region.gpa.checked_add(region.len_bytes() as u64);
    match (linear, host, guest) {
        (Some(_), Some(_), Some(end)) => Ok(end),
        _ => Err(LayoutError::OutOfRange(*region)),
    }
}
