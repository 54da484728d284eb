//! The smart scan: pages that keep changing are looked at less and less often, and so are pages that are
//! merged and broken again and again.
//!
//! A page that shares a slot has no age. One that is broken gets one by how often that has happened to it
//! [lately](super::breaks): none for its first breaks, and then one that has it be passed over more and more
//! often before it can be merged once more.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/ksm.rst`, `smart_scan`.

use super::LocalBroker;
use super::ids::ItemId;
use super::rmap::RmapItem;
use crate::protocol::BrokerError;
use crate::{LinearIndex, VmId};

/// How often a page has been looked at in vain, and how often it is still to be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Age {
    looks: u8,
    remaining_skips: u8,
}

/// Looks that every page gets before it is passed over for the first time.
const YOUNG_LOOKS: u8 = 3;

impl Age {
    /// Never looked at.
    pub(super) const NEW: Self = Self { looks: 0, remaining_skips: 0 };

    /// That of a page that has just been broken, so often lately.
    fn of_broken(breaks: u8) -> Self {
        let looks = match breaks {
            0..=2 => return Self::NEW,
            3 => 3,
            4 => 4,
            5 => 6,
            6.. => 9,
        };
        Self { looks, remaining_skips: skips(looks) }
    }

    /// How often it has been looked at, or passed over, and how often it is to be passed over now; `None` if
    /// it is looked at next time.
    fn skipped(self) -> Option<(u8, u8)> {
        let is_skipped = self.looks >= YOUNG_LOOKS && self.remaining_skips > 0;
        is_skipped.then_some((self.looks, self.remaining_skips))
    }

    /// The low 16 bits hold it.
    pub(super) fn to_bits(self) -> u32 {
        u32::from(u16::from_le_bytes([self.looks, self.remaining_skips]))
    }

    /// What [`to_bits`](Self::to_bits) gave.
    pub(super) fn from_bits(bits: u32) -> Self {
        let [looks, remaining_skips, ..] = bits.to_le_bytes();
        Self { looks, remaining_skips }
    }

    /// What it is after the page has come to rest once more, and whether the page is to be passed
    /// over this time.
    fn next(self) -> (Self, bool) {
        let looks = self.looks.saturating_add(1);
        if self.looks < YOUNG_LOOKS {
            return (Self { looks, ..self }, false);
        }
        match self.remaining_skips.checked_sub(1) {
            Some(remaining_skips) => (Self { looks, remaining_skips }, true),
            None => (Self { looks, remaining_skips: skips(self.looks) }, false),
        }
    }
}

/// How often a page is passed over after so many looks.
fn skips(looks: u8) -> u8 {
    match looks {
        0..=3 => 1,
        4..=5 => 2,
        6..=8 => 4,
        9.. => 8,
    }
}

impl LocalBroker {
    /// Ages pages that have come to rest and says which to pass over. A page that shares a slot, as
    /// far as the broker knows, has no age, even if it was written meanwhile, and is never passed
    /// over.
    pub(super) fn age_all(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        let items: Vec<_> =
            pages.iter().map(|&linear| self.item(vm, linear)).collect::<Result<_, _>>()?;
        for item in items {
            let state = self.rmap.item(item);
            let (RmapItem::Loose(age) | RmapItem::Declined(_, age)) = state else {
                skip.push(false);
                continue;
            };
            let (age, skipped) = age.next();
            self.rmap.set(
                item,
                match state {
                    RmapItem::Declined(key, _) => RmapItem::Declined(key, age),
                    _ => RmapItem::Loose(age),
                },
            );
            skip.push(skipped);
        }
        Ok(())
    }

    /// Takes out of the trees what its guest has written; if it shared a slot, that counts for its age.
    pub(super) fn note_broken(&mut self, vm: VmId, linear: LinearIndex, item: ItemId) {
        let was_shared = matches!(self.rmap.item(item), RmapItem::Stable(_));
        self.remove_item(item);
        let Some(member) = self.members.get_mut(&vm).filter(|_| was_shared) else { return };
        let age = Age::of_broken(member.breaks.count(linear));
        if age != Age::NEW {
            self.rmap.set(item, RmapItem::Loose(age));
        }
    }

    /// Has a pass be over: breaks that were counted long ago are forgotten, one of each page in 64 passes.
    /// O(VMs + pages that were broken / 1024).
    pub(crate) fn forgive_breaks(&mut self) {
        self.passes = self.passes.wrapping_add(1);
        for member in self.members.values_mut() {
            member.breaks.forgive(self.passes);
        }
    }

    /// The age of a page that is to be passed over by the passes in which it has not changed, and by how many of
    /// them; `None` for any other. O(1).
    pub(crate) fn skipped(&self, vm: VmId, linear: LinearIndex) -> Option<(u8, u8)> {
        match self.rmap.item(self.item(vm, linear).ok()?) {
            RmapItem::Loose(age) | RmapItem::Declined(_, age) => age.skipped(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_looked_at_ever_more_rarely() {
        let mut age = Age::NEW;
        let mut looked_at = Vec::new();
        for rest in 0..40 {
            let skipped;
            (age, skipped) = age.next();
            if !skipped {
                looked_at.push(rest);
            }
        }
        assert_eq!(looked_at, [0, 1, 2, 3, 5, 8, 13, 22, 31]);
    }

    #[test]
    fn a_page_that_is_broken_is_passed_over_ever_more_often_from_its_third_break_on() {
        let skips = |breaks| {
            let mut age = Age::of_broken(breaks);
            std::iter::from_fn(|| {
                let skipped;
                (age, skipped) = age.next();
                skipped.then_some(())
            })
            .count()
        };
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 255].map(skips), [0, 0, 0, 1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn an_age_survives_its_packing() {
        let age = Age { looks: 200, remaining_skips: 8 };
        assert_eq!(Age::from_bits(age.to_bits()), age);
    }
}
