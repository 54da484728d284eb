//! A VM, as the program that embeds it sees it.

mod folding;
mod listener;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pagefold_dedup::{SharedChanges, VmId};
use pagefold_devices::Buses;

use crate::config::VmConfig;
use crate::dedup_host::DedupHost;
use crate::extension::GuestExtension;
use crate::memory::{GuestRam, MemoryReservation};
use crate::operation::{Operation, OperationError, WaitError};
use crate::pc::{NamedMetrics, VirtioDevices};
use crate::status::{DeviceStatus, VmState, VmStatus};
use crate::vcpu::{Command, StopReason, VcpuThreads};
use crate::watch::{Watch, Watched};
pub use folding::{ExplainError, SetDedupError, SetMergeableError};
pub(crate) use listener::GuestListener;

/// What a VM has until it stops.
#[derive(Debug)]
pub(crate) struct Machine {
    // Fields are dropped in this order: the threads are joined first.
    pub(crate) vcpus: VcpuThreads,
    pub(crate) virtio: VirtioDevices,
    pub(crate) dedup: DedupHost,
    /// What is written to its memory, for all consumers. It keeps KVM's VM open.
    pub(crate) changes: SharedChanges,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) reservation: MemoryReservation,
}

/// A VM. Lock order: `machine`, then whatever a vCPU's thread takes, then the watch, then the extension's.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: VmId,
    pub(crate) config: VmConfig,
    /// What it has for its kind of guest alone.
    pub(crate) extension: Arc<dyn GuestExtension>,
    /// Its devices, and the counters of accesses to none, which outlive the VM's end.
    pub(crate) buses: Arc<Buses>,
    /// The counters of its virtio devices, which outlive these.
    pub(crate) device_metrics: Vec<NamedMetrics>,
    pub(crate) watch: Arc<Watch>,
    /// Held throughout an operation, so that one is done before the next begins.
    pub(crate) machine: Mutex<Option<Machine>>,
}

/// A handle on a VM; clones are the same VM.
///
/// Handles do not keep a VM running: it runs until it ends, is stopped, or its
/// [`Host`](crate::Host) is dropped. Its last status can be read after that.
#[derive(Debug, Clone)]
pub struct VmHandle {
    pub(crate) vm: Arc<Vm>,
}

impl VmHandle {
    /// Its id: from 0 up within its host, never used twice.
    pub fn id(&self) -> VmId {
        self.vm.id
    }

    /// What it was built from.
    pub fn config(&self) -> &VmConfig {
        &self.vm.config
    }

    /// Starts the guest, and does nothing if it runs.
    ///
    /// # Errors
    ///
    /// When the VM is paused or has stopped; it stays so.
    pub fn start(&self) -> Result<(), OperationError> {
        self.run(Operation::Start)
    }

    /// Takes the guest out of execution, and does nothing if it is. It is out when this returns:
    /// not one of its instructions is executed until it is resumed, and no virtio device writes its memory.
    ///
    /// # Errors
    ///
    /// When the VM has not been started or has stopped; it stays so.
    pub fn pause(&self) -> Result<(), OperationError> {
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or_else(|| self.stopped(Operation::Pause))?;
        match self.vm.watch.state() {
            VmState::Running => {
                self.command(machine, Operation::Pause, Command::Pause)?;
                machine.virtio.set_paused(true);
            }
            VmState::Paused => return Ok(()),
            VmState::Created => return Err(self.not_started(Operation::Pause)),
            VmState::Stopped => return Err(self.stopped(Operation::Pause)),
        }
        self.vm.watch.change(|watched| watched.state = VmState::Paused);
        Ok(())
    }

    /// Continues a paused guest where it was, asleep if it slept, and does nothing if it runs.
    ///
    /// # Errors
    ///
    /// When the VM has not been started or has stopped; it stays so.
    pub fn resume(&self) -> Result<(), OperationError> {
        self.run(Operation::Resume)
    }

    /// Stops the VM for good, and does nothing if it has stopped. When this returns its threads have
    /// ended, it is folded no longer, and its memory is given back.
    pub fn stop(&self) -> StopReason {
        self.request_stop();
        self.wait_for_end()
    }

    /// Makes the VM stop, and does not wait until it has.
    pub fn request_stop(&self) {
        if let Some(machine) = self.vm.machine().as_ref() {
            machine.vcpus.post(Command::Stop);
        }
    }

    /// Waits until the VM has stopped, by itself or by command: with `None` it has not within
    /// `timeout`. What holds here of the end is true of [`stop`](Self::stop) too.
    pub fn wait(&self, timeout: Duration) -> Option<StopReason> {
        self.vm.watch.wait(timeout, |watched| watched.stop_reason.clone())
    }

    /// Waits until the guest has reported that it is ready; returns how many milliseconds after its
    /// start that was.
    ///
    /// # Errors
    ///
    /// When it did not within `timeout`, the VM stopped first, or it was never started.
    pub fn wait_ready(&self, timeout: Duration) -> Result<u64, WaitError> {
        self.wait_for("ready", timeout, Watched::ready_ms)
    }

    /// Where it is in its life.
    pub fn state(&self) -> VmState {
        self.vm.watch.state()
    }

    /// Its state and its counters now.
    pub fn status(&self) -> VmStatus {
        let Vm { id, config, extension, watch, buses, device_metrics, .. } = &*self.vm;
        let watched = watch.now();
        let devices = device_metrics
            .iter()
            .map(|(name, metrics)| DeviceStatus { name: name.clone(), counts: metrics.counts() });
        VmStatus {
            id: *id,
            name: config.name.clone(),
            guest: config.guest.to_string(),
            dedup: watched.dedup,
            state: watched.state,
            memory_bytes: config.memory_bytes,
            ready_ms: watched.ready_ms(),
            report: extension.report(),
            unclaimed_ports: buses.ports.unclaimed(),
            unclaimed_mmio: buses.mmio.unclaimed(),
            devices: devices.collect(),
            stop_message: watched.stop_reason.as_ref().map(ToString::to_string),
            clean: watched.stop_reason.as_ref().map(StopReason::is_clean),
            stop_reason: watched.stop_reason,
        }
    }

    /// Its memory; `None` once it has stopped. Whoever holds on to it keeps its addresses, and not its
    /// bytes: when the VM stops, folded memory is discarded and reads as zeroes. What is needed of it
    /// is copied before, while the VM is paused.
    pub fn ram(&self) -> Option<Arc<GuestRam>> {
        self.vm.machine().as_ref().map(|machine| Arc::clone(&machine.ram))
    }

    fn run(&self, operation: Operation) -> Result<(), OperationError> {
        // While there is a machine and its lock is held, nobody else changes the state.
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or_else(|| self.stopped(operation))?;
        match (self.vm.watch.state(), operation) {
            (VmState::Running, _) => return Ok(()),
            (VmState::Stopped, _) => return Err(self.stopped(operation)),
            (VmState::Paused, Operation::Start) => {
                return Err(OperationError::Paused { vm: self.vm.id });
            }
            (VmState::Created, Operation::Resume) => return Err(self.not_started(operation)),
            _ => {}
        }
        // The clock starts, and the state changes, before the guest can report that it is ready.
        let before = self.vm.watch.state();
        self.vm.watch.change(|watched| {
            watched.state = VmState::Running;
            watched.started_at.get_or_insert_with(Instant::now);
        });
        machine.virtio.set_paused(false);
        self.command(machine, operation, Command::Run).inspect_err(|_| {
            machine.virtio.set_paused(before == VmState::Paused);
            self.vm.watch.change(|watched| watched.state = before);
        })?;
        machine.dedup.waker().wake();
        Ok(())
    }

    /// Gives the vCPUs a command and waits until it is done.
    fn command(
        &self,
        machine: &Machine,
        operation: Operation,
        command: Command,
    ) -> Result<(), OperationError> {
        if machine.vcpus.command(command) { Ok(()) } else { Err(self.stopped(operation)) }
    }

    fn wait_for_end(&self) -> StopReason {
        loop {
            if let Some(reason) = self.wait(Duration::MAX) {
                return reason;
            }
        }
    }

    pub(crate) fn wait_for<T>(
        &self,
        awaited: &'static str,
        timeout: Duration,
        seek: impl Fn(&Watched) -> Option<T>,
    ) -> Result<T, WaitError> {
        let vm = self.vm.id;
        let look = |watched: &Watched| match (seek(watched), &watched.stop_reason) {
            (Some(found), _) => Some(Ok(found)),
            (None, Some(reason)) => {
                Some(Err(WaitError::Stopped { vm, awaited, reason: reason.clone() }))
            }
            (None, None) if watched.state == VmState::Created => {
                Some(Err(WaitError::NotStarted { vm, awaited }))
            }
            (None, None) => None,
        };
        let timed_out = WaitError::TimedOut { vm, awaited, timeout };
        self.vm.watch.wait(timeout, look).unwrap_or(Err(timed_out))
    }

    fn not_started(&self, operation: Operation) -> OperationError {
        OperationError::NotStarted { vm: self.vm.id, operation }
    }

    pub(crate) fn stopped(&self, operation: Operation) -> OperationError {
        OperationError::Stopped { vm: self.vm.id, operation }
    }

    /// Gives back everything the VM has, after the first of its vCPUs ended for `reason`; does nothing
    /// after the others. Called by the event loop alone.
    pub(crate) fn tear_down(&self, reason: StopReason) {
        // Not in the condition, where the lock would be held to the end.
        let machine = self.vm.machine().take();
        let Some(Machine { vcpus, virtio, dedup, changes, ram, reservation }) = machine else {
            return;
        };
        // The guest is out for good, and its devices with it, before folding detaches its memory, and that before
        // the memory goes.
        drop(vcpus);
        drop(virtio);
        dedup.detach_and_discard(self.vm.id);
        drop(changes);
        drop(ram);
        drop(reservation);
        log::info!("VM {} has stopped: {reason}", self.vm.id);
        self.vm.watch.change(|watched| {
            watched.state = VmState::Stopped;
            watched.stop_reason.get_or_insert(reason);
        });
    }
}

impl Vm {
    pub(crate) fn machine(&self) -> MutexGuard<'_, Option<Machine>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
