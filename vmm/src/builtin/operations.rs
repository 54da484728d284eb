//! Operations on a VM that only the built-in guest answers to.

use std::time::Duration;

use pagefold_guest::params::Params;
use pagefold_guest::ports::Control;

use super::Builtin;
use crate::operation::{Operation, OperationError, WaitError};
use crate::vcpu::Command;
use crate::vm::VmHandle;

impl VmHandle {
    /// What the VM has for the built-in guest, or a flat image in its place; `None` if something else runs in it.
    fn builtin(&self) -> Option<&Builtin> {
        Builtin::of(&*self.vm.extension)
    }

    /// The parameters of the built-in guest; `None` if something else runs in it.
    pub fn params(&self) -> Option<&Params> {
        self.builtin()?.params.as_ref()
    }

    /// Waits until the guest, commanded to rest, has put back what it was changing. Only the built-in guest ever has.
    ///
    /// # Errors
    ///
    /// When it did not within `timeout`, the VM stopped first, or it was never started.
    pub fn wait_resting(&self, timeout: Duration) -> Result<(), WaitError> {
        let builtin = self.builtin();
        let rests = || builtin.is_some_and(|builtin| builtin.reports().resting);
        self.wait_for("resting", timeout, |_| rests().then_some(()))
    }

    /// Commands the built-in guest what to do from now on, and does nothing if that was its last command, or
    /// another guest runs in the VM. It is woken for it if it sleeps. After [`Control::Finish`] it ends by itself.
    ///
    /// # Errors
    ///
    /// When the VM has stopped.
    pub fn set_control(&self, control: Control) -> Result<(), OperationError> {
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or_else(|| self.stopped(Operation::Control))?;
        let Some(builtin) = self.builtin() else { return Ok(()) };
        let register = control.to_register();
        if builtin.control.get() == register {
            return Ok(());
        }
        // Until the guest has seen the change, what it last reported of resting is out of date.
        self.vm.watch.change(|_| builtin.reports().resting = false);
        builtin.control.set(register);
        machine.vcpus.post(Command::Wake);
        Ok(())
    }
}
