//! The one thread that waits for things to happen.
//!
//! | file | what it waits for |
//! |---|---|
//! | `vcpu_exits` | vCPUs to end |
//! | `queue_events` | requests in devices' queues |

mod queue_events;
mod vcpu_exits;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::registry::Registry;
use crate::sys::signal::block_in_this_thread;
use queue_events::QueueSubscriber;
pub(crate) use queue_events::{QueueEvent, QueueEvents, RegisteredQueues};
pub(crate) use vcpu_exits::VcpuExitNotifier;
use vcpu_exits::VmReaper;

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
    queue_events: QueueEvents,
}

impl EventLoop {
    /// Starts the thread, which tears down the VMs of `registry` as their vCPUs end.
    pub(crate) fn new(registry: Arc<Registry>) -> Result<Self, EventLoopError> {
        let mut manager = EventManager::<Subscriber>::new().map_err(EventLoopError::Epoll)?;
        let new_event = || {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            event.map(Arc::new).map_err(EventLoopError::EventFd)
        };
        let (exit_notifier, reaper) = VmReaper::new(new_event()?, registry);
        manager.add_subscriber(Box::new(reaper));
        let (queue_events, queues) = QueueSubscriber::new(new_event()?);
        manager.add_subscriber(Box::new(queues));
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
        Ok(Self { is_over, thread: Some(thread), exit_notifier, queue_events })
    }

    /// What notifies the loop of the ends of vCPUs.
    pub(crate) fn exit_notifier(&self) -> &VcpuExitNotifier {
        &self.exit_notifier
    }

    /// What has the loop wait for requests.
    pub(crate) fn queue_events(&self) -> &QueueEvents {
        &self.queue_events
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // The event manager's own endpoint would be one more descriptor, which programs that are executed
        // inherit.
        if let Err(error) = self.exit_notifier.wake() {
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
