//! The age of a page: how often it was looked at in vain, which decides how often it is passed over.
#![forbid(unsafe_code)]

/// How often a page has been looked at in vain, and how often it is still to be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Age {
    looks: u8,
    remaining_skips: u8,
}

/// Looks that every page gets before it is passed over for the first time.
const YOUNG_LOOKS: u8 = 3;

impl Age {
    /// Never looked at.
    pub(in crate::broker) const NEW: Self = Self { looks: 0, remaining_skips: 0 };

    /// That of a page that has just been broken, so often lately.
    pub(in crate::broker) fn of_broken(breaks: u8) -> Self {
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
    pub(super) fn skipped(self) -> Option<(u8, u8)> {
        let is_skipped = self.looks >= YOUNG_LOOKS && self.remaining_skips > 0;
        is_skipped.then_some((self.looks, self.remaining_skips))
    }

    /// The low 16 bits hold it.
    pub(in crate::broker) fn to_bits(self) -> u32 {
        u32::from(u16::from_le_bytes([self.looks, self.remaining_skips]))
    }

    /// What [`to_bits`](Self::to_bits) gave.
    pub(in crate::broker) fn from_bits(bits: u32) -> Self {
        let [looks, remaining_skips, ..] = bits.to_le_bytes();
        Self { looks, remaining_skips }
    }

    /// What it is after the page was unchanged for a pass once more, and whether the page is to be passed
    /// over this time.
    pub(super) fn next(self) -> (Self, bool) {
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
