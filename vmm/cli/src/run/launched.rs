//! What a run has launched.

use std::time::Instant;

use pagefold::{Host, VmHandle};
use pagefold_api::ApiServer;

/// Everything that runs. The host comes last: with it, the VMs end.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) started: Instant,
    pub(super) vms: Vec<VmHandle>,
    #[expect(dead_code, reason = "it serves until it is dropped")]
    pub(super) api: Option<ApiServer>,
    pub(super) host: Host,
}

impl Launched {
    /// Memory of all VMs together, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.vms.iter().map(|vm| vm.config().memory_bytes).sum()
    }
}
