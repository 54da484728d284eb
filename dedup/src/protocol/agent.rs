//! What an agent and its broker send each other, in batches.
//!
//! No call is made while a guest page is protected.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{BrokerError, ReportError};
use crate::extents::Extent;
use crate::fingerprint::{Fingerprint, Identity};
use crate::page_range::PageRange;
use crate::{LinearIndex, Slot, VmId};

/// A private page that is unchanged since the last pass, for which a place is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The page.
    pub linear: LinearIndex,
    /// Its search key, computed with the domain's secret.
    pub fingerprint: Fingerprint,
}

/// A page for which a place is sought by its identity, as pages of other contents have its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityOffer {
    /// The page.
    pub linear: LinearIndex,
    /// The identity of its bytes, computed with the domain's secret.
    pub identity: Identity,
}

/// The broker's decision about an offered page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// Nothing for now. It has no twin yet, or a directive follows.
    Wait,
    /// Compare it with this slot and map it there.
    Join(Slot),
    /// Offer it once more with [`Broker::offer_by_identity`]: other contents have its fingerprint, too.
    Identify,
    /// Nothing: the broker has no room. The page may be offered again later.
    Keep,
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// These pages equalled the slots under protection and are mapped there now.
    Merged(Extent),
    /// It was to be mapped to the slot and was not, for whatever reason.
    Declined {
        /// The page.
        linear: LinearIndex,
        /// The slot that had been proposed.
        slot: Slot,
    },
    /// It was to fill the slot, and the mapping budget does not allow for that now. Should another page fill
    /// a slot with its content, it can be merged with that, until it leaves or is offered again.
    Deferred {
        /// The page.
        linear: LinearIndex,
        /// The slot that had been proposed.
        slot: Slot,
    },
    /// It was to fill the slot, as a part of a run, and is the rest of it, for which there were no mappings to spare. As
    /// [`Deferred`](Self::Deferred), but its agent is about to go on with the run when it knows what the first part took:
    /// for as long as it does, no other page fills a slot instead.
    DeferredForRetry {
        /// The page.
        linear: LinearIndex,
        /// The slot that had been proposed.
        slot: Slot,
    },
    /// It had been deferred, and its agent is about to offer it again. It keeps its place in the trees until it is, or
    /// until the visits of the pass are over.
    Retried {
        /// The page.
        linear: LinearIndex,
    },
    /// Its bytes are not those of the slot, although its fingerprint, or its identity's first 64 bits, are.
    Differs {
        /// The page.
        linear: LinearIndex,
        /// The slot that had been proposed.
        slot: Slot,
    },
    /// It shared a slot and was written by the guest, so that it has its own copy: a CoW break. (KSM's `break_cow()`,
    /// which makes a page private on purpose, is [`Directive::Unshare`].)
    Broken {
        /// The page.
        linear: LinearIndex,
    },
    /// It is in no tree any more without a CoW break: it was written before it shared a slot, was discarded, or was
    /// made private by its agent.
    Left {
        /// The page.
        linear: LinearIndex,
    },
    /// It was made private by its agent so that its VMAs can be used for others: a page that is left alone with the
    /// slot saves nothing, and is to be made private, too.
    Yielded {
        /// The page.
        linear: LinearIndex,
    },
    /// These pages' mappings have no slot behind them any more.
    Unbacked {
        /// The first page.
        linear: LinearIndex,
        /// How many.
        page_count: u32,
    },
}

/// Partners for whose sides the agent that fills a slot pledges mappings. Those that come after so many save nearly
/// a page for each two mappings, whoever else shares the slot.
pub const MAX_PARTNERS: u32 = 16;

impl Outcome {
    /// That pages' mappings have no slot behind them any more.
    pub(crate) fn unbacked(pages: &Range<LinearIndex>) -> Self {
        Self::Unbacked { linear: pages.start, page_count: pages.page_count() }
    }
}

/// What is to be done with a page that was not offered just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Directive {
    /// A twin of the waiting page was found, and this is the first that is to share: fill this new
    /// slot with its bytes, then as for `Merge`.
    Create {
        /// The page.
        linear: LinearIndex,
        /// The slot.
        slot: Slot,
        /// How many other pages are to share the slot, up to [`MAX_PARTNERS`], at least 1.
        partners: u32,
        /// How many of them do not follow right on a partner of the `Create` before, with this page right
        /// after that one's, so that their sides need mappings of their own for it.
        apart: u32,
    },
    /// A twin of the waiting page was found, or what it shares is being moved: compare it with this
    /// slot and map it there.
    Merge {
        /// The page.
        linear: LinearIndex,
        /// The slot.
        slot: Slot,
        /// Whether the slot was filled for this page, too, so that the agent that filled it has pledged the mappings
        /// that this takes.
        awaited: bool,
    },
    /// Its fingerprint does not identify it: offer it again, for its identity.
    Offer {
        /// The page.
        linear: LinearIndex,
    },
    /// It shares its slot with no other page: make it private, as `break_cow()` does, and report [`Outcome::Left`].
    Unshare {
        /// The page.
        linear: LinearIndex,
    },
}

impl Directive {
    /// The page it is about.
    pub fn linear(&self) -> LinearIndex {
        match *self {
            Self::Create { linear, .. }
            | Self::Merge { linear, .. }
            | Self::Offer { linear }
            | Self::Unshare { linear } => linear,
        }
    }
}

/// The broker as an agent sees it.
///
/// A call that fails has done nothing, unless documented otherwise.
pub trait Broker {
    /// Offers pages and appends one decision for each to `decisions`. An offered page is taken off the
    /// trees first. A directive that its agent has for it is acknowledged thereby, and must not be executed any more.
    /// O(1) expected an offer.
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    fn offer(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError>;

    /// Offers pages for which the decision was [`Decision::Identify`], as [`offer`](Self::offer) does;
    /// [`Decision::Identify`] is not decided again. O(1) expected an offer.
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    fn offer_by_identity(
        &mut self,
        vm: VmId,
        offers: &[IdentityOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError>;

    /// Reports that pages are unchanged since the last pass, each once, and appends to `skip` whether to pass it over
    /// this time because it keeps changing: KSM's smart scan. O(1) a page.
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was done.
    fn age(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError>;

    /// Hands over the bytes for slots of [`Directive::Create`]: `pages` for consecutive slots from
    /// `first` on. Appends to `accepted` whether each slot now holds them;
    /// one whose bytes do not have the fingerprint that was offered does not, and is no more.
    ///
    /// # Errors
    ///
    /// A slot that is not the sender's to fill, or a broken length: nothing was done. A failing
    /// store: `accepted` tells which slots were filled before; the others are no more.
    fn fill(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError>;

    /// Reports the outcomes of pages. O(log n) a page; where a slot that its agent was to fill is not filled after
    /// all, O(pages that were to share it · log VMs).
    ///
    /// # Errors
    ///
    /// An unknown VM or page, or a merge that was not proposed: the outcomes before it were
    /// taken, and the error has their number; it and those after it were not.
    fn report(&mut self, vm: VmId, outcomes: &[Outcome]) -> Result<(), ReportError>;

    /// Appends the directives that are due for the VM to `directives`, in ascending order, once each, at
    /// most `limit` at a time. New slots are given out in this order, so that neighbours get
    /// neighbouring slots. A `Create` is filled before its page is merged. O(n log n).
    ///
    /// # Errors
    ///
    /// An unknown VM.
    fn directives(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError>;

    /// Appends to `partners`, for each page, whose page is the only other one that shares its slot; `None`
    /// where there is none or more than one, or the page shares nothing. O(1) a page, or, where others are about to
    /// share the slot, O(these).
    ///
    /// # Errors
    ///
    /// An unknown VM or page; nothing was appended.
    fn partners(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        partners: &mut Vec<Option<VmId>>,
    ) -> Result<(), BrokerError>;

    /// Removes the VM and its items. Its memory must no longer be mapped to any slot.
    ///
    /// # Errors
    ///
    /// An unknown VM.
    fn unregister(&mut self, vm: VmId) -> Result<(), BrokerError>;
}
