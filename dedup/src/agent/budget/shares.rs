//! What each VM is entitled to, and who gives back what for whom.
//!
//! A VM's share is what runs of one page may take, divided by the VMs that hold mappings for what they have folded,
//! or want some. When so much is in use that a VM that has not got its share is held back, the VMs beyond theirs
//! give back what saves least (`reclaim`), and merge nothing at a cost until it has what it wants or its share.
//!
//! As a page is of use only with its twin, that takes something from the twins' VMs, too. They are entitled to their
//! shares, and to half of them where nothing else is left to be given back and the VM that is held back has not got
//! half of its own. Whoever has half takes no more meanwhile, or it would go back and forth. A twin's VM may hold few
//! mappings for many pages, so no more is kept for its sake then than half of its share, either.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::{MappingBudget, Pool, RECLAIM_FROM, RECLAIM_TO, SHARED_PART, VMAS_PER_PAIR, part_of};
use crate::VmId;

/// What a VM must lack of its share for others to give something back: a part of it.
const LACK_DIVISOR: u64 = 16;

/// What a VM may have beyond its share without giving it back, while everybody has half of theirs: a part of it.
const SLACK_DIVISOR: u64 = 256;

/// The part of its share that a VM keeps for itself, whoever lacks something.
const FLOOR_DIVISOR: u64 = 2;

/// How far a VM is from its share, that defers runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::agent) enum Lack {
    /// It has its share, or lacks too little to take anything from others.
    #[default]
    Nothing,
    /// It lacks some of it.
    Share,
    /// It has not even [half](FLOOR_DIVISOR) of it: it is *starved*.
    Half,
}

/// What others keep when a VM gives back pages that they share with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::agent) enum Entitlement {
    /// Their shares, and what they may have [beyond](MappingBudget::slack) them.
    Slack,
    /// Their shares.
    #[default]
    Share,
    /// [Half](FLOOR_DIVISOR) of them.
    Half,
}

/// What the VMs of an engine hold for pages that they share, as far as it is theirs to keep.
#[derive(Debug, Default)]
pub(super) struct Holdings(BTreeMap<VmId, Holding>);

#[derive(Debug, Clone, Copy, Default)]
struct Holding {
    mappings: u64,
    /// What it loses of that by what others have given back in this pass, and in the last one: it is asked to in the
    /// same pass, and has given up the mappings by the end of the next.
    taken: [u64; 2],
    /// Whether it defers runs and has not even half of its share.
    is_starved: bool,
}

impl Holdings {
    /// Sets what a VM holds; `None` if there is no such VM any more.
    pub(super) fn set(&mut self, vm: VmId, mappings: Option<u64>) {
        match mappings {
            Some(mappings) => self.0.entry(vm).or_default().mappings = mappings,
            None => drop(self.0.remove(&vm)),
        }
    }

    fn is_starved(&self, vm: VmId) -> bool {
        self.0.get(&vm).is_some_and(|holding| holding.is_starved)
    }

    /// What a VM holds when it has given up what has been taken.
    fn left(&self, vm: VmId) -> Option<u64> {
        let Holding { mappings, taken, .. } = self.0.get(&vm)?;
        Some(mappings.saturating_sub(taken.iter().sum()))
    }
}

impl MappingBudget {
    pub(super) fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that a VM of the engine will lose so many mappings of pages that it shares. O(log VMs).
    pub(in crate::agent) fn take(&self, vm: VmId, mappings: u64) {
        if let Some(holding) = self.holdings().0.get_mut(&vm) {
            holding.taken[0] += mappings;
        }
    }

    /// Begins a pass: what was taken by the one before the last has been given up. O(VMs).
    pub(crate) fn begin_pass(&self) {
        for holding in self.holdings().0.values_mut() {
            holding.taken = [0, holding.taken[0]];
        }
    }

    /// Whether a VM of the engine is to keep all that it holds for pages that it shares; not one that is unknown.
    /// O(log VMs).
    pub(in crate::agent) fn is_entitled(&self, vm: VmId, to: Entitlement) -> bool {
        let limit = match to {
            Entitlement::Slack => self.share() + self.slack(),
            Entitlement::Share => self.share(),
            Entitlement::Half => self.share() / FLOOR_DIVISOR,
        };
        self.holdings().left(vm).is_some_and(|left| left <= limit)
    }

    /// Whether another VM, which keeps `kept` mappings of its own for the sake of `partner`, may keep one more: up to
    /// [half](Entitlement::Half) of the partner's share, and all while no other VM is starved, for whom they could be
    /// given back. The partner may have few mappings for as many pages, when they lie side by side.
    pub(in crate::agent) fn may_keep(&self, kept: u64, partner: VmId) -> bool {
        let starved_vms = self.pool.starved_vms.load(Ordering::Relaxed);
        kept < self.share() / FLOOR_DIVISOR
            || starved_vms <= u64::from(self.holdings().is_starved(partner))
    }

    /// How many mappings a VM that holds `held` has beyond its share; 0 if it is within.
    pub(in crate::agent) fn beyond_share(&self, held: u64) -> u64 {
        held.saturating_sub(self.share())
    }

    /// What others keep of pages that they share with a VM that begins to give some back. O(1).
    pub(in crate::agent) fn first_entitlement(&self) -> Entitlement {
        if self.is_anyone_starved() { Entitlement::Share } else { Entitlement::Slack }
    }

    /// How many mappings a VM may have beyond its share before it, or one that it shares pages with, gives any back for
    /// others. A VM that has its share gets more by pages that another lacks, which it shares: a few would go round
    /// between such VMs and one that keeps pages for their sake, pass by pass, until that one had its share, too.
    pub(in crate::agent) fn slack(&self) -> u64 {
        let slack = (self.share() / SLACK_DIVISOR).max(VMAS_PER_PAIR);
        if self.is_anyone_starved() { 0 } else { slack }
    }

    /// How many mappings a VM that holds `held` may make, or pledge, until it has its share, as far as others
    /// lack some of theirs.
    pub(super) fn room_within_share(&self, held: u64) -> u64 {
        if self.is_anyone_held_back() { self.share().saturating_sub(held) } else { u64::MAX }
    }

    /// Whether a VM that holds `held` has half of its share, and another has not.
    pub(super) fn is_to_leave_the_rest(&self, held: u64) -> bool {
        self.is_anyone_starved() && has_half(held, self.share())
    }

    /// What a VM that holds `held` and defers runs is to get of what others have beyond theirs. A VM that is
    /// not counted among those that share would be.
    pub(in crate::agent) fn lack(&self, held: u64, is_counted: bool) -> Lack {
        let vm_count = self.pool.folded_vms.load(Ordering::Relaxed) + u64::from(!is_counted);
        let share = self.share_among(vm_count);
        if share.saturating_sub(held) < (share / LACK_DIVISOR).max(VMAS_PER_PAIR) {
            Lack::Nothing
        } else if has_half(held, share) {
            Lack::Share
        } else {
            Lack::Half
        }
    }

    pub(super) fn share(&self) -> u64 {
        self.share_among(self.pool.folded_vms.load(Ordering::Relaxed))
    }

    fn share_among(&self, vm_count: u64) -> u64 {
        part_of(self.limit(), SHARED_PART) / vm_count.max(1)
    }

    /// Counts a VM by what it wants and defers runs for want of, instead of by what it wanted `before`.
    pub(in crate::agent) fn count_lack(&self, vm: VmId, before: Lack, now: Lack) {
        if let Some(holding) = self.holdings().0.get_mut(&vm) {
            holding.is_starved = now == Lack::Half;
        }
        let Pool { held_back_vms, starved_vms, .. } = &*self.pool;
        let is_starved = |lack| lack == Lack::Half;
        for (vms, was, is) in [
            (held_back_vms, before != Lack::Nothing, now != Lack::Nothing),
            (starved_vms, is_starved(before), is_starved(now)),
        ] {
            vms.fetch_add(is.into(), Ordering::Relaxed);
            vms.fetch_sub(was.into(), Ordering::Relaxed);
        }
    }

    pub(in crate::agent) fn is_anyone_starved(&self) -> bool {
        self.pool.starved_vms.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_anyone_held_back(&self) -> bool {
        self.pool.held_back_vms.load(Ordering::Relaxed) > 0
    }

    /// Whether VMs beyond their shares are to give back mappings: others are held back, and nearly all
    /// is in use.
    pub(in crate::agent) fn is_owing(&self) -> bool {
        self.is_anyone_held_back() && self.committed() >= part_of(self.limit(), RECLAIM_FROM)
    }

    /// How many mappings a VM that holds `held` is to give back, others permitting, once it has begun to.
    pub(in crate::agent) fn owed(&self, held: u64) -> u64 {
        let over = self.committed().saturating_sub(part_of(self.limit(), RECLAIM_TO));
        if self.is_anyone_held_back() { self.beyond_share(held).min(over) } else { 0 }
    }

    /// How often mappings were given back for others.
    pub(in crate::agent) fn reclaims(&self) -> u64 {
        self.pool.reclaims.load(Ordering::Relaxed)
    }

    /// Takes note that mappings were given back for others.
    pub(in crate::agent) fn note_reclaim(&self) {
        self.pool.reclaims.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether `held` mappings are [half](FLOOR_DIVISOR) of a share, but for less than a pair.
fn has_half(held: u64, share: u64) -> bool {
    held + VMAS_PER_PAIR > share / FLOOR_DIVISOR
}

#[cfg(test)]
mod tests {
    use super::super::Demand;
    use super::*;

    const VM: VmId = VmId(0);

    // Each of several VMs took of another what it had beyond half of its share, before it had given up any of that.
    #[test]
    fn what_several_vms_take_of_another_leaves_it_what_it_is_entitled_to() {
        let budget = MappingBudget::new(1600);
        (0..4).for_each(|_| budget.count_vm(true));
        budget.update(VM, 0, 300, 300);
        let is_entitled =
            || [Entitlement::Share, Entitlement::Half].map(|to| budget.is_entitled(VM, to));
        assert_eq!(is_entitled(), [true, false]);
        budget.take(VM, 100);
        assert_eq!(is_entitled(), [true, false]);
        budget.take(VM, 13);
        assert_eq!(is_entitled(), [true, true]);
        // It is counted anew, and has not been asked yet; or its stale mappings are still there.
        budget.update(VM, 300, 300, 300);
        budget.begin_pass();
        assert_eq!(is_entitled(), [true, true]);
        budget.update(VM, 300, 187, 187);
        budget.begin_pass();
        assert_eq!(is_entitled(), [true, true]);
        budget.update(VM, 187, 376, 376);
        assert_eq!(is_entitled(), [false, false]);
        assert!(!budget.is_entitled(VmId(1), Entitlement::Share), "it is unknown");
    }

    #[test]
    fn who_has_half_of_its_share_takes_nothing_while_another_has_not() {
        let budget = MappingBudget::new(1600);
        (0..4).for_each(|_| budget.count_vm(true));
        let takes =
            |held| budget.allows(1, &Demand { held, more: 2, pledge: 2, ..Demand::default() });
        budget.count_lack(VM, Lack::Nothing, Lack::Share);
        assert_eq!([183, 184, 371].map(takes), [true; 3]);
        budget.count_lack(VM, Lack::Share, Lack::Half);
        assert_eq!([183, 184, 371].map(takes), [true, false, false]);
        // Who takes something is the one that is starved, however much is pledged for its partners.
        assert_eq!([183, 184].map(|held| budget.lack(held, true)), [Lack::Half, Lack::Share]);
    }
}
