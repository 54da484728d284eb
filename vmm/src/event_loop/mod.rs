//! The one thread that waits for things to happen: for now, for vCPUs to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use pagefold_dedup::VmId;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::registry::Registry;
use crate::sys::signal::block_in_this_thread;
use crate::vcpu::{Ended, StopReason};

/// Why the event loop could not be started; there is none.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// The host gives no descriptor to be woken through.
    #[error("cannot make an event descriptor: see the limit on open files (ulimit -n)")]
    EventFd(#[source] io::Error),
    /// The host gives no epoll instance.
    #[error("cannot make an event loop: see the limit on open files (ulimit -n)")]
    Epoll(#[source] event_manager::Error),
    /// The host gives no thread.
    #[error("cannot start the event loop's thread: see the limit on processes (ulimit -u)")]
    Thread(#[source] io::Error),
}

type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// The event loop's thread. Dropping it ends and joins the thread.
pub(crate) struct EventLoop {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    exit_notifier: VcpuExitNotifier,
}

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
                && let Err(error) = this.event.write(1)
            {
                // The counter holds 2^64 - 2 ends.
                log::error!("cannot wake the event loop for VM {vm}: {error}");
            }
        })
    }
}

impl EventLoop {
    /// Starts the thread, which tears down the VMs of `registry` as their vCPUs end.
    pub(crate) fn new(registry: Arc<Registry>) -> Result<Self, EventLoopError> {
        let mut manager = EventManager::<Subscriber>::new().map_err(EventLoopError::Epoll)?;
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(EventLoopError::EventFd)?;
        let event = Arc::new(event);
        let (ended, announced) = channel();
        let exit_notifier = VcpuExitNotifier { ended, event: Arc::clone(&event) };
        manager.add_subscriber(Box::new(VmReaper { event, announced, registry }));
        let is_over = Arc::new(AtomicBool::new(false));
        let is_over_seen = Arc::clone(&is_over);
        let thread = std::thread::Builder::new()
            .name("vmm-events".to_owned())
            .spawn(move || {
                if let Err(error) = block_in_this_thread() {
                    // Only where a handler of the program around us runs depends on it.
                    log::warn!("cannot block signals in the event loop: {error}");
                }
                while !is_over_seen.load(Ordering::Acquire) {
                    if let Err(error) = manager.run() {
                        log::error!("the event loop ends: {error}");
                        break;
                    }
                }
            })
            .map_err(EventLoopError::Thread)?;
        Ok(Self { is_over, thread: Some(thread), exit_notifier })
    }

    /// What notifies the loop of the ends of vCPUs.
    pub(crate) fn exit_notifier(&self) -> &VcpuExitNotifier {
        &self.exit_notifier
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // The event manager's own endpoint would be one more descriptor, which programs that are executed
        // inherit.
        if let Err(error) = self.exit_notifier.event.write(1) {
            // Joining would then wait for ever: leave the thread, which holds no VM.
            log::error!("cannot end the event loop: {error}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the event loop's thread panicked");
        }
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("thread", &self.thread).finish_non_exhaustive()
    }
}

/// Tears down VMs of which a vCPU has ended.
struct VmReaper {
    event: Arc<EventFd>,
    announced: Receiver<(VmId, StopReason)>,
    registry: Arc<Registry>,
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
