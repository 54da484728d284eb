//! What a host is to be.

use super::DedupConfig;

/// What a host is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostConfig {
    /// Whether VMs may together have more memory than the host: folding may make up for it, and if
    /// it does not, the kernel ends whom it likes.
    pub overcommit: bool,
    /// How VMs are folded.
    pub dedup: DedupConfig,
}
