//! Which slots of a store are in use, and which may be used again.
//!
//! A slot's number outlives its memory: when the last sharer is gone its page is given back to the
//! kernel, but the number stays taken while any page still covers it, or that page would map a later
//! content. Numbers that are free again are *quarantined* until there are many of them, and are
//! then reused in an order that a guest cannot foresee, run by run, so that neighbouring pages still
//! get neighbouring slots.

use std::collections::BTreeMap;

use super::slot_table::SlotTable;
use crate::Slot;
use crate::broker::ids::NodeId;

/// Runs of quarantined numbers that are looked at for one that is long enough, at most.
const LOOK_RUNS: usize = 1024;

/// More numbers than this are quarantined before any is reused.
const MIN_QUARANTINED: u32 = 1 << 16;

/// The slots of one store.
#[derive(Debug)]
pub(in crate::broker) struct Slots {
    states: SlotTable,
    limit: u32,
    live: u32,
    /// Free numbers that are not to be reused yet, as maximal runs: first to count.
    quarantined: BTreeMap<u32, u32>,
    quarantined_count: u32,
    /// The run of numbers that is being reused.
    reuse: std::ops::Range<u32>,
}

impl Slots {
    pub(in crate::broker) fn new(limit: u32) -> Self {
        Self {
            states: SlotTable::default(),
            limit,
            live: 0,
            quarantined: BTreeMap::new(),
            quarantined_count: 0,
            reuse: 0..0,
        }
    }

    /// Takes the next number; consecutive calls get consecutive numbers wherever possible. `None`
    /// when the store is full.
    pub(in crate::broker) fn allocate(&mut self) -> Option<Slot> {
        let full = self.states.len() >= self.limit as usize;
        if self.reuse.is_empty() && (self.may_reuse() || full) {
            self.reuse = self.take_quarantined_run().unwrap_or(0..0);
        }
        let slot = match self.reuse.next() {
            Some(number) => Slot(number),
            None if full => return None,
            None => {
                self.states.extend(1);
                Slot(u32::try_from(self.states.len() - 1).ok()?)
            }
        };
        self.live += 1;
        Some(slot)
    }

    /// Takes `count` consecutive numbers; `None` when none are found. O(count + log n).
    pub(in crate::broker) fn allocate_run(&mut self, count: u32) -> Option<Slot> {
        let is_new = self.states.len() + count as usize <= self.limit as usize;
        let reuse = self.may_reuse() || !is_new;
        let run = reuse.then(|| self.take_quarantined(count)).flatten();
        let first = match run {
            Some(first) => first,
            None if is_new => {
                let first = u32::try_from(self.states.len()).ok()?;
                self.states.extend(count as usize);
                first
            }
            None => return None,
        };
        self.live += count;
        Some(Slot(first))
    }

    /// Whether so many numbers are quarantined that some may be reused.
    fn may_reuse(&self) -> bool {
        self.quarantined_count > MIN_QUARANTINED.max(self.live / 2)
    }

    pub(in crate::broker) fn set_node(&mut self, slot: Slot, node: NodeId) {
        self.states.change(slot.0, |state| state.node = Some(node));
    }

    /// The node of a slot in use; the one that had it, which may be removed, of a slot that is
    /// [to be freed](super::Store::queue_free).
    pub(in crate::broker) fn node(&self, slot: Slot) -> Option<NodeId> {
        self.states.state(slot.0).node
    }

    /// Marks a slot as having no bytes any more; its number is quarantined once no page covers it.
    pub(in crate::broker) fn release(&mut self, slot: Slot) {
        let state = self.states.change(slot.0, |state| state.node = None);
        self.live -= 1;
        if state.covering_pages == 0 {
            self.put_in_quarantine(slot);
        }
    }

    /// Counts one covering page more of each of the `page_count` slots from `slot` on.
    pub(in crate::broker) fn cover(&mut self, slot: Slot, page_count: u32) {
        for number in slot.0..slot.0 + page_count {
            self.states.change(number, |state| state.covering_pages += 1);
        }
    }

    /// Counts one covering page less of each of them.
    pub(in crate::broker) fn uncover(&mut self, slot: Slot, page_count: u32) {
        for number in slot.0..slot.0 + page_count {
            let state = self.states.change(number, |state| state.covering_pages -= 1);
            if state.covering_pages == 0 && state.node.is_none() {
                self.put_in_quarantine(Slot(number));
            }
        }
    }

    /// Numbers that can be allocated: quarantined, being reused, or never used.
    pub(in crate::broker) fn room(&self) -> u32 {
        let used = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        (self.limit - used) + self.quarantined_count + (self.reuse.end - self.reuse.start)
    }

    pub(in crate::broker) fn covering_pages(&self, slot: Slot) -> u32 {
        self.states.state(slot.0).covering_pages
    }

    /// Numbers that are allocated: those of slots that hold bytes, that are reserved for some, or that are to be freed.
    pub(in crate::broker) fn live(&self) -> u32 {
        self.live
    }

    /// One above the highest number that was ever in use.
    pub(in crate::broker) fn high_water(&self) -> usize {
        self.states.len()
    }

    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.states.heap_bytes() + self.quarantined.len() * size_of::<(u32, u32)>() * 3 / 2
    }

    /// Verifies that just those numbers are quarantined, or being reused, that no node has and no page
    /// covers, and that they are counted. O(numbers).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker) fn check(&self) -> Result<(), String> {
        self.states.check()?;
        let mut free = vec![false; self.states.len()];
        let runs = self.quarantined.iter().map(|(&first, &count)| first..first + count);
        let (mut quarantined, mut end) = (0, None);
        for run in runs {
            if end.is_some_and(|end| run.start <= end) {
                return Err(format!(
                    "slots from {} on are quarantined, and in no run with those before",
                    run.start
                ));
            }
            end = Some(run.end);
            quarantined += run.end - run.start;
            run.for_each(|number| free[number as usize] = true);
        }
        if quarantined != self.quarantined_count {
            return Err(format!(
                "{quarantined} slots are quarantined, {} counted",
                self.quarantined_count
            ));
        }
        for number in self.reuse.clone() {
            if std::mem::replace(&mut free[number as usize], true) {
                return Err(format!("slot {number} is quarantined, and is being reused"));
            }
        }
        let mut live = 0;
        for (number, (state, free)) in self.states.iter().zip(free).enumerate() {
            live += u32::from(state.node.is_some());
            if free != (state.node.is_none() && state.covering_pages == 0) {
                return Err(format!("slot {number} is free: {free}, and it is {state:?}"));
            }
        }
        if live == self.live { Ok(()) } else { Err(format!("{live} slots, {} counted", self.live)) }
    }

    fn put_in_quarantine(&mut self, slot: Slot) {
        let (mut first, mut count) = (slot.0, 1);
        if let Some((&before, &run)) = self.quarantined.range(..first).next_back()
            && before + run == first
        {
            (first, count) = (before, run + 1);
        }
        if let Some(run) = self.quarantined.remove(&(slot.0 + 1)) {
            count += run;
        }
        self.quarantined.insert(first, count);
        self.quarantined_count += 1;
    }

    fn take_quarantined_run(&mut self) -> Option<std::ops::Range<u32>> {
        let from = self.random_number();
        let after = self.quarantined.range(from..).next();
        let (&first, &count) = after.or_else(|| self.quarantined.iter().next())?;
        self.quarantined.remove(&first);
        self.quarantined_count -= count;
        Some(first..first + count)
    }

    /// Takes `count` consecutive numbers out of quarantine and returns the first. `None` if they are not found
    /// in some [`LOOK_RUNS`]. O(log n).
    fn take_quarantined(&mut self, count: u32) -> Option<u32> {
        let from = self.random_number();
        let mut runs =
            self.quarantined.range(from..).chain(self.quarantined.range(..from)).take(LOOK_RUNS);
        let (&first, &len) = runs.find(|&(_, &len)| len >= count)?;
        self.quarantined.remove(&first);
        if len > count {
            self.quarantined.insert(first + count, len - count);
        }
        self.quarantined_count -= count;
        Some(first)
    }

    fn random_number(&self) -> u32 {
        // Without randomness the order is a little easier to foresee, and nothing else. Only numbers that
        // were in use are quarantined.
        let used = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        getrandom::u32().unwrap_or(0) % used.max(1)
    }
}

#[cfg(test)]
impl Slots {
    /// Has a number be allocated next, whatever it is in use for.
    pub(in crate::broker) fn hand_out(&mut self, slot: Slot) {
        self.reuse = slot.0..slot.0 + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_slots_are_consecutive_until_the_store_is_full() {
        let mut slots = Slots::new(3);
        let taken: Vec<_> = std::iter::from_fn(|| slots.allocate()).collect();
        assert_eq!(taken, [Slot(0), Slot(1), Slot(2)]);
        slots.release(Slot(1));
        assert_eq!(slots.allocate(), Some(Slot(1)), "a full store reuses numbers");
    }

    #[test]
    fn runs_of_numbers_are_new_ones_or_such_as_were_quarantined_side_by_side() {
        let mut slots = Slots::new(6);
        assert_eq!(slots.allocate_run(4), Some(Slot(0)));
        assert_eq!(slots.allocate_run(3), None, "two are left");
        for number in [0, 2, 3] {
            slots.release(Slot(number));
        }
        assert_eq!(slots.allocate_run(2), Some(Slot(4)), "new ones");
        assert_eq!(slots.allocate_run(2), Some(Slot(2)), "0 lies by itself");
        assert_eq!(slots.allocate(), Some(Slot(0)));
        assert_eq!(slots.live(), 6);
    }

    #[test]
    fn a_number_is_quarantined_only_when_nothing_is_mapped_over_it() {
        let mut slots = Slots::new(1);
        let slot = slots.allocate().unwrap();
        slots.cover(slot, 1);
        slots.release(slot);
        assert_eq!(slots.allocate(), None, "a page still covers the slot");
        slots.uncover(slot, 1);
        assert_eq!(slots.allocate(), Some(slot));
    }

    #[test]
    fn which_quarantined_number_is_reused_cannot_be_foreseen() {
        let reused = |_| {
            // A store is larger than what is ever used of it.
            let mut slots = Slots::new(u32::MAX);
            let used: Vec<Slot> =
                (0..2 * MIN_QUARANTINED + 2).filter_map(|_| slots.allocate()).collect();
            used.iter().step_by(2).for_each(|&slot| slots.release(slot));
            slots.allocate_run(1)
        };
        let reused: std::collections::BTreeSet<_> = (0..6).map(reused).collect();
        assert!(reused.len() > 3, "{reused:?}");
    }

    #[test]
    fn freed_numbers_are_not_handed_out_at_once() {
        let mut slots = Slots::new(u32::MAX);
        for expected in 0..=MIN_QUARANTINED {
            assert_eq!(slots.allocate(), Some(Slot(expected)));
            slots.release(Slot(expected));
        }
        assert!(slots.allocate().unwrap().0 <= MIN_QUARANTINED, "then an old one is reused");
    }
}
