//! The smart scan: pages that keep changing are looked at less and less often.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/ksm.rst`, `smart_scan`.

use super::LocalBroker;
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
    fn an_age_survives_its_packing() {
        let age = Age { looks: 200, remaining_skips: 8 };
        assert_eq!(Age::from_bits(age.to_bits()), age);
    }
}
