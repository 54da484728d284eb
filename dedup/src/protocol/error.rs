//! Why a broker did not carry out a request: plain data, which can be sent to the requester.

use std::io;

use serde::{Deserialize, Serialize};

use crate::{LinearIndex, Slot, VmId};

/// An error of the kernel's, as it can be sent: its number and its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text}")]
pub struct SystemError {
    /// Its number (errno(3)); `None` for one that does not come from the kernel.
    pub os_code: Option<i32>,
    /// Its text as [`io::Error`] prints it.
    pub text: String,
}

impl From<io::Error> for SystemError {
    fn from(error: io::Error) -> Self {
        Self { os_code: error.raw_os_error(), text: error.to_string() }
    }
}

/// Why the broker did not carry out a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum BrokerError {
    /// No such VM is registered.
    #[error("VM {0} is not registered with this broker")]
    UnknownVm(VmId),
    /// The VM is registered already.
    #[error("VM {0} is registered with this broker already")]
    VmExists(VmId),
    /// The index of rmap items is full.
    #[error("no room for {page_count} more pages: the index holds {limit} at most")]
    NoItems {
        /// Pages requested.
        page_count: u32,
        /// The most that the index holds.
        limit: u64,
    },
    /// A message names a page that the VM does not have.
    #[error("VM {vm} has no page {}", linear.0)]
    BadLinearIndex {
        /// The VM.
        vm: VmId,
        /// The page.
        linear: LinearIndex,
    },
    /// A message is about a slot that was not proposed to its sender.
    #[error("slot {} was not proposed to VM {vm}", slot.0)]
    BadSlot {
        /// The VM.
        vm: VmId,
        /// The slot.
        slot: Slot,
    },
    /// A page is reported to cover no slot, and shares one.
    #[error("page {} of VM {vm} shares a slot; it must be reported as left first", linear.0)]
    StillShared {
        /// The VM.
        vm: VmId,
        /// The page.
        linear: LinearIndex,
    },
    /// The bytes of a batch are not whole pages.
    #[error("{0} bytes are not a whole number of pages")]
    BadLength(usize),
    /// The store's file failed.
    #[error("the store's memory failed")]
    Store(#[source] SystemError),
}

impl BrokerError {
    /// Whether the same message would always be refused, because it contradicts the broker's
    /// state: mappings of a VM that is not registered are not counted, and their slots may be reused.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::UnknownVm(_)
                | Self::BadLinearIndex { .. }
                | Self::BadSlot { .. }
                | Self::StillShared { .. }
        )
    }
}

/// Why the broker did not take all outcomes of a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("outcome {done} of the report was refused")]
pub struct ReportError {
    /// How many of the outcomes were taken: all before the first that was not.
    pub done: usize,
    /// Why not that one.
    #[source]
    pub source: BrokerError,
}

/// Why the sharers of a slot are not being moved. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MoveError {
    /// The slot has no bytes to share.
    #[error("slot {} holds nothing", .0.0)]
    Empty(Slot),
    /// Pages are about to join it, or its sharers are being moved already.
    #[error("slot {} is in use by a merge or a move; try again after the next pass", .0.0)]
    Busy(Slot),
    /// There is no other slot to move to.
    #[error("the store is full")]
    Full,
    /// Its bytes are not what they were when it was filled.
    #[error("slot {} has lost its bytes", .0.0)]
    Damaged(Slot),
    /// The store's file failed.
    #[error("the store's memory failed")]
    Store(#[source] SystemError),
}

/// Why `max_page_sharing` was not changed. It is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MaxPageSharingError {
    /// A slot is made for two pages.
    #[error("max_page_sharing is {0}, and at least 2 pages share a slot; 256 is the default")]
    TooSmall(u32),
    /// Slots are in use that were shared under the other limit.
    #[error("{slots} slots are shared under the present max_page_sharing")]
    Busy {
        /// How many.
        slots: usize,
    },
}

/// Why `merge_across_nodes` was not changed. It is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{slots} slots are shared, or pages wait for twins, under the present merge_across_nodes")]
pub struct BusyError {
    /// Slots in use, or about to be.
    pub slots: u64,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct IndexError(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernels_keeps_its_number_and_its_text() {
        let of_kernel = || io::Error::from_raw_os_error(libc::ENOSPC);
        let kept = SystemError::from(of_kernel());
        assert_eq!((kept.os_code, kept.to_string()), (Some(libc::ENOSPC), of_kernel().to_string()));
        let other = SystemError::from(io::Error::other("a short write"));
        assert_eq!((other.os_code, other.to_string()), (None, "a short write".to_owned()));
    }
}
