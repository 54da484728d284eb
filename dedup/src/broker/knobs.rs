//! What can be changed of a broker while it works.

use super::{LocalBroker, MIN_PAGE_SHARING};

/// Why `max_page_sharing` was not changed. It is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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

impl LocalBroker {
    /// How many pages may share a slot.
    pub fn max_page_sharing(&self) -> u32 {
        self.stable.max_page_sharing()
    }

    /// Nodes that are shared or about to be: those that keep the knobs from being changed.
    pub fn count_nodes(&self) -> usize {
        self.stable.count_nodes()
    }

    /// Has at most `limit` pages share a slot from now on. O(1).
    ///
    /// # Errors
    ///
    /// When that is fewer than two, or anything is shared or about to be; nothing has changed.
    pub fn set_max_page_sharing(&mut self, limit: u32) -> Result<(), MaxPageSharingError> {
        if limit == self.max_page_sharing() {
            return Ok(());
        }
        if limit < MIN_PAGE_SHARING {
            return Err(MaxPageSharingError::TooSmall(limit));
        }
        if self.count_nodes() > 0 {
            return Err(MaxPageSharingError::Busy { slots: self.count_nodes() });
        }
        self.stable.set_max_page_sharing(limit);
        Ok(())
    }
}
