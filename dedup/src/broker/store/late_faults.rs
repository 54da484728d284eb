//! Memory of slots that hold nothing, given back once more.
//!
//! A page fault that has begun when a page still shares its slot may reach the store when the slot is
//! empty already: another made the page private meanwhile (a second processor that wrote it, or an
//! agent that was to), and the slot went with its last sharer. The kernel then makes the hole a page of
//! zeroes, finds that it is not needed, and keeps it. No page maps it, but it takes memory, until the slot is
//! used again.

use crate::broker::LocalBroker;
use crate::{PAGE_SIZE, Slot};

/// Runs of empty slots, and slots in use, that a call goes through, at most: about 0.5 ms.
const RUNS: usize = 1 << 8;
const SLOTS: u32 = 1 << 17;

impl LocalBroker {
    /// Gives back what the kernel holds for slots that hold nothing, if it holds anything. Goes on where the
    /// last call ended. O(1) if it does not, O(slots) with a bound otherwise.
    pub(crate) fn punch_empty_slots(&mut self) {
        let live_bytes = u64::from(self.live_slots()) * PAGE_SIZE as u64;
        if self.store_bytes().is_none_or(|bytes| bytes <= live_bytes) {
            return;
        }
        let end = u32::try_from(self.slots_high_water()).unwrap_or(u32::MAX);
        let is_empty = |slot: &u32| self.store.slots.node(Slot(*slot)).is_none();
        let (mut next, stop) = (self.punched, end.min(self.punched.saturating_add(SLOTS)));
        for _ in 0..RUNS {
            let Some(first) = (next..stop).find(is_empty) else {
                next = stop;
                break;
            };
            let after = (first..stop).find(|slot| !is_empty(slot)).unwrap_or(stop);
            // What holds something is passed over by the kernel, which finds the next page at once.
            next = match self.store.memfd().next_page(Slot(first)) {
                Ok(Some(slot)) if slot.0 < after => {
                    let slot_count = (after - slot.0) as usize;
                    if let Err(error) = self.store.memfd().punch(slot, slot_count) {
                        log::warn!("cannot give {slot_count} slots back to the kernel: {error}");
                    }
                    after
                }
                Ok(Some(slot)) => slot.0.min(stop),
                Ok(None) => end,
                Err(error) => {
                    log::warn!("cannot find out which slots take memory: {error}");
                    end
                }
            };
        }
        self.punched = if next >= end { 0 } else { next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::ids::NodeId;
    use crate::sys::StoreView;

    #[test]
    fn what_a_late_fault_makes_of_an_empty_slot_is_given_back_and_no_slot_in_use_is() {
        let mut broker = LocalBroker::new(64, 2).unwrap();
        let node = NodeId::from_index(0).unwrap();
        let view = StoreView::new(&broker.store().unwrap(), 64).unwrap();
        // All numbers have been in use, and every fourth is.
        for number in 0..64 {
            let slot = broker.store.slots.allocate().unwrap();
            assert_eq!(slot, Slot(number));
            if number % 4 == 0 {
                broker.store.slots.set_node(slot, node);
                broker.store.fill(slot, &[[7; PAGE_SIZE]]).1.unwrap();
            } else {
                broker.store.slots.release(slot);
            }
        }
        assert_eq!(broker.store_bytes(), Some(16 * PAGE_SIZE as u64));
        for number in [1, 2, 30, 61, 63] {
            view.touch(Slot(number)).unwrap();
        }
        assert_eq!(
            broker.store_bytes(),
            Some(21 * PAGE_SIZE as u64),
            "a hole that is read is filled"
        );
        broker.punch_empty_slots();
        assert_eq!(broker.store_bytes(), Some(16 * PAGE_SIZE as u64));
        for number in (0..64).step_by(4) {
            assert!(view.equals(Slot(number), &[7; PAGE_SIZE]), "slot {number}");
        }
    }
}
