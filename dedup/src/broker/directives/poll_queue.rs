//! The pages of one VM for which a poll may find directives.
//!
//! | a page is | because | and due again |
//! |---|---|---|
//! | due | a directive for it may have become possible | |
//! | parked | another agent must fill its node's slot first | when a poll begins and nothing is due |
//! | lacking a slot | the store was full | likewise, as many as there is room for; or when its node gets a slot |
//! | awaiting a retry | who was to fill its node's slot is about to retry | when it is filled, or none is retried |
//! | deferred | its agent has no VMAs to spare for it | when another page has filled its node's slot |
//! | retried | it is deferred, and its agent is about to offer it again | when it is offered |
//!
//! A page is in one of `due`, `parked`, `lacking` and `awaiting_retry` at most, and polled some time if it is in one.
//! What is parked, lacks a slot or awaits a retry is *set aside*. `deferred` guarantees no poll: such a page may be due
//! as well, or be on the unstable tree, until it is given a directive, offered again, or leaves.
#![forbid(unsafe_code)]

use crate::LinearIndex;
use crate::page_set::PageSet;

/// Pages in the order in which directives are given: ascending, round by round.
///
/// A page that is added during a round belongs to it if the round has not passed that page
/// yet, and otherwise to the next. So nothing is ever sorted, however often pages are added.
#[derive(Debug)]
pub(in crate::broker) struct PollQueue {
    due: Pages,
    /// The first page that this round has not passed.
    next: LinearIndex,
    parked: Pages,
    lacking: Pages,
    /// `None` where there are none.
    awaiting_retry: Option<Box<Pages>>,
    deferred: Option<Box<Pages>>,
    /// Some of the deferred.
    retried: Option<Box<Pages>>,
}

/// A set of pages, and how many there are.
#[derive(Debug)]
struct Pages {
    set: PageSet,
    count: u32,
}

impl Pages {
    fn new(page_count: u32) -> Self {
        Self { set: PageSet::new(page_count), count: 0 }
    }

    fn insert(&mut self, page: LinearIndex) {
        self.count += u32::from(self.set.insert(page));
    }

    fn remove(&mut self, page: LinearIndex) -> bool {
        let had = self.set.remove(page);
        self.count -= u32::from(had);
        if had && self.count == 0 {
            self.set.clear();
        }
        had
    }

    fn iter(&self) -> impl Iterator<Item = LinearIndex> + '_ {
        self.set.iter()
    }

    /// Takes the first page from `start` on. O(pages / 64), and nothing for stretches without any.
    fn take_from(&mut self, start: LinearIndex) -> Option<LinearIndex> {
        if self.count == 0 {
            return None;
        }
        let page = self.set.first_from(start)?;
        self.remove(page);
        Some(page)
    }
}

impl PollQueue {
    /// An empty queue of a VM of so many pages.
    pub(in crate::broker) fn new(page_count: u32) -> Self {
        let pages = || Pages::new(page_count);
        Self {
            due: pages(),
            next: LinearIndex(0),
            parked: pages(),
            lacking: pages(),
            awaiting_retry: None,
            deferred: None,
            retried: None,
        }
    }

    /// Has a page be due. O(1).
    pub(in crate::broker) fn insert(&mut self, linear: LinearIndex) {
        self.remove(linear);
        self.due.insert(linear);
    }

    /// Parks a page that is not due. O(1).
    pub(in crate::broker) fn park(&mut self, linear: LinearIndex) {
        self.parked.insert(linear);
    }

    /// Notes that a page that is not due lacks a slot. O(1).
    pub(in crate::broker) fn set_lacking(&mut self, linear: LinearIndex) {
        self.lacking.insert(linear);
    }

    /// Whether a page lacks a slot. O(1).
    pub(in crate::broker) fn is_lacking(&self, linear: LinearIndex) -> bool {
        self.lacking.set.contains(linear)
    }

    /// Whether any page lacks a slot.
    pub(in crate::broker) fn has_lacking(&self) -> bool {
        self.lacking.count > 0
    }

    /// Has a page be due that lacked a slot, as its node has one now. O(1).
    pub(in crate::broker) fn end_lack(&mut self, linear: LinearIndex) {
        if self.lacking.remove(linear) {
            self.insert(linear);
        }
    }

    /// Has an undirected page wait for another of its content, which was deferred, to be tried again. O(1).
    pub(in crate::broker) fn await_retry(&mut self, linear: LinearIndex) {
        self.remove(linear);
        let page_count = self.due.set.page_count();
        self.awaiting_retry.get_or_insert_with(|| Box::new(Pages::new(page_count))).insert(linear);
    }

    /// Whether a page awaits a retry. O(1).
    pub(in crate::broker) fn is_awaiting_retry(&self, linear: LinearIndex) -> bool {
        self.awaiting_retry.as_ref().is_some_and(|pages| pages.set.contains(linear))
    }

    /// Whether any page awaits a retry. O(1).
    pub(in crate::broker) fn has_awaiting_retry(&self) -> bool {
        self.awaiting_retry.as_ref().is_some_and(|pages| pages.count > 0)
    }

    /// Has all pages be due that await a retry. O(pages / 64).
    pub(in crate::broker) fn end_retries(&mut self) {
        if let Some(pages) = self.awaiting_retry.take() {
            self.due.set.union_with(&pages.set);
            self.due.count += pages.count;
        }
    }

    /// Notes that its agent has deferred a page. O(1).
    pub(in crate::broker) fn defer(&mut self, linear: LinearIndex) {
        let page_count = self.due.set.page_count();
        self.deferred.get_or_insert_with(|| Box::new(Pages::new(page_count))).insert(linear);
    }

    /// Notes that a page is not deferred any more; returns whether it was. O(1).
    pub(in crate::broker) fn end_deferral(&mut self, linear: LinearIndex) -> bool {
        remove_from(&mut self.retried, linear);
        remove_from(&mut self.deferred, linear)
    }

    /// Notes that its agent is about to offer a page again which is deferred. O(1).
    pub(in crate::broker) fn retry(&mut self, linear: LinearIndex) {
        let page_count = self.due.set.page_count();
        self.retried.get_or_insert_with(|| Box::new(Pages::new(page_count))).insert(linear);
    }

    /// Whether its agent is about to offer a page again. O(1).
    pub(in crate::broker) fn is_retried(&self, linear: LinearIndex) -> bool {
        self.retried.as_ref().is_some_and(|retried| retried.set.contains(linear))
    }

    /// Whether its agent is about to offer any page again. O(1).
    pub(in crate::broker) fn has_retried(&self) -> bool {
        self.retried.is_some()
    }

    /// The first pages, `most` at most, that its agent is about to offer again, which are only deferred from now on.
    /// O(pages / 64).
    pub(in crate::broker) fn take_retried(&mut self, most: usize) -> Vec<LinearIndex> {
        let pages: Vec<_> = self.retried.iter().flat_map(|pages| pages.iter()).take(most).collect();
        for &page in &pages {
            remove_from(&mut self.retried, page);
        }
        pages
    }

    /// Whether its agent has deferred a page. O(1).
    pub(in crate::broker) fn is_deferred(&self, linear: LinearIndex) -> bool {
        self.deferred.as_ref().is_some_and(|deferred| deferred.set.contains(linear))
    }

    /// How many pages are deferred. O(1).
    pub(in crate::broker) fn deferred_count(&self) -> u64 {
        self.deferred.as_ref().map_or(0, |deferred| u64::from(deferred.count))
    }

    /// Begins a poll: if nothing is due, what was parked is, and of what lacks a slot as many pages as
    /// the store has `room` for. O(what becomes due + pages / 64).
    pub(in crate::broker) fn begin_poll(&mut self, room: u32) {
        if self.due.count > 0 {
            return;
        }
        if self.parked.count > 0 {
            std::mem::swap(&mut self.due, &mut self.parked);
        }
        let mut start = LinearIndex(0);
        for _ in 0..room.min(self.lacking.count) {
            let Some(page) = self.lacking.take_from(start) else { break };
            self.due.insert(page);
            start = page;
        }
        self.next = LinearIndex(0);
    }

    /// Takes the next page of this round. O(1) amortized over a round.
    pub(in crate::broker) fn pop(&mut self) -> Option<LinearIndex> {
        let page = self.due.take_from(self.next)?;
        self.next = page.offset(1);
        Some(page)
    }

    /// Begins a new round if pages are due that the last one had passed; returns whether there are.
    pub(in crate::broker) fn begin_round(&mut self) -> bool {
        self.next = LinearIndex(0);
        self.due.count > 0
    }

    /// Whether a page is due, set aside or deferred: all but the last guarantee that it is polled.
    pub(in crate::broker) fn contains(&self, linear: LinearIndex) -> bool {
        self.sets().any(|pages| pages.set.contains(linear))
    }

    /// Has a page be neither due nor set aside. It stays deferred if it is: see
    /// [`end_deferral`](Self::end_deferral). O(1).
    pub(in crate::broker) fn remove(&mut self, linear: LinearIndex) {
        let sets = [&mut self.due, &mut self.parked, &mut self.lacking];
        for pages in sets.into_iter().chain(self.awaiting_retry.as_deref_mut()) {
            if pages.count > 0 {
                pages.remove(linear);
            }
        }
    }

    /// The pages that are due in this round or the next, ascending.
    pub(in crate::broker) fn due(&self) -> impl Iterator<Item = LinearIndex> + '_ {
        self.due.iter()
    }

    /// The pages that have been set aside.
    pub(in crate::broker) fn set_aside(&self) -> impl Iterator<Item = LinearIndex> + '_ {
        let awaiting_retry = self.awaiting_retry.iter().flat_map(|pages| pages.iter());
        self.parked.iter().chain(self.lacking.iter()).chain(awaiting_retry)
    }

    /// The pages that are deferred.
    pub(in crate::broker) fn pages_deferred(&self) -> impl Iterator<Item = LinearIndex> + '_ {
        self.deferred.iter().flat_map(|deferred| deferred.iter())
    }

    /// Verifies that the pages are counted. O(pages / 64).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker) fn check(&self) -> Result<(), String> {
        let names = ["due", "parked", "lacking a slot"].into_iter();
        let names = names.chain(self.awaiting_retry.iter().map(|_| "awaiting a retry"));
        let names = names.chain(self.deferred.iter().map(|_| "deferred"));
        let names = names.chain(self.retried.iter().map(|_| "retried"));
        for (what, pages) in names.zip(self.sets()) {
            let found = pages.set.count();
            if found != pages.count {
                return Err(format!("{found} pages are {what}, {} counted", pages.count));
            }
        }
        let mut retried = self.retried.iter().flat_map(|retried| retried.iter());
        match retried.find(|&page| !self.is_deferred(page)) {
            Some(page) => Err(format!("page {} is retried, and not deferred", page.0)),
            None => Ok(()),
        }
    }

    /// Bytes on the heap.
    pub(in crate::broker) fn heap_bytes(&self) -> usize {
        self.sets().map(|pages| pages.set.heap_bytes()).sum()
    }

    fn sets(&self) -> impl Iterator<Item = &Pages> {
        let sets = [&self.due, &self.parked, &self.lacking].into_iter();
        let sets = sets.chain(self.awaiting_retry.as_deref()).chain(self.deferred.as_deref());
        sets.chain(self.retried.as_deref())
    }
}

/// Takes a page out of a set, which is none when it is empty; returns whether it was in it.
fn remove_from(pages: &mut Option<Box<Pages>>, linear: LinearIndex) -> bool {
    let had = pages.as_mut().is_some_and(|pages| pages.remove(linear));
    *pages = pages.take().filter(|pages| pages.count > 0);
    had
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(pages: &[u32]) -> PollQueue {
        let mut queue = PollQueue::new(1000);
        for &page in pages {
            queue.insert(LinearIndex(page));
        }
        queue.begin_poll(0);
        queue
    }

    fn round(queue: &mut PollQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|linear| linear.0).collect()
    }

    #[test]
    fn pages_come_once_and_in_order_and_those_behind_the_round_in_the_next() {
        let mut queue = queue(&[7, 3, 500, 3]);
        assert_eq!(queue.pop(), Some(LinearIndex(3)));
        queue.insert(LinearIndex(2));
        queue.insert(LinearIndex(8));
        assert_eq!(round(&mut queue), [7, 8, 500]);
        assert!(queue.begin_round());
        assert_eq!(round(&mut queue), [2]);
        assert!(!queue.begin_round());
    }

    #[test]
    fn of_pages_without_a_slot_only_as_many_become_due_as_there_is_room_for() {
        let mut queue = queue(&[]);
        (0..100).for_each(|page| queue.set_lacking(LinearIndex(page)));
        queue.park(LinearIndex(990));
        queue.begin_poll(0);
        assert_eq!(round(&mut queue), [990]);
        queue.begin_poll(2);
        assert_eq!(round(&mut queue), [0, 1]);
        queue.end_lack(LinearIndex(50));
        assert!(queue.has_lacking() && !queue.is_lacking(LinearIndex(50)));
        assert!(queue.begin_round());
        assert_eq!(round(&mut queue), [50]);
    }
}
