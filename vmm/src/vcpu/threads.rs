//! All vCPUs of a VM, commanded as one.

use super::run::VcpuHandle;
use super::state::Command;

/// The threads of a VM's vCPUs, in order. Dropping them stops and joins them all.
#[derive(Debug)]
pub(crate) struct VcpuThreads(Vec<VcpuHandle>);

impl VcpuThreads {
    pub(crate) fn new(vcpus: Vec<VcpuHandle>) -> Self {
        Self(vcpus)
    }

    /// Gives all of them `command` and waits until it is done; `false` if one has ended and did not,
    /// with which its VM ends.
    pub(crate) fn command(&self, command: Command) -> bool {
        // To all of them first: they come out of the guest at the same time.
        let orders: Vec<_> = self.0.iter().map(|vcpu| vcpu.begin(command)).collect();
        let ended_count = orders.iter().filter(|order| order.recv().is_err()).count();
        ended_count == 0
    }

    /// Gives all of them `command` and does not wait.
    pub(crate) fn post(&self, command: Command) {
        self.0.iter().for_each(|vcpu| vcpu.post(command));
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        // Before the first is joined, so that all end at the same time.
        self.post(Command::Stop);
    }
}
