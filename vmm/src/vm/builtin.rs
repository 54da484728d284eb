//! Operations on the built-in guest.

use std::time::Duration;

use pagefold_guest::params::Params;
use pagefold_guest::ports::Control;

use super::VmHandle;
use crate::operation::{Operation, OperationError, WaitError};
use crate::vcpu::Command;

impl VmHandle {
    /// The parameters of the built-in guest; `None` if something else runs in it.
    pub fn params(&self) -> Option<&Params> {
        self.vm.builtin.as_ref().map(|builtin| &builtin.params)
    }

    /// Waits until the guest, commanded to rest, has put back what it was changing.
    ///
    /// # Errors
    ///
    /// When it did not within `timeout`, the VM stopped first, or it was never started.
    pub fn wait_resting(&self, timeout: Duration) -> Result<(), WaitError> {
        self.wait_for("resting", timeout, |watched| watched.reports.resting.then_some(()))
    }

    /// Commands the built-in guest what to do from now on, and does nothing if that was its last command. It
    /// is woken for it if it sleeps. After [`Control::Finish`] it ends by itself.
    ///
    /// # Errors
    ///
    /// When the VM has stopped.
    pub fn set_control(&self, control: Control) -> Result<(), OperationError> {
        let machine = self.vm.machine();
        let machine = machine.as_ref().ok_or_else(|| self.stopped(Operation::Control))?;
        let word = &self.vm.control;
        let register = control.to_register();
        if word.get() == register {
            return Ok(());
        }
        // Until the guest has seen the change, what it last reported of resting is out of date.
        self.vm.watch.change(|watched| watched.reports.resting = false);
        word.set(register);
        machine.vcpus.post(Command::Wake);
        Ok(())
    }
}
