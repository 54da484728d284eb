//! Runs of pages on consecutive slots, and how long they are.

use serde::Serialize;

/// What one image falls into.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// Maximal runs of pages on consecutive slots.
    pub(super) extents: u64,
    /// Maximal runs of pages without a slot.
    pub(super) gaps: u64,
}

/// Finds the runs in the slots of an image's pages, `None` for any number of pages without
/// one, and adds the extents' lengths to `lengths`.
pub(super) fn runs(slots: impl Iterator<Item = Option<u32>>, lengths: &mut Lengths) -> Runs {
    let mut runs = Runs::default();
    let (mut last, mut len) = (None, 0_u64);
    for slot in slots {
        match (last, slot) {
            (Some(Some(a)), Some(b)) if u32::checked_add(a, 1) == Some(b) => len += 1,
            (Some(None), None) => {}
            (_, slot) => {
                lengths.add(std::mem::take(&mut len));
                match slot {
                    Some(_) => {
                        runs.extents += 1;
                        len = 1;
                    }
                    None => runs.gaps += 1,
                }
            }
        }
        last = Some(slot);
    }
    lengths.add(len);
    runs
}

/// How long extents are.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Lengths {
    /// Pages in the longest.
    pub(super) max: u64,
    /// Pages in one on average; `None` of none.
    pub(super) mean: Option<f64>,
    /// By powers of two: 1, 2 to 3, 4 to 7, and so on; the last one is that of the longest.
    pub(super) classes: Vec<Class>,
}

/// The extents of similar length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Class {
    /// The shortest length in the class, in pages.
    pub(super) from: u64,
    /// The longest.
    pub(super) to: u64,
    /// Extents.
    pub(super) extents: u64,
    /// Pages in them.
    pub(super) pages: u64,
}

impl Lengths {
    fn add(&mut self, len: u64) {
        if len == 0 {
            return;
        }
        self.max = self.max.max(len);
        let index = len.ilog2() as usize;
        while self.classes.len() <= index {
            let from = 1 << self.classes.len();
            self.classes.push(Class { from, to: from * 2 - 1, extents: 0, pages: 0 });
        }
        self.classes[index].extents += 1;
        self.classes[index].pages += len;
        self.mean = Some(self.exact_mean());
    }

    // A float has 53 bits: more pages than that are not held by any machine.
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    fn exact_mean(&self) -> f64 {
        let sum = |value: fn(&Class) -> u64| self.classes.iter().map(value).sum::<u64>() as f64;
        sum(|class| class.pages) / sum(|class| class.extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_where_slots_or_pages_jump() {
        let mut lengths = Lengths::default();
        let slots = [Some(4), Some(5), Some(6), None, None, Some(7), Some(7), Some(6), None];
        assert_eq!(runs(slots.into_iter(), &mut lengths), Runs { extents: 4, gaps: 2 });
        assert_eq!((lengths.max, lengths.mean), (3, Some(1.5)));
        assert_eq!(
            lengths.classes,
            [
                Class { from: 1, to: 1, extents: 3, pages: 3 },
                Class { from: 2, to: 3, extents: 1, pages: 3 },
            ]
        );
    }

    #[test]
    fn nothing_has_no_mean() {
        let mut lengths = Lengths::default();
        assert_eq!(runs(std::iter::empty(), &mut lengths), Runs::default());
        assert_eq!(lengths.mean, None);
    }
}
