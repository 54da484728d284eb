//! vCPUs that end, and the VMs that end with them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;

use event_manager::{EventOps, Events, MutEventSubscriber};
use pagefold_dedup::VmId;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use crate::registry::Registry;
use crate::status::VmState;
use crate::sys::signal::block_in_this_thread;
use crate::vcpu::{Ended, StopReason};
use crate::vm::VmHandle;

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
    /// VMs that are torn down by threads of their own.
    aside: BTreeSet<VmId>,
}

impl VmReaper {
    /// A reaper of `registry`'s VMs, woken by `event`, and what notifies it.
    pub(super) fn new(event: Arc<EventFd>, registry: Arc<Registry>) -> (VcpuExitNotifier, Self) {
        let (ended, announced) = channel();
        let notifier = VcpuExitNotifier { ended, event: Arc::clone(&event) };
        (notifier, Self { event, announced, registry, aside: BTreeSet::new() })
    }

    /// Tears a VM down, or has it torn down: the end of one with disks waits for their requests in flight, which may
    /// take long, and the loop is every VM's.
    fn tear_down(&mut self, vm: &VmHandle, reason: StopReason) {
        if vm.config().guest.disks() == 0 {
            vm.tear_down(reason);
            return;
        }
        let is_there =
            |id: &VmId| self.registry.get(*id).is_some_and(|vm| vm.state() != VmState::Stopped);
        self.aside.retain(is_there);
        // The end of its first vCPU is the VM's.
        if !self.aside.insert(vm.id()) {
            return;
        }
        let (id, end) = (vm.id(), (vm.clone(), reason.clone()));
        let thread = Builder::new().name("vmm-teardown".to_owned()).spawn(move || {
            let (vm, reason) = end;
            if let Err(error) = block_in_this_thread() {
                log::warn!("cannot block signals while VM {id} is torn down: {error}");
            }
            vm.tear_down(reason);
        });
        if let Err(error) = thread {
            log::warn!("no thread tears VM {id} down, so that others wait for its disks: {error}");
            vm.tear_down(reason);
        }
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
        while let Ok((id, reason)) = self.announced.try_recv() {
            // A VM that is not there was never built to the end: its builder cleans up.
            if let Some(vm) = self.registry.get(id) {
                self.tear_down(&vm, reason);
            }
        }
    }
}
