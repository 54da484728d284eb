//! Requests in devices' queues: a driver announces them, and KVM raises an event.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use event_manager::{EventOps, Events, MutEventSubscriber};
use pagefold_dedup::VmId;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

/// The data of the event by which the loop learns of changes; queues have numbers from 1 on.
const CHANGES: u32 = 0;

/// A queue, as the loop has it.
pub(crate) struct QueueEvent {
    /// Raised when its driver announces requests.
    pub(crate) event: Arc<EventFd>,
    /// Carries requests out, and returns whether there may be more.
    pub(crate) process: Box<dyn FnMut() -> bool + Send>,
}

enum Change {
    Add(VmId, Vec<QueueEvent>),
    Remove(VmId),
}

/// Has the event loop wait for requests.
#[derive(Clone)]
pub(crate) struct QueueEvents {
    changes: Sender<Change>,
    event: Arc<EventFd>,
}

/// The queues of a VM, which the loop waits for until this is dropped.
#[derive(Debug)]
pub(crate) struct RegisteredQueues {
    vm: VmId,
    events: QueueEvents,
}

impl QueueEvents {
    /// Has the loop wait for the requests of the queues of `vm`, from some time soon.
    pub(crate) fn register(&self, vm: VmId, queues: Vec<QueueEvent>) -> RegisteredQueues {
        self.send(Change::Add(vm, queues));
        RegisteredQueues { vm, events: self.clone() }
    }

    fn send(&self, change: Change) {
        // Without a receiver the loop, and so the host with all its VMs, is gone.
        if self.changes.send(change).is_ok()
            && let Err(error) = self.event.write(1)
        {
            // The counter holds 2^64 - 2 changes.
            log::error!("cannot wake the event loop for a device: {error}");
        }
    }
}

impl Drop for RegisteredQueues {
    fn drop(&mut self) {
        self.events.send(Change::Remove(self.vm));
    }
}

impl fmt::Debug for QueueEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueEvents").finish_non_exhaustive()
    }
}

/// Carries out what drivers request.
pub(super) struct QueueSubscriber {
    event: Arc<EventFd>,
    changes: Receiver<Change>,
    /// By the data of their events.
    queues: BTreeMap<u32, (VmId, QueueEvent)>,
    next: u32,
}

impl QueueSubscriber {
    /// A subscriber whose changes `event` announces, and what makes them.
    pub(super) fn new(event: Arc<EventFd>) -> (QueueEvents, Self) {
        let (sender, changes) = channel();
        let events = QueueEvents { changes: sender, event: Arc::clone(&event) };
        (events, Self { event, changes, queues: BTreeMap::new(), next: CHANGES + 1 })
    }

    fn apply_changes(&mut self, ops: &mut EventOps) {
        read(&self.event);
        while let Ok(change) = self.changes.try_recv() {
            match change {
                Change::Add(vm, queues) => {
                    for queue in queues {
                        self.add(vm, queue, ops);
                    }
                }
                Change::Remove(vm) => {
                    for (data, (_, queue)) in self.queues.extract_if(.., |_, (of, _)| *of == vm) {
                        let events = Events::with_data(&*queue.event, data, EventSet::IN);
                        if let Err(error) = ops.remove(events) {
                            log::error!("cannot stop waiting for requests in VM {vm}: {error}");
                        }
                    }
                }
            }
        }
    }

    fn add(&mut self, vm: VmId, queue: QueueEvent, ops: &mut EventOps) {
        let data = self.next;
        self.next = data.checked_add(1).unwrap_or(CHANGES + 1);
        match ops.add(Events::with_data(&*queue.event, data, EventSet::IN)) {
            Ok(()) => drop(self.queues.insert(data, (vm, queue))),
            Err(error) => log::error!("cannot wait for requests in VM {vm}: {error}"),
        }
    }
}

impl MutEventSubscriber for QueueSubscriber {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::with_data(&*self.event, CHANGES, EventSet::IN)) {
            log::error!("cannot wait for devices: {error}");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.data() == CHANGES {
            self.apply_changes(ops);
            return;
        }
        let Some((vm, queue)) = self.queues.get_mut(&events.data()) else { return };
        // The counter before the queue: what is announced from here on raises the counter again.
        read(&queue.event);
        if (queue.process)()
            && let Err(error) = queue.event.write(1)
        {
            log::error!("cannot go on with the requests of VM {vm}: {error}");
        }
    }
}

fn read(event: &EventFd) {
    if let Err(error) = event.read()
        && error.kind() != io::ErrorKind::WouldBlock
    {
        log::error!("cannot read an event descriptor: {error}");
    }
}
