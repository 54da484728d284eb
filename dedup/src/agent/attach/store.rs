//! A domain's store as the agents of one process see it.

use std::io;

use crate::sys::{Memfd, StoreView};

/// The read-only descriptor that guests' pages are mapped from, and a view to compare with.
#[derive(Debug)]
pub(crate) struct StoreAccess {
    pub(in crate::agent) memfd: Memfd,
    pub(in crate::agent) view: StoreView,
}

impl StoreAccess {
    /// Begins to map the view of a store of `slot_count` slots.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing is mapped.
    pub(crate) fn new(memfd: Memfd, slot_count: u32) -> io::Result<Self> {
        let view = StoreView::new(&memfd, slot_count)?;
        Ok(Self { memfd, view })
    }
}
