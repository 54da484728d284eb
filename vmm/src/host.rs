//! The host: what VMs of one program share.

use std::sync::Arc;

use pagefold_dedup::VmId;
use pagefold_devices::WorkerPool;

use crate::builder::VmBuilder;
use crate::config::{HostConfig, VmConfig};
use crate::dedup_host::{DedupHost, StartDedupError};
use crate::event_loop::{EventLoop, EventLoopError, QueueEvents, VcpuExitNotifier};
use crate::kvm::{OpenKvm, OpenKvmError};
use crate::memory::{HostMemoryError, HostMemoryPool};
use crate::registry::Registry;
use crate::status::VmState;
use crate::sys::signal::block_in_this_thread;
use crate::vm::VmHandle;

/// Why there is no host; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] OpenKvmError),
    /// There is no folding.
    #[error(transparent)]
    Dedup(#[from] StartDedupError),
    /// There is no event loop.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
}

/// Why a VM was not forgotten; it is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// There is no such VM.
    #[error("there is no VM {0}")]
    NoVm(VmId),
    /// It has not stopped.
    #[error("cannot forget VM {0}: it has not stopped")]
    NotStopped(VmId),
}

/// What VMs of one program share: KVM, the memory there is for them, folding, and the thread that
/// tears them down. Clones are the same host; with the last one its VMs stop.
#[derive(Debug, Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kvm: OpenKvm,
    memory: HostMemoryPool,
    dedup: DedupHost,
    registry: Arc<Registry>,
    event_loop: EventLoop,
    workers: Arc<WorkerPool>,
}

impl Host {
    /// Opens KVM, and starts folding and the event loop.
    ///
    /// # Errors
    ///
    /// When KVM is missing, forbidden or too old, or the host gives no descriptors, threads or
    /// userfaultfd.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let kvm = OpenKvm::new()?;
        let dedup = DedupHost::start(config.dedup)?;
        let registry = Arc::<Registry>::default();
        let event_loop = EventLoop::new(Arc::clone(&registry))?;
        let memory = HostMemoryPool::of_process(config.overcommit);
        let workers = Arc::new(WorkerPool::new(block_signals));
        let shared = Shared { kvm, memory, dedup, registry, event_loop, workers };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Begins a VM.
    pub fn vm(&self, config: VmConfig) -> VmBuilder<'_> {
        VmBuilder::new(self, config)
    }

    /// All VMs that were not [forgotten](Self::forget), those that have stopped among them, in the order
    /// of their ids.
    pub fn vms(&self) -> Vec<VmHandle> {
        self.shared.registry.all()
    }

    /// Forgets a VM that has stopped: a host keeps the last status of each otherwise. Its handles go on
    /// answering, and its id is not used again.
    ///
    /// # Errors
    ///
    /// When there is no such VM, or it has not stopped; it is kept.
    pub fn forget(&self, id: VmId) -> Result<(), ForgetError> {
        let vm = self.get(id).ok_or(ForgetError::NoVm(id))?;
        if vm.state() != VmState::Stopped {
            return Err(ForgetError::NotStopped(id));
        }
        self.shared.registry.retain(|vm| vm.id() != id);
        Ok(())
    }

    /// Forgets every VM that has stopped.
    pub fn forget_stopped(&self) {
        self.shared.registry.retain(|vm| vm.state() != VmState::Stopped);
    }

    /// The VM with this id; `None` if there never was one, or it was forgotten.
    pub fn get(&self, id: VmId) -> Option<VmHandle> {
        self.shared.registry.get(id)
    }

    /// Whether VMs with `memory_bytes` in all could be added: for a caller about to build many, who
    /// would rather build none than half of them.
    ///
    /// # Errors
    ///
    /// When they could not.
    pub fn check_room_for(&self, memory_bytes: u64) -> Result<(), HostMemoryError> {
        self.shared.memory.check_room_for(memory_bytes)
    }

    /// Stops every VM and waits until they have: all at once, and not one after the other.
    pub fn stop_all(&self) {
        self.shared.stop_all();
    }

    /// Who folds.
    pub fn dedup(&self) -> &DedupHost {
        &self.shared.dedup
    }

    pub(crate) fn kvm(&self) -> &OpenKvm {
        &self.shared.kvm
    }

    pub(crate) fn memory(&self) -> &HostMemoryPool {
        &self.shared.memory
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    pub(crate) fn exit_notifier(&self) -> &VcpuExitNotifier {
        self.shared.event_loop.exit_notifier()
    }

    pub(crate) fn workers(&self) -> &Arc<WorkerPool> {
        &self.shared.workers
    }

    pub(crate) fn queue_events(&self) -> &QueueEvents {
        self.shared.event_loop.queue_events()
    }
}

/// What a thread of disks does first.
fn block_signals() {
    if let Err(error) = block_in_this_thread() {
        // Only where a handler of the program around us runs depends on it.
        log::warn!("cannot block signals in a thread of disks: {error}");
    }
}

impl Shared {
    fn stop_all(&self) {
        let vms = self.registry.all();
        vms.iter().for_each(VmHandle::request_stop);
        for vm in vms {
            vm.stop();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop_all();
    }
}
