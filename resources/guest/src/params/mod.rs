//! The parameter page: how the VMM passes a guest its workload.
//!
//! The page starts with [`MAGIC`], [`VERSION`] and the fields of [`Params`] in order, little-endian;
//! the rest is zero.

mod codec;
mod error;

pub use codec::{MAGIC, VERSION};
pub use error::ParamsError;

/// Bytes of the encoded form.
pub const PARAMS_BYTES: usize = 4096;

/// What a guest is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Guests with the same seed have the same common pages.
    pub seed: u64,
    /// Memory of the VM, in bytes.
    pub memory_bytes: u64,
    /// Which VM of its group this is: decides its own pages, and where every page lies.
    pub vm_number: u32,
    /// Frequency of the guest's time-stamp counter.
    pub tsc_khz: u32,
    /// Pages whose content is the same in every VM of the group.
    pub common_pages: u32,
    /// Pages whose content no other page of any VM has.
    pub own_pages: u32,
    /// Pages of zeroes.
    pub zero_pages: u32,
    /// Own pages rewritten with new content each second.
    pub churn_new_per_s: u32,
    /// Common and zero pages written each second, and written back 0.3 to 1 s later.
    pub churn_back_per_s: u32,
    /// Pages verified each second.
    pub verify_per_s: u32,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
}

impl Params {
    /// Pages a perfect fold of `vm_count` guests with these counts saves: one copy of each common
    /// page is left, and no zero page.
    pub fn ideal_saved_pages(&self, vm_count: u64) -> u64 {
        u64::from(self.common_pages) * vm_count.saturating_sub(1)
            + u64::from(self.zero_pages) * vm_count
    }

    /// All pages of the workload.
    pub fn pages(&self) -> u64 {
        u64::from(self.common_pages) + u64::from(self.own_pages) + u64::from(self.zero_pages)
    }
}

#[cfg(test)]
mod tests;
