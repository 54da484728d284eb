//! The VMs of a host, by id.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagefold_dedup::VmId;

use crate::vm::VmHandle;

/// The VMs of a host, those that have stopped among them: their last status stays readable.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: AtomicU32,
    vms: Mutex<BTreeMap<VmId, VmHandle>>,
}

impl Registry {
    /// An id that no VM of this host ever had or will have; `None` when there is none left.
    pub(crate) fn new_id(&self) -> Option<VmId> {
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1))
            .ok()
            .map(VmId)
    }

    pub(crate) fn insert(&self, vm: VmHandle) {
        self.lock().insert(vm.id(), vm);
    }

    pub(crate) fn get(&self, id: VmId) -> Option<VmHandle> {
        self.lock().get(&id).cloned()
    }

    /// Takes out those VMs for which `is_kept` does not hold.
    pub(crate) fn retain(&self, is_kept: impl Fn(&VmHandle) -> bool) {
        // Dropped without the lock: the last handle on a VM may take time to go.
        let _gone: Vec<VmHandle> = {
            let mut vms = self.lock();
            vms.extract_if(.., |_, vm| !is_kept(vm)).map(|(_, vm)| vm).collect()
        };
    }

    /// All VMs, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<VmHandle> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, VmHandle>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
