//! Memory that is locked while its VM runs, by the program that the VMM is a part of.
//!
//! The kernel gives every page of a locked private mapping its own memory, those over slots, too, and no
//! change source names them. Such memory is refused when a VM is attached; what is locked later is noticed
//! at the VM's next visit, and is not folded for as long as it is locked.

use super::Agent;
use crate::sys::locks_new_mappings;

/// Whether a VM's memory can be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locking {
    /// It can.
    Unlocked,
    /// It is locked, or what is mapped would be.
    Locked,
}

impl Agent {
    /// Finds out whether all of the process's memory has been locked since the last visit
    /// (`mlockall`), or is not any more. O(pieces).
    pub(super) fn notice_locked(&mut self) {
        let mut pieces = self.space.pieces().iter();
        let is_locked = pieces.any(|piece| self.space.span(piece.linear, 1).is_locked())
            || locks_new_mappings().unwrap_or(false);
        let locking = if is_locked { Locking::Locked } else { Locking::Unlocked };
        if std::mem::replace(&mut self.locking, locking) == locking {
            return;
        }
        if !is_locked {
            log::info!("VM {}: its memory is not locked any more, and is folded again", self.vm);
            return;
        }
        log::warn!(
            "VM {}: its memory was locked (mlockall), so that none of it can be shared; it is \
             folded again when it is unlocked",
            self.vm
        );
        // The kernel has given them memory of their own: it is asked which.
        self.fresh.union_with(&self.shared);
        self.fresh.union_with(&self.zero);
        if let Err(error) = self.store.view.unlock() {
            log::warn!("the store stays locked: {error}");
        }
    }
}
