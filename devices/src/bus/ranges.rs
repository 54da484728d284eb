//! Disjoint ranges of ports or addresses, each with what is at it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// A range, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    /// The device's name.
    pub name: String,
    /// Its ports or addresses.
    pub range: RangeInclusive<u64>,
}

/// Writes `serial at 0x3f8..=0x3ff`.
impl fmt::Display for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}..={:#x}", self.name, self.range.start(), self.range.end())
    }
}

/// Why a device could not be put on a bus; the bus is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The range is empty.
    #[error("cannot put {0} on the bus: the range is empty")]
    Empty(Occupied),
    /// Another device has a part of it.
    #[error("cannot put {wanted} on the bus: it overlaps {taken}")]
    Overlap {
        /// The device that was to be put there.
        wanted: Occupied,
        /// The device that is there.
        taken: Occupied,
    },
}

struct Entry<T> {
    name: String,
    last: u64,
    value: T,
}

/// Values by disjoint ranges.
pub(super) struct Ranges<T> {
    /// Keyed by the first number of each range.
    entries: BTreeMap<u64, Entry<T>>,
}

impl<T> Ranges<T> {
    /// Puts `value` at `range`. O(log ranges).
    ///
    /// # Errors
    ///
    /// When the range is empty or overlaps another; nothing is changed.
    pub(super) fn insert(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
        value: T,
    ) -> Result<(), InsertError> {
        let name = name.to_owned();
        if range.is_empty() {
            return Err(InsertError::Empty(Occupied { name, range }));
        }
        // The ranges are disjoint, so of those that begin at or below our end only the last can
        // reach into ours.
        if let Some((&first, below)) = self.entries.range(..=*range.end()).next_back()
            && below.last >= *range.start()
        {
            let taken = Occupied { name: below.name.clone(), range: first..=below.last };
            return Err(InsertError::Overlap { wanted: Occupied { name, range }, taken });
        }
        let (first, last) = range.into_inner();
        self.entries.insert(first, Entry { name, last, value });
        Ok(())
    }

    /// What is at `at`, with how far that is from the beginning of its range. O(log ranges).
    pub(super) fn find(&self, at: u64) -> Option<(u64, &T)> {
        let (first, entry) = self.entries.range(..=at).next_back()?;
        (at <= entry.last).then_some((at - first, &entry.value))
    }
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<T> fmt::Debug for Ranges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.entries.iter().map(|(first, entry)| (&entry.name, *first..=entry.last));
        f.debug_map().entries(ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ranges in a plain list, looked through from end to end.
    #[derive(Default)]
    struct Model(Vec<(RangeInclusive<u64>, usize)>);

    impl Model {
        fn insert(&mut self, range: RangeInclusive<u64>, value: usize) -> bool {
            let overlaps = |other: &RangeInclusive<u64>| {
                range.start() <= other.end() && other.start() <= range.end()
            };
            let fits = !range.is_empty() && !self.0.iter().any(|(other, _)| overlaps(other));
            if fits {
                self.0.push((range, value));
            }
            fits
        }

        fn find(&self, at: u64) -> Option<(u64, usize)> {
            let (range, value) = self.0.iter().find(|(range, _)| range.contains(&at))?;
            Some((at - range.start(), *value))
        }
    }

    /// Numbers near each other, at both ends of what there is.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..64, (0_u64..64).prop_map(|below| u64::MAX - below), any::<u64>()]
    }

    fn range() -> impl Strategy<Value = RangeInclusive<u64>> {
        prop_oneof![
            4 => (number(), 0_u64..9).prop_map(|(first, more)| first..=first.saturating_add(more)),
            1 => (number(), number()).prop_map(|(first, last)| first..=last),
        ]
    }

    proptest! {
        #[test]
        fn ranges_are_found_as_in_a_plain_list(
            inserts in prop::collection::vec(range(), 0..24),
            lookups in prop::collection::vec(number(), 0..64),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), Model::default());
            for (value, range) in inserts.iter().enumerate() {
                let result = ranges.insert(&value.to_string(), range.clone(), value);
                prop_assert_eq!(result.is_ok(), model.insert(range.clone(), value));
                // Who is named is there, and in the way.
                if let Err(InsertError::Overlap { wanted, taken }) = result {
                    prop_assert_eq!(&wanted.range, range);
                    let (_, found) = model.find(*taken.range.start()).unwrap();
                    prop_assert_eq!(&found.to_string(), &taken.name);
                    prop_assert!(taken.range.start() <= range.end());
                    prop_assert!(range.start() <= taken.range.end());
                }
            }
            let ends = inserts.iter().flat_map(|range| {
                let (first, last) = (*range.start(), *range.end());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
            });
            for at in ends.chain(lookups.iter().copied()) {
                let found = ranges.find(at).map(|(offset, value)| (offset, *value));
                prop_assert_eq!(found, model.find(at));
            }
        }
    }
}
