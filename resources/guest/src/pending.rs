//! Pages that hold scratch content until they are due to be written back.

/// At most `N` pages with the times they are due, in no order.
#[derive(Clone, Debug)]
pub struct Pending<const N: usize> {
    entries: [Entry; N],
    len: usize,
    /// No entry is due before this.
    earliest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: u64,
    page: u32,
}

impl<const N: usize> Pending<N> {
    /// Nothing pending.
    pub const fn new() -> Self {
        Self { entries: [Entry { due: 0, page: 0 }; N], len: 0, earliest: u64::MAX }
    }

    /// How many pages are pending.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no page is pending.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether another page would not fit.
    pub const fn is_full(&self) -> bool {
        self.len == N
    }

    /// Adds a page that is due at time `due`; `false`, and nothing added, if there is no room.
    #[must_use]
    pub fn push(&mut self, page: u32, due: u64) -> bool {
        if self.is_full() {
            return false;
        }
        self.entries[self.len] = Entry { due, page };
        self.len += 1;
        self.earliest = self.earliest.min(due);
        true
    }

    /// Takes a page that is due at time `now`; linear in the pages pending if one may be.
    pub fn pop_due(&mut self, now: u64) -> Option<u32> {
        if now < self.earliest {
            return None;
        }
        let mut earliest = u64::MAX;
        for index in 0..self.len {
            let due = self.entries[index].due;
            if due <= now {
                return Some(self.remove(index));
            }
            earliest = earliest.min(due);
        }
        self.earliest = earliest;
        None
    }

    /// Takes any page.
    pub fn pop(&mut self) -> Option<u32> {
        let last = self.len.checked_sub(1)?;
        Some(self.remove(last))
    }

    fn remove(&mut self, index: usize) -> u32 {
        let page = self.entries[index].page;
        self.len -= 1;
        self.entries[index] = self.entries[self.len];
        page
    }
}

impl<const N: usize> Default for Pending<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_list_takes_no_more() {
        let mut pending = Pending::<2>::new();
        assert!(pending.push(1, 10) && pending.push(2, 5));
        assert!(!pending.push(3, 1));
        assert_eq!((pending.pop_due(4), pending.pop_due(5)), (None, Some(2)));
        assert_eq!((pending.pop(), pending.pop()), (Some(1), None));
    }

    proptest! {
        #[test]
        fn pages_come_out_when_they_are_due(
            steps in prop::collection::vec((0u64..20, prop::option::of(0u64..50)), 1..100),
        ) {
            let mut pending = Pending::<16>::new();
            let mut model: Vec<(u64, u32)> = Vec::new();
            let (mut now, mut next_page) = (0, 0);
            for (pass, push_after) in steps {
                now += pass;
                if let Some(after) = push_after {
                    next_page += 1;
                    prop_assert_eq!(pending.push(next_page, now + after), model.len() < 16);
                    if model.len() < 16 {
                        model.push((now + after, next_page));
                    }
                } else {
                    let mut due: Vec<u32> =
                        core::iter::from_fn(|| pending.pop_due(now)).collect();
                    due.sort_unstable();
                    let mut want: Vec<u32> =
                        model.extract_if(.., |(at, _)| *at <= now).map(|(_, page)| page).collect();
                    want.sort_unstable();
                    prop_assert_eq!(due, want);
                }
                prop_assert_eq!(pending.len(), model.len());
            }
        }
    }
}
