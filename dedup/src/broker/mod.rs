//! The broker: it decides who shares with whom.
//!
//! One broker serves one domain: its trees, its items, its store and its secret. It decides on one thread, over plain
//! data structures (only the bytes of many new slots are hashed on several), and never touches guest memory.
//!
//! What a page goes through, and the files that take it from one state to the next:
//!
//! ```text
//!            offers           offers                directives                             service
//!      Loose -------> Waiting -----------> Proposed ------------> Proposed ---------------------------> Stable
//!       ^ |   no twin         a twin came  Undirected     polled  Creating: directives::fill  reported   |  ^
//!       | |                                                       Joining                                +--+ moves
//!       | |                                                          ^
//!       | +------ a hit in the stable tree, of a filled node --------+
//!       |         (of any other: Undirected)
//!       |
//!       +------ written, given up, unmerged, declined: life_cycle, which frees slots that nobody shares
//! ```
//!
//! | the agent's set | the item here (`rmap::RmapItem`) | `Engine::explain` |
//! |---|---|---|
//! | `dirty` | `Loose` | `Volatile`, or `Skipped` by the smart scan |
//! | `zero` | `Loose` | `Zero` |
//! | `offered` | `Waiting`: on the unstable tree | `NoTwin`, `OtherNode`, `SlotsFull` |
//! | `offered` | `Collided`: its key is that of other bytes, or contested | `NoTwin` |
//! | `offered` | `Proposed`, `Undirected`: on a stable node's list | `Matched`, or `StoreFull` |
//! | `deferred` | `Proposed`, `Undirected`, until another page fills the slot; or `Loose` | `Budget` |
//! | about to be merged | `Proposed`, `Creating` or `Joining` | `Matched` |
//! | `shared` | `Stable` | `Shared`; `Alone` when the others were written; `Broken` until a pass has found that it was |
//!
//! What an agent reports of a page, when it has executed a directive or found the page changed (`protocol::Outcome`):
//!
//! | outcome | what the agent has done or found | what the broker does |
//! |---|---|---|
//! | `Merged` | mapped the page to the slot | makes the item `Stable`, or moves it to the target of its node's move |
//! | `Declined` | did not map it: written, or refused | makes the item loose; if it was to fill the slot, others may |
//! | `Deferred` | did not fill the slot: no VMAs to spare | leaves the item on its node; others may fill a slot |
//! | `DeferredForRetry` | the same, and goes on with the run later | the same, but has the others wait for that |
//! | `Retried` | is about to offer it again, for which there may be VMAs now | keeps its place for it until then |
//! | `Differs` | found other bytes in the slot | makes the item `Collided` with the key of the slot's node |
//! | `Broken` | found that the guest has written it: it has its own copy | makes the item loose, aged by such breaks |
//! | `Left` | made it private or discarded it; or it was written before it shared | makes the item loose |
//! | `Yielded` | made it private, to use its VMAs | makes the item loose; a sharer left alone is made private, too |
//! | `Unbacked` | mapped anonymous memory where the pages covered slots | notes that they cover none |
//!
//! In KSM's terms `Broken` is not `break_cow()`, which makes a page private on purpose: that is `Unshare`. It is the
//! copy-on-write by which a guest leaves a KSM page, and which `ksmd` notices when it comes to the page again.
//!
//! Words that are used throughout, beside those of ARCHITECTURE.md:
//!
//! * A page *covers* a slot, or *lies over* it, while its VM's VMA maps the slot there, whether the page shows the slot's
//!   bytes or, once written, its own copy. The slot is the page's *backing*. An *extent* is a run of pages that cover
//!   consecutive slots: one VMA.
//! * A page *shares* a slot while its item is `Stable`: it covers the slot, and was not reported to be written. A node's
//!   *sharers* are these pages. KSM counts one of them in `pages_shared`, and the others in `pages_sharing`.
//! * A page's *fingerprint* is 64 bits of keyed XXH3, computed by its agent. Its *identity* is 128 bits of keyed BLAKE3,
//!   computed by the broker when the bytes fill a slot, and by the agent where the decision is `Identify`. A *key* is
//!   what an item or a node is found under in a tree: the fingerprint, or, if that is contested (`index::contested`),
//!   64 bits of the identity; with the salt of the VM's NUMA node where these do not share (`admin::knobs`).
#![forbid(unsafe_code)]

mod admin;
mod check;
mod directives;
mod ids;
mod index;
mod life_cycle;
mod maintenance;
mod moves;
mod offers;
mod rmap;
mod service;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use directives::LastCreate;
use directives::poll_queue::PollQueue;
use directives::retries::Retries;
use ids::{ItemId, NodeId};
use index::contested::Contested;
use index::stable::StableTree;
use index::unstable::UnstableTree;
use life_cycle::Move;
use maintenance::dup_joining::JoinCursor;
use maintenance::left_alone::LeftAloneSearch;
use rmap::breaks::Breaks;
use rmap::{ItemRange, Rmap};
use store::Store;

use crate::extents::{Extent, ExtentMap};
#[cfg(any(test, feature = "internals"))]
use crate::fingerprint::Identity;
use crate::fingerprint::Secret;
use crate::protocol::{BrokerError, TRIM_PAGES};
use crate::sys::Memfd;
use crate::workers::Workers;
use crate::{LinearIndex, Slot, VmId};

const _: () = assert!(TRIM_PAGES as usize == rmap::CHUNK_ITEMS);

/// The least that `max_page_sharing` can be: a slot is made for two pages.
const MIN_PAGE_SHARING: u32 = 2;

/// Why a domain could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The limit of sharers makes no sense.
    #[error("max_page_sharing is {0}, and at least 2 pages share a slot; 256 is the default")]
    MaxPageSharing(u32),
    /// The store could hold nothing.
    #[error("the store is to hold 0 pages, and needs at least 1")]
    EmptyStore,
    /// The kernel gave no randomness for the secret.
    #[error("cannot draw a secret for the domain")]
    Secret(#[source] getrandom::Error),
    /// The kernel gave no memory file.
    #[error("cannot make the store's memory file")]
    Store(#[source] io::Error),
}

/// One VM of a domain.
#[derive(Debug)]
struct Member {
    items: ItemRange,
    /// Which pages cover which slots, by the agent's reports.
    extents: ExtentMap,
    /// Pages for which a poll may find directives.
    queue: PollQueue,
    /// Pages whose move to another slot its agent was directed to make, and has not reported on.
    awaiting_ack: BTreeSet<LinearIndex>,
    /// How often which of its pages were broken lately.
    breaks: Breaks,
    /// Items on the unstable tree.
    waiting: u64,
    /// The NUMA node that its memory is on.
    numa_node: u32,
}

impl Member {
    /// The item of a page of this VM.
    fn item(&self, vm: VmId, linear: LinearIndex) -> Result<ItemId, BrokerError> {
        self.items.item(linear).ok_or(BrokerError::BadLinearIndex { vm, linear })
    }
}

/// The trees, items and store of one domain.
#[derive(Debug)]
pub struct LocalBroker {
    secret: Secret,
    /// Threads that hash many pages, if there are any.
    workers: Option<Arc<Workers>>,
    store: Store,
    stable: StableTree,
    unstable: UnstableTree,
    rmap: Rmap,
    members: BTreeMap<VmId, Member>,
    contested: Contested,
    /// Slots that were marked as lost; may list some that were freed since.
    lost: BTreeSet<Slot>,
    /// Nodes whose sharers are being moved to others.
    moves: BTreeMap<NodeId, Move>,
    /// Whether pages on different NUMA nodes may share.
    merge_across_nodes: bool,
    /// Where [`join_dups`](Self::join_dups) goes on.
    join_cursor: JoinCursor,
    /// Where [`unshare_left_alone`](Self::unshare_left_alone) goes on.
    left_alone: LeftAloneSearch,
    /// The slot that [`punch_empty_slots`](Self::punch_empty_slots) goes on from.
    punched: u32,
    /// VMs that may have pages that lack a slot; has every VM that does.
    lacking_vms: BTreeSet<VmId>,
    /// Of the directives that were given last.
    last_create: LastCreate,
    /// Pages of all VMs that their agents have deferred. While it is 0 no lookup is needed for any.
    deferred_count: u64,
    /// What is known of pages that wait for such to be tried again.
    retries: Retries,
    /// Pages that polls have looked at.
    polled_pages: u64,
    /// Passes since the domain was made; which counts of breaks are decremented follows from its value modulo 64.
    passes: u32,
}

impl LocalBroker {
    /// Makes an empty domain whose store holds `slot_count` pages at most, and in which a slot is
    /// shared by `max_page_sharing` pages at most.
    ///
    /// # Errors
    ///
    /// When the store could hold nothing, fewer than two pages may share, which is no sharing, or the
    /// kernel gives no randomness or no memory file; nothing is left behind.
    pub fn new(slot_count: u32, max_page_sharing: u32) -> Result<Self, DomainError> {
        if slot_count == 0 {
            return Err(DomainError::EmptyStore);
        }
        if max_page_sharing < MIN_PAGE_SHARING {
            return Err(DomainError::MaxPageSharing(max_page_sharing));
        }
        Ok(Self {
            secret: Secret::random().map_err(DomainError::Secret)?,
            workers: None,
            store: Store::new(slot_count).map_err(DomainError::Store)?,
            stable: StableTree::new(max_page_sharing),
            unstable: UnstableTree::default(),
            rmap: Rmap::default(),
            members: BTreeMap::new(),
            contested: Contested::default(),
            lost: BTreeSet::new(),
            moves: BTreeMap::new(),
            merge_across_nodes: true,
            join_cursor: JoinCursor::default(),
            left_alone: LeftAloneSearch::default(),
            punched: 0,
            lacking_vms: BTreeSet::new(),
            last_create: LastCreate::default(),
            deferred_count: 0,
            retries: Retries::default(),
            polled_pages: 0,
            passes: 0,
        })
    }

    /// Has many pages be hashed on these threads.
    pub(crate) fn set_workers(&mut self, workers: Arc<Workers>) {
        self.workers = Some(workers);
    }

    /// Makes place for a VM of `page_count` pages. O(pages).
    ///
    /// # Errors
    ///
    /// A VM that is there already, or an index that is full; nothing was done.
    pub fn register(&mut self, vm: VmId, page_count: u32) -> Result<(), BrokerError> {
        if self.members.contains_key(&vm) {
            return Err(BrokerError::VmExists(vm));
        }
        let items = self
            .rmap
            .register(vm, page_count)
            .ok_or(BrokerError::NoItems { page_count, limit: Rmap::LIMIT })?;
        let extents = ExtentMap::default();
        self.members.insert(
            vm,
            Member {
                items,
                extents,
                queue: PollQueue::new(page_count),
                awaiting_ack: BTreeSet::new(),
                breaks: Breaks::default(),
                waiting: 0,
                numa_node: 0,
            },
        );
        Ok(())
    }

    /// Calls a VM by another number, which no other has, if it is registered. O(pages / 4096 + log VMs).
    pub(crate) fn rename(&mut self, vm: VmId, to: VmId) {
        debug_assert!(!self.members.contains_key(&to), "VM {to} is registered");
        if let Some(member) = self.members.remove(&vm) {
            self.rmap.rename(&member.items, to);
            self.stable.proposed.rename(vm, to);
            if self.lacking_vms.remove(&vm) {
                self.lacking_vms.insert(to);
            }
            self.retries.rename(vm, to);
            self.last_create = LastCreate::default();
            self.members.insert(to, member);
        }
    }

    /// The key to the domain's fingerprints, for its agents.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// How many VMs there are.
    pub fn vm_count(&self) -> usize {
        self.members.len()
    }

    /// The identity of the bytes in a slot; `None` when it holds none.
    #[cfg(any(test, feature = "internals"))]
    pub fn identity(&self, slot: Slot) -> Option<Identity> {
        let node = self.stable.node(self.store.slots.node(slot)?);
        node.filled_slot().map(|_| node.identity)
    }

    /// A read-only descriptor of the store, for an agent.
    pub(crate) fn store(&self) -> io::Result<Memfd> {
        self.store.memfd().read_only()
    }

    /// Gives up what is remembered of those of a VM's pages that are in no tree, where all are of
    /// [as many](TRIM_PAGES) of `pages`; returns how many items that took going through.
    pub(crate) fn trim(&mut self, vm: VmId, pages: &Range<u32>) -> usize {
        self.members.get_mut(&vm).map_or(0, |member| {
            // Nothing lies beyond the last page.
            let is_whole = pages.end >= member.items.page_count();
            let pages = pages.start..if is_whole { u32::MAX } else { pages.end };
            member.breaks.forget(&pages);
            self.rmap.trim(&member.items, &pages)
        })
    }

    fn member_mut(&mut self, vm: VmId) -> Result<&mut Member, BrokerError> {
        self.members.get_mut(&vm).ok_or(BrokerError::UnknownVm(vm))
    }

    fn item(&self, vm: VmId, linear: LinearIndex) -> Result<ItemId, BrokerError> {
        let member = self.members.get(&vm).ok_or(BrokerError::UnknownVm(vm))?;
        member.item(vm, linear)
    }

    /// The item of each of these pages of a VM, which is looked up once for all.
    fn items(
        &self,
        vm: VmId,
        pages: impl Iterator<Item = LinearIndex>,
    ) -> Result<impl Iterator<Item = Result<ItemId, BrokerError>>, BrokerError> {
        let member = self.members.get(&vm).ok_or(BrokerError::UnknownVm(vm))?;
        Ok(pages.map(move |linear| member.item(vm, linear)))
    }

    /// Notes that pages of a VM cover slots from now on, or, with no slot, none. O(log extents + pages that cover others
    /// now or covered some before · log runs of quarantined slots).
    fn set_backing(&mut self, vm: VmId, linear: LinearIndex, slot: Option<Slot>, page_count: u32) {
        let Some(member) = self.members.get_mut(&vm) else {
            return;
        };
        let slots = &mut self.store.slots;
        // Counted up first, so that a slot that stays where it was is never quarantined in between.
        if let Some(slot) = slot {
            slots.cover(slot, page_count);
        }
        let removed = |old: Extent| slots.uncover(old.slot, old.page_count);
        match slot {
            Some(slot) => member.extents.insert(Extent { linear, slot, page_count }, removed),
            None => member.extents.remove(linear, page_count, removed),
        }
    }
}
