//! Compaction: giving neighbouring pages neighbouring slots again.
//!
//! Freed slots cost nothing (their memory is punched out one by one), but pages that were shared,
//! broken and shared again cover slots here and there, and each run of consecutive slots is a
//! VMA. Moving the slots of neighbouring pages next to each other joins those
//! VMAs, in each VM that has the pages side by side. In a VM that has not, it may part others,
//! so what is won and lost is counted before anything is moved. Nothing is won where pages that follow each
//! other are apart at the host (`is_apart`).

use std::collections::HashMap;

use crate::broker::LocalBroker;
use crate::broker::rmap::RmapItem;
use crate::protocol::{BrokerError, Candidate, CompactCursor, CompactScope, MoveError};
use crate::{LinearIndex, Slot, VmId};

/// Slots that are moved together at most.
const GROUP_SLOTS: usize = 256;

/// No further slot is moved together with others that have so many sharers.
const GROUP_SHARERS: u32 = 24 << 10;

/// Once so many sharers have been counted in one call, no other slot's are.
const COUNTED_SHARERS: u32 = 2048;

/// Pages that are looked at in one call at most.
const LOOK_PAGES: u32 = 1 << 14;

/// Runs of so many pages stay where they are.
const LONG_RUN_PAGES: u32 = 128;

impl LocalBroker {
    /// Does the next part of a VM's compaction: finds the next group of its pages, or counts for a part
    /// of them whether it is worth it to move their slots, or begins to. Returns which slots are being moved
    /// to which, if any are, or `None` when all pages have been looked at. `is_apart` returns of a page of any
    /// VM of the domain whether it begins a VMA whatever slots it and the page before it cover.
    /// [`move_directives`](Self::move_directives) have the agents of their sharers do it.
    /// O(16,384 pages), O(2048 sharers · log extents) or O(256 slots).
    ///
    /// # Errors
    ///
    /// An unknown VM; nothing was done.
    pub fn compact(
        &mut self,
        vm: VmId,
        cursor: &mut CompactCursor,
        scope: CompactScope,
        is_apart: impl Fn(VmId, LinearIndex) -> bool,
    ) -> Result<Option<Vec<(Slot, Slot)>>, BrokerError> {
        let Some(mut candidate) = cursor.candidate.take() else {
            let found = self.next_group(vm, cursor, scope)?;
            let Some(found) = found else { return Ok(None) };
            cursor.candidate = Some(found).filter(|found| !found.group.is_empty());
            return Ok(Some(Vec::new()));
        };
        if candidate.counted < candidate.group.len() {
            cursor.count_work(self.count_gain(&mut candidate, &is_apart));
            cursor.candidate = Some(candidate);
            return Ok(Some(Vec::new()));
        }
        let least = match scope {
            CompactScope::Gainful => 1,
            CompactScope::All => 0,
        };
        if candidate.gain < least {
            return Ok(Some(Vec::new()));
        }
        Ok(Some(self.move_group(&candidate.group, cursor)))
    }

    /// The different slots of the next pages in a row that share and may be moved, in the order of
    /// the pages; of none if there is nothing of the kind for a long way. `None` when all pages have
    /// been looked at.
    fn next_group(
        &self,
        vm: VmId,
        cursor: &mut CompactCursor,
        scope: CompactScope,
    ) -> Result<Option<Candidate>, BrokerError> {
        let member = self.members.get(&vm).ok_or(BrokerError::UnknownVm(vm))?;
        let (mut found, mut sharer_count, mut looked) = (Candidate::default(), 0, 0);
        let end = LinearIndex(member.items.page_count());
        for extent in member.extents.overlapping(cursor.next.min(end), end) {
            let parted = extent.linear != cursor.next;
            let long = scope == CompactScope::Gainful && extent.page_count >= LONG_RUN_PAGES;
            if !found.group.is_empty() && (parted || long) {
                return Ok(Some(found));
            }
            if long {
                cursor.next = extent.end();
                continue;
            }
            for offset in 0..extent.page_count {
                if looked == LOOK_PAGES {
                    return Ok(Some(found));
                }
                looked += 1;
                cursor.count_work(1);
                let (linear, slot) = (extent.linear.offset(offset), extent.slot.offset(offset));
                let movable = !cursor.taken.contains(&slot)
                    && self.shares(vm, linear, slot)
                    && self.store.slots.node(slot).is_some_and(|node| self.is_movable(node));
                if !movable && !found.group.is_empty() {
                    cursor.next = linear;
                    return Ok(Some(found));
                }
                cursor.next = linear.offset(1);
                if movable && found.add(slot) {
                    let node = self.store.slots.node(slot);
                    sharer_count += node.map_or(0, |node| self.stable.node(node).sharers);
                }
                if found.group.len() == GROUP_SLOTS || sharer_count >= GROUP_SHARERS {
                    return Ok(Some(found));
                }
            }
        }
        cursor.next = end;
        Ok((!found.group.is_empty()).then_some(found))
    }

    /// Whether a page shares a slot.
    fn shares(&self, vm: VmId, linear: LinearIndex, slot: Slot) -> bool {
        self.item(vm, linear).is_ok_and(|item| match self.rmap.item(item) {
            RmapItem::Stable(link) => self.stable.node(link.node).filled_slot() == Some(slot),
            _ => false,
        })
    }

    /// Counts for the next slots of a group how many VMAs fewer there are, in all VMs, once all of
    /// them lie side by side. Returns how many sharers these have.
    fn count_gain(
        &self,
        candidate: &mut Candidate,
        is_apart: &impl Fn(VmId, LinearIndex) -> bool,
    ) -> u32 {
        let mut counted = 0;
        while counted < COUNTED_SHARERS
            && let Some(&slot) = candidate.group.get(candidate.counted)
        {
            let node = self.store.slots.node(slot);
            counted += node.map_or(0, |node| self.stable.node(node).sharers).max(1);
            let gain = self.gain(slot, candidate.counted, &candidate.order, is_apart);
            candidate.gain = candidate.gain.saturating_add(gain);
            candidate.counted += 1;
        }
        counted
    }

    /// How many VMAs fewer there are, in all VMs, at the pages that share the slot at `number` of a
    /// group, once its slots lie side by side.
    fn gain(
        &self,
        slot: Slot,
        number: usize,
        order: &HashMap<Slot, usize>,
        is_apart: &impl Fn(VmId, LinearIndex) -> bool,
    ) -> i64 {
        let Some(node) = self.store.slots.node(slot) else { return 0 };
        let mut gain = 0;
        for item in self.sharers(node) {
            let (vm, linear) = self.rmap.page(item);
            let Some(member) = self.members.get(&vm) else { continue };
            let moves = |linear, slot| order.get(&slot).filter(|_| self.shares(vm, linear, slot));
            let before = linear.0.checked_sub(1).map(LinearIndex);
            let before = before.filter(|_| !is_apart(vm, linear));
            if let Some((before, over)) =
                before.and_then(|page| Some((page, member.extents.slot(page)?)))
            {
                gain -= i64::from(over.offset(1) == slot);
                let joined =
                    moves(before, over).is_some_and(|&first| first.checked_add(1) == Some(number));
                gain += i64::from(joined);
            }
            let after = linear.offset(1);
            if let Some(over) = member.extents.slot(after)
                && moves(after, over).is_none()
                && !is_apart(vm, after)
            {
                gain -= i64::from(slot.offset(1) == over);
            }
        }
        gain
    }

    /// Begins to move slots to consecutive ones; returns which to which.
    fn move_group(&mut self, group: &[Slot], cursor: &mut CompactCursor) -> Vec<(Slot, Slot)> {
        let mut begun = Vec::new();
        let Ok(count) = u32::try_from(group.len()) else { return begun };
        let Some(first) = self.store.slots.allocate_run(count) else { return begun };
        for (&slot, offset) in group.iter().zip(0..) {
            let to = first.offset(offset);
            let moved = match self.intact_bytes(slot) {
                Ok((from, page)) => self.begin_move_to(from, to, &page),
                Err(error) => {
                    self.store.queue_free(to);
                    Err(error)
                }
            };
            match moved {
                Ok(()) => {
                    cursor.taken.insert(to);
                    begun.push((slot, to));
                }
                // Other steps have changed the slot since it was looked at.
                Err(error @ (MoveError::Empty(_) | MoveError::Busy(_))) => {
                    log::debug!("slot {} stays where it is: {error}", slot.0);
                }
                Err(error) => log::warn!("slot {} stays where it is: {error}", slot.0),
            }
        }
        self.store.flush();
        begun
    }
}
