//! vCPUs that end, and the VMs that end with them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use event_manager::{EventOps, Events, MutEventSubscriber};
use pagefold_dedup::VmId;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use crate::registry::Registry;
use crate::vcpu::{Ended, StopReason};

/// Notifies the event loop of vCPUs that have ended. One descriptor serves all VMs.
#[derive(Debug, Clone)]
pub(crate) struct VcpuExitNotifier {
    ended: Sender<(VmId, StopReason)>,
    event: Arc<EventFd>,
}

impl VcpuExitNotifier {
    /// What a vCPU of `vm` calls at its end.
    pub(crate) fn of(&self, vm: VmId) -> Ended {
        let this = self.clone();
        Box::new(move |reason| {
            // Without a receiver the loop, and so the host with all its VMs, is gone.
            if this.ended.send((vm, reason)).is_ok()
                && let Err(error) = this.wake()
            {
                // The counter holds 2^64 - 2 ends.
                log::error!("cannot wake the event loop for VM {vm}: {error}");
            }
        })
    }

    /// Has the loop look around.
    pub(super) fn wake(&self) -> io::Result<()> {
        self.event.write(1)
    }
}

/// Tears down VMs of which a vCPU has ended.
pub(super) struct VmReaper {
    event: Arc<EventFd>,
    announced: Receiver<(VmId, StopReason)>,
    registry: Arc<Registry>,
}

impl VmReaper {
    /// A reaper of `registry`'s VMs, woken by `event`, and what notifies it.
    pub(super) fn new(event: Arc<EventFd>, registry: Arc<Registry>) -> (VcpuExitNotifier, Self) {
        let (ended, announced) = channel();
        let notifier = VcpuExitNotifier { ended, event: Arc::clone(&event) };
        (notifier, Self { event, announced, registry })
    }
}

impl MutEventSubscriber for VmReaper {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&*self.event, EventSet::IN)) {
            log::error!("cannot wait for the ends of VMs: {error}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        // The counter before the queue: an end announced from here on raises the counter again.
        if let Err(error) = self.event.read()
            && error.kind() != io::ErrorKind::WouldBlock
        {
            log::error!("cannot read the event descriptor: {error}");
        }
        for (id, reason) in self.announced.try_iter() {
            // A VM that is not there was never built to the end: its builder cleans up.
            if let Some(vm) = self.registry.get(id) {
                vm.tear_down(reason);
            }
        }
    }
}
