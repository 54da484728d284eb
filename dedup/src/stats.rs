//! What folding does and what it saves: counters under KSM's names where KSM has one.
//!
//! KSM's are described in the kernel's `Documentation/admin-guide/mm/ksm.rst`.
//!
//! # How they add up
//!
//! Each page of a VM is in one of its `merging_pages`, `zero_pages`, `unshared_pages`,
//! `deferred_pages` and `volatile_pages` at most, as of the VM's last pass. In none of them are:
//!
//! * pages that are not there: those that the guest has not touched or has given up. Before its VM's
//!   first passes such a page is volatile;
//! * pages that are written out to swap and that nothing is known of, which are among the
//!   `swapped_pages`: they are looked at when they have returned;
//! * pages that are not to be folded: those that were opted out, all of a VM whose mode is `off`, and
//!   what is unchanged and not zero of one whose mode is `zero`.
//!
//! So `private_bytes` is, while no page is swapped out, what unshared, deferred and volatile pages
//! and those that are not to be folded take, and those merging and zero pages that were written since
//! the last pass.
//!
//! Over the VMs of a domain, `merging_pages` add up to its `pages_shared + pages_sharing`, and
//! `unshared_pages` to its `pages_unshared`.

use serde::{Deserialize, Serialize};

use crate::knobs::Knobs;

/// Counters that add up over VMs, domains and time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Pages whose bytes were read and fingerprinted.
    pub pages_scanned: u64,
    /// Pages that were unchanged since the last pass and passed over because they keep changing: KSM's
    /// `pages_skipped`.
    pub pages_skipped: u64,
    /// Pages mapped onto a slot.
    pub merges: u64,
    /// Pages whose slot was exchanged for another with the same bytes.
    pub moves: u64,
    /// Pages that went back to the slot they had left, within their old mapping.
    pub remerges: u64,
    /// Pages that left their slot because they were written.
    pub breaks: u64,
    /// Proposed merges that did not happen because the bytes were no longer equal.
    pub declines: u64,
    /// Pages found all zero and given back to the kernel.
    pub zero_discards: u64,
    /// Merges deferred because the budget of mappings was short.
    pub budget_skips: u64,
    /// Pages made private again because no partner was left to share with.
    pub unshares: u64,
    /// Pages made private again because they are not to be folded any more.
    pub unmerges: u64,
    /// Steps that the kernel refused; each was undone and is tried again.
    pub errors: u64,
}

impl Events {
    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Self) {
        self.pages_scanned += other.pages_scanned;
        self.pages_skipped += other.pages_skipped;
        self.merges += other.merges;
        self.moves += other.moves;
        self.remerges += other.remerges;
        self.breaks += other.breaks;
        self.declines += other.declines;
        self.zero_discards += other.zero_discards;
        self.budget_skips += other.budget_skips;
        self.unshares += other.unshares;
        self.unmerges += other.unmerges;
        self.errors += other.errors;
    }
}

/// One VM's part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStats {
    /// The VM.
    pub id: u32,
    /// The domain whose VMs it shares with.
    pub domain: String,
    /// `off`, `zero` or `on`.
    pub mode: String,
    /// Pages of RAM that the VM has.
    pub pages: u64,
    /// Pages mapped onto slots: KSM's `ksm_merging_pages`.
    pub merging_pages: u64,
    /// Pages given back because they were all zero, and still so: KSM's `ksm_zero_pages`.
    pub zero_pages: u64,
    /// Rmap items that take memory: KSM's `ksm_rmap_items`.
    pub rmap_items: u64,
    /// Bytes that the VM's shared and zero pages would take by themselves, less the bytes of its items,
    /// sets and mappings: KSM's `ksm_process_profit`. What is shared counts in full for each VM.
    pub profit: i64,
    /// Pages unchanged since the last pass that are in the trees and share nothing: those without a twin,
    /// and those that are matched and wait for a slot.
    pub unshared_pages: u64,
    /// Pages unchanged since the last pass that have a slot to go to, or are zero, and were deferred
    /// because the budget of mappings is short.
    pub deferred_pages: u64,
    /// Pages written too recently to be looked at.
    pub volatile_pages: u64,
    /// Pages that are written out to swap, whatever is known of them: they are not read in to be
    /// looked at. `None` when the kernel did not report it.
    pub swapped_pages: Option<u64>,
    /// Pages that are still to be given their own memory, because they are not to be folded any more.
    pub unmerging_pages: u64,
    /// Maximal runs of pages on consecutive slots.
    pub extents: u64,
    /// Mappings that the kernel holds for the VM's RAM.
    pub vmas: u64,
    /// Bytes of private memory that the kernel holds for the VM's RAM, slots not included.
    /// `None` when the kernel did not report it.
    pub private_bytes: Option<u64>,
    /// What has happened to its pages.
    pub events: Events,
}

/// One domain's part: its trees and its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainStats {
    /// Its name.
    pub name: String,
    /// Slots in use: KSM's `pages_shared`.
    pub pages_shared: u64,
    /// Pages beyond the first of each slot, which is what is saved: KSM's `pages_sharing`.
    pub pages_sharing: u64,
    /// Pages unchanged since the last pass that are in the trees and share nothing, be it that they wait
    /// for a slot: KSM's `pages_unshared`.
    pub pages_unshared: u64,
    /// Contents with more sharers than one slot may have: KSM's `stable_node_chains`.
    pub stable_node_chains: u64,
    /// Slots of such contents: KSM's `stable_node_dups`.
    pub stable_node_dups: u64,
    /// Bytes that the kernel holds for the store. `None` when the kernel did not report it.
    pub store_bytes: Option<u64>,
    /// Bytes of trees, items, nodes and slot tables.
    pub metadata_bytes: u64,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DedupStats {
    /// Slots in use.
    pub pages_shared: u64,
    /// Pages saved by sharing.
    pub pages_sharing: u64,
    /// Pages unchanged since the last pass that are in the trees and share nothing.
    pub pages_unshared: u64,
    /// Contents with more sharers than one slot may have.
    pub stable_node_chains: u64,
    /// Slots of such contents.
    pub stable_node_dups: u64,
    /// Pages written too recently to be looked at.
    pub pages_volatile: u64,
    /// Pages saved because they are zero.
    pub pages_zero: u64,
    /// What folding is set to.
    pub knobs: Knobs,
    /// Passes over all VMs.
    pub full_scans: u64,
    /// What has happened, with the VMs that are gone.
    #[serde(flatten)]
    pub events: Events,
    /// `pages_sharing + pages_zero`, in bytes: what is saved now. Once no VM is attached that is nothing, and
    /// known to be: 0 is no stand-in here for what had been saved before, of which nobody keeps account.
    pub saved_bytes: u64,
    /// Bytes of this crate's own structures, agents' and brokers'.
    pub metadata_bytes: u64,
    /// Bytes of page tables that only folding needs, at most: those of the stores' views.
    pub page_table_bytes: u64,
    /// Bytes of the kernel's for the mappings that folding makes beyond one for each region of RAM,
    /// about.
    pub vma_bytes: u64,
    /// `saved_bytes` less metadata, mappings, page tables, and slots that nobody shares any more.
    /// Negative where folding costs more than it saves.
    pub general_profit: i64,
    /// Bytes that the kernel holds for guest RAM: private pages and stores. `None` when the kernel
    /// did not report it.
    pub resident_bytes: Option<u64>,
    /// Mappings in use by guest RAM.
    pub vmas_used: u64,
    /// Mappings that guest RAM may use in this process.
    pub vmas_budget: u64,
    /// Processor seconds spent on folding, all threads.
    pub cpu_seconds: f64,
    /// Each domain.
    pub domains: Vec<DomainStats>,
    /// Each VM.
    pub vms: Vec<VmStats>,
}
