//! The thread of a vCPU.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use kvm_ioctls::VcpuFd;
use pagefold_devices::Buses;

use super::StopReason;
use super::exit::enter;
use super::kick::Kick;
use super::state::{Activity, Command, VcpuState};
use super::step::{Step, next_step};
use crate::sys::memslot::MappedVm;
use crate::sys::signal::consume_kick;

/// Devices and guest output are handled on this stack, nothing deep.
const STACK_BYTES: usize = 256 << 10;

/// A vCPU with its registers set and its devices in place.
#[derive(Debug)]
pub(crate) struct Vcpu {
    // Fields are dropped in this order: the vCPU goes before the memory that it could write.
    pub(crate) fd: VcpuFd,
    pub(crate) buses: Arc<Buses>,
    pub(crate) vm: Arc<MappedVm>,
}

/// Why a vCPU's thread could not be made; there is none.
#[derive(Debug, thiserror::Error)]
pub enum SpawnVcpuError {
    /// The host gives no thread.
    #[error("cannot start the thread {name}: see the limit on processes (ulimit -u)")]
    Thread {
        /// Its name.
        name: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Its signals could not be set up.
    #[error("cannot set the signal mask of the vCPU")]
    SignalMask(#[source] io::Error),
}

/// What is called, on the vCPU's thread, when it is done.
pub(crate) type Ended = Box<dyn FnOnce(StopReason) + Send>;

struct Order {
    command: Command,
    /// Notified when the thread has done it, which for all but `Run` means that it is out of the guest.
    done: Option<SyncSender<()>>,
}

/// A vCPU's thread, waiting for commands at first. Dropping it stops and joins the thread.
#[derive(Debug)]
pub(crate) struct VcpuHandle {
    orders: Sender<Order>,
    kick: Arc<Kick>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuHandle {
    /// Gives `command`; what is returned is notified when it is done, or is closed if the thread has ended
    /// and did not.
    pub(crate) fn begin(&self, command: Command) -> Receiver<()> {
        let (done, is_done) = sync_channel(1);
        self.give(Order { command, done: Some(done) });
        is_done
    }

    /// Gives `command` and does not wait.
    pub(crate) fn post(&self, command: Command) {
        self.give(Order { command, done: None });
    }

    fn give(&self, order: Order) {
        // The order before the kick: whoever consumes the kick finds the order.
        if self.orders.send(order).is_ok() {
            self.kick.kick();
        }
    }
}

impl Drop for VcpuHandle {
    fn drop(&mut self) {
        self.post(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

impl Vcpu {
    /// Starts a thread called `name` that runs the vCPU when commanded to, and calls `ended` at its end.
    pub(crate) fn spawn(self, name: String, ended: Ended) -> Result<VcpuHandle, SpawnVcpuError> {
        let (orders, received) = channel();
        let (armed, is_armed) = sync_channel(1);
        let kick = Arc::new(Kick::default());
        let mut handle = VcpuHandle { orders, kick: Arc::clone(&kick), thread: None };
        let body = move || {
            let result = kick.arm(&self.fd);
            let is_ok = result.is_ok();
            // Whoever waits for this does not stop waiting.
            let _ = armed.send(result);
            if is_ok {
                let reason = catch_unwind(AssertUnwindSafe(|| self.run(&received)))
                    .unwrap_or_else(|panic| failed(panic.as_ref()));
                kick.disarm();
                drop(received);
                ended(reason);
            }
        };
        let thread = Builder::new().name(name.clone()).stack_size(STACK_BYTES).spawn(body);
        handle.thread = Some(thread.map_err(|source| SpawnVcpuError::Thread { name, source })?);
        is_armed
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))
            .map_err(SpawnVcpuError::SignalMask)?;
        Ok(handle)
    }

    fn run(mut self, orders: &Receiver<Order>) -> StopReason {
        let run_bytes = self.vm.fd().run_size();
        let mut state = VcpuState::Parked(Activity::Enter);
        loop {
            state = match state {
                VcpuState::Stopped(reason) => return reason,
                VcpuState::Parked(_) => match orders.recv() {
                    Ok(order) => order.execute(state),
                    Err(_) => VcpuState::Stopped(StopReason::Requested),
                },
                VcpuState::Running(Activity::Sleep(end)) => {
                    let left = end.saturating_duration_since(Instant::now());
                    match orders.recv_timeout(left) {
                        Ok(order) => order.execute(state),
                        Err(RecvTimeoutError::Timeout) => VcpuState::Running(Activity::Enter),
                        Err(RecvTimeoutError::Disconnected) => {
                            VcpuState::Stopped(StopReason::Requested)
                        }
                    }
                }
                // A port or memory access just answered is completed by the next entry: a guest
                // that is paused here shows it as not yet executed.
                VcpuState::Running(Activity::Enter) => {
                    match next_step(enter(&mut self.fd, run_bytes), &self.buses) {
                        Step::Attend => attend(state, orders),
                        step => VcpuState::on_step(step, Instant::now()),
                    }
                }
            };
        }
    }
}

/// Takes the kick and then every order that there is. In this order none can be missed: one that
/// comes later brings a kick of its own.
fn attend(mut state: VcpuState, orders: &Receiver<Order>) -> VcpuState {
    consume_kick();
    loop {
        state = match orders.try_recv() {
            Ok(order) => order.execute(state),
            Err(TryRecvError::Empty) => return state,
            Err(TryRecvError::Disconnected) => return VcpuState::Stopped(StopReason::Requested),
        };
    }
}

impl Order {
    fn execute(self, state: VcpuState) -> VcpuState {
        let state = state.on_command(self.command);
        if let Some(done) = self.done {
            // Nothing is sent to a caller that has given up waiting.
            let _ = done.send(());
        }
        state
    }
}

fn failed(panic: &(dyn Any + Send)) -> StopReason {
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned());
    StopReason::VcpuThreadFailed { message }
}
