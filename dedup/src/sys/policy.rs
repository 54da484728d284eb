//! On which NUMA nodes the kernel puts memory.
//!
//! Source: `mbind(2)`, `get_mempolicy(2)`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, ptr};

use super::span::Span;

const MPOL_DEFAULT: libc::c_int = 0;
const MPOL_LOCAL: libc::c_int = 4;
const MPOL_F_ADDR: libc::c_ulong = 1 << 1;

/// Words of a set of nodes: as many as a kernel can be made for.
const WORDS: usize = 1024 / libc::c_ulong::BITS as usize;

/// Whether a policy was ever applied in this process, and so may be in what files are mapped from.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// A policy other than the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    mode: libc::c_int,
    nodes: [libc::c_ulong; WORDS],
}

impl MemoryPolicy {
    /// The kernel reads one bit less than this.
    const MAX_NODE: libc::c_ulong = 1024 + 1;

    /// Memory from node 0, which every machine has, and from no other.
    #[cfg(test)]
    pub(crate) fn node_0() -> Self {
        const MPOL_BIND: libc::c_int = 2;
        let mut nodes = [0; WORDS];
        nodes[0] = 1;
        Self { mode: MPOL_BIND, nodes }
    }

    /// The policy of the mapping at an address; `None` if it is the default, or the kernel has no
    /// NUMA support.
    pub(crate) fn at(host_addr: usize) -> Option<Self> {
        let mut policy = Self { mode: MPOL_DEFAULT, nodes: [0; WORDS] };
        // SAFETY: the kernel writes the mode and as many bits of nodes as there is room for.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut policy.mode,
                policy.nodes.as_mut_ptr(),
                Self::MAX_NODE,
                host_addr,
                MPOL_F_ADDR,
            )
        };
        (result == 0 && policy.mode != MPOL_DEFAULT).then_some(policy)
    }

    /// Has the mappings of a span have this policy; memory that is there stays where it is.
    ///
    /// # Errors
    ///
    /// The kernel's; some of the mappings may have it.
    pub(crate) fn apply(&self, span: Span<'_>) -> io::Result<()> {
        IN_USE.store(true, Ordering::Relaxed);
        bind(span, self.mode, Some(&self.nodes))
    }

    /// Has the mappings of a span have the default policy, and what they are of if that is a file; memory
    /// that is there stays where it is. Nothing is done before any policy was applied in this process.
    ///
    /// # Errors
    ///
    /// As for [`apply`](Self::apply).
    pub(crate) fn reset(span: Span<'_>) -> io::Result<()> {
        if !IN_USE.load(Ordering::Relaxed) {
            return Ok(());
        }
        // The kernel leaves a file's policy as it is where the mapping has the default already.
        bind(span, MPOL_LOCAL, None)?;
        bind(span, MPOL_DEFAULT, None)
    }
}

/// mbind(2).
fn bind(
    span: Span<'_>,
    mode: libc::c_int,
    nodes: Option<&[libc::c_ulong; WORDS]>,
) -> io::Result<()> {
    let count_bits = nodes.map_or(0, |_| MemoryPolicy::MAX_NODE);
    let nodes = nodes.map_or(ptr::null(), |nodes| nodes.as_ptr());
    // SAFETY: the kernel reads the nodes, if there are any; no byte and no access changes.
    let result = unsafe {
        libc::syscall(libc::SYS_mbind, span.start(), span.len_bytes(), mode, nodes, count_bits, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
