//! One visit of a VM's changed pages.

use std::collections::VecDeque;

use super::scan::{Content, Resident};
use crate::LinearIndex;
use crate::agent::merge::runs::{Target, Want, declined};
use crate::agent::merge::terms::Terms;
use crate::agent::stretch::STRETCH_PAGES;
use crate::agent::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::page_range::PageRange;
use crate::protocol::{Broker, Decision, Offer};
use crate::types::count;

/// Pages that are read ahead of those that are offered, at least, however little of a step is left.
const LEAST_PAGES: u32 = 512;

/// Passing by so many counts as looking at one: a bound on how long a step takes in memory that
/// nobody has touched.
const PASSED_PER_PAGE: u32 = 256;

/// What an agent is to make of what it finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRules {
    /// Pass over pages that keep changing.
    pub(crate) smart_scan: bool,
    /// Give pages of zeroes back.
    pub(crate) use_zero_pages: bool,
}

impl Agent {
    /// Begins a visit: pages that have changed are to be [taken in](Self::take_in), and then those that
    /// are unchanged since the last pass are to be [looked at](Self::look).
    ///
    /// # Errors
    ///
    /// When the source cannot be switched on, or the broker fails. There is nothing to look at.
    pub(crate) fn begin_pass(&mut self, broker: &mut dyn Broker) -> Result<(), AgentError> {
        self.begin_visit(broker, self.mode != DedupMode::Off)
    }

    /// Begins a visit in which nothing is folded: what has changed is to be
    /// [taken in](Self::take_in), and that is all.
    ///
    /// # Errors
    ///
    /// As for [`begin_pass`](Self::begin_pass).
    pub(crate) fn begin_collecting(&mut self, broker: &mut dyn Broker) -> Result<(), AgentError> {
        self.begin_visit(broker, false)
    }

    fn begin_visit(
        &mut self,
        broker: &mut dyn Broker,
        is_scanning: bool,
    ) -> Result<(), AgentError> {
        self.notice_locked();
        let is_scanning = is_scanning && self.can_map();
        self.visit.scan_set.clear();
        self.visit.read_ahead = VecDeque::new();
        (self.visit.cursor, self.visit.taken_in, self.visit.is_scanning) =
            (LinearIndex(0), self.undrained_dirty.end(), is_scanning);
        self.note_held_back(is_scanning);
        let may_move = self.move_delay.begin_pass();
        if is_scanning {
            self.begin_retry();
            self.begin_reclaim(may_move);
        } else {
            self.end_retry();
        }
        self.mark_unmarked();
        self.retry_unsharing(broker)?;
        self.watch_as_needed()?;
        if may_move && (self.budget.is_short() || self.stale.was_called_off()) {
            self.stale.begin();
        }
        if self.changes.is_on {
            (self.visit.collected, self.visit.taken_in) = (LinearIndex(0), LinearIndex(0));
            self.visit.is_sweeping = true;
        }
        Ok(())
    }

    /// Looks at the next `limit` pages at most of those that are to be looked at, as many as the step
    /// has room for. Returns how much of the limit that took, or `None` if all have been.
    ///
    /// # Errors
    ///
    /// When the page map cannot be read, or the broker fails. What was merged stays so;
    /// the rest is looked at by the next pass.
    pub(crate) fn look(
        &mut self,
        broker: &mut dyn Broker,
        limit: u32,
        rules: ScanRules,
    ) -> Result<Option<u32>, AgentError> {
        let limit = limit.max(1);
        if self.visit.read_ahead.is_empty() && self.visit.cursor >= self.visit.scan_set.end() {
            return Ok(None);
        }
        self.flush_outbox(broker)?;
        let passed = if self.visit.read_ahead.is_empty() {
            self.read_next(broker, limit.min(self.work.room_to_read()), rules)?
        } else {
            0
        };
        Ok(Some(passed + self.offer_next(broker, limit)?))
    }

    /// Reads the next `limit` pages at most, but for those that are to be passed over. Returns
    /// what the search for them took of the limit.
    fn read_next(
        &mut self,
        broker: &mut dyn Broker,
        limit: u32,
        rules: ScanRules,
    ) -> Result<u32, AgentError> {
        // So many at least that passing by pages that are not there has a bound in a step, too.
        let at_least = limit.max(PASSED_PER_PAGE);
        let most = STRETCH_PAGES.min(self.work.room_to_search().max(LEAST_PAGES));
        let start = self.visit.cursor;
        let mut within = start..self.visit.scan_set.stretch(start, at_least, most);
        let Resident { mut pages, mut swapped } = self.resident(within.clone())?;
        self.work.searched_pages += u64::from(within.page_count());
        if let Some(&over) = pages.get(limit as usize) {
            pages.truncate(limit as usize);
            within.end = over;
            swapped.retain(|&page| page < over);
        }
        self.dirty.subtract_within(&self.visit.scan_set, within.clone());
        // Looked at when they return: nothing is read in for it.
        for &page in swapped.iter().chain(&pages) {
            self.dirty.insert(page);
        }
        self.visit.cursor = within.end;
        if rules.smart_scan {
            self.pass_over(broker, &mut pages)?;
        }
        let contents = self.read(&pages, rules.use_zero_pages);
        self.visit.read_ahead.extend(pages.into_iter().zip(contents));
        Ok(within.page_count() / PASSED_PER_PAGE)
    }

    /// Offers, and folds, the next `limit` pages at most of those that have been read, as many as the
    /// step has room for. Returns how many.
    fn offer_next(&mut self, broker: &mut dyn Broker, limit: u32) -> Result<u32, AgentError> {
        let mut offered = 0;
        while offered < limit && !self.visit.read_ahead.is_empty() && !self.work.is_enough() {
            let some = self.work.room_to_map().min(limit - offered) as usize;
            let some = some.min(self.visit.read_ahead.len());
            let read: Vec<(LinearIndex, Content)> = self.visit.read_ahead.drain(..some).collect();
            offered += count(some);
            if let Err(error) = self.fold(broker, &read) {
                for &(page, _) in &read {
                    self.look_once_more(page);
                }
                return Err(error);
            }
        }
        if self.visit.read_ahead.is_empty() {
            // Taken only while there is something in it: there may be many VMs.
            self.visit.read_ahead = VecDeque::new();
        }
        Ok(offered)
    }

    /// Has a page be looked at by the next pass of which nothing is known, because the broker failed.
    pub(in crate::agent) fn look_once_more(&mut self, page: LinearIndex) {
        if !self.is_known(page) {
            self.dirty.insert(page);
        }
    }

    /// Drops pages that keep changing, and are not to be looked at this time.
    fn pass_over(
        &mut self,
        broker: &mut dyn Broker,
        pages: &mut Vec<LinearIndex>,
    ) -> Result<(), AgentError> {
        let mut skip = Vec::with_capacity(pages.len());
        broker.age(self.vm, pages, &mut skip)?;
        let mut skips = skip.into_iter();
        pages.retain(|&page| {
            let skipped = skips.next().unwrap_or(false);
            if skipped {
                self.events.pages_skipped += 1;
                self.backlog.pages += u64::from(!self.backlog.changed_since_mark.contains(page));
            }
            !skipped
        });
        Ok(())
    }

    /// Gives back those of pages that hold zeroes, and offers the others, unless it has been called off
    /// since they were read.
    fn fold(
        &mut self,
        broker: &mut dyn Broker,
        read: &[(LinearIndex, Content)],
    ) -> Result<(), AgentError> {
        let (mut targets, mut offers) = (Vec::new(), Vec::new());
        for &(linear, content) in read {
            let is_wanted = self.mode != DedupMode::Off && !self.is_excluded(linear);
            if !is_wanted || self.is_locked(linear) || !self.dirty.remove(linear) {
                continue;
            }
            match content {
                Content::Zero => targets.push(Target { linear, want: Want::Zero }),
                Content::Data(fingerprint) if self.mode == DedupMode::On => {
                    offers.push(Offer { linear, fingerprint });
                }
                Content::Data(_) => {}
            }
        }
        let (mut decisions, mut outcomes) = (Vec::with_capacity(offers.len()), Vec::new());
        self.work.offered_pages += offers.len() as u64;
        broker.offer(self.vm, &offers, &mut decisions)?;
        // What was decided of the others holds even if this fails: the broker has them in its trees.
        let identified = self.offer_by_identity(broker, &offers, &mut decisions);
        for (Offer { linear, .. }, decision) in offers.into_iter().zip(decisions) {
            match decision {
                Decision::Wait => {
                    self.offered.insert(linear);
                }
                Decision::Keep | Decision::Identify => {
                    self.dirty.insert(linear);
                }
                Decision::Join(slot) if self.has_slot(slot) => {
                    targets.push(Target { linear, want: Want::Share(slot) });
                }
                Decision::Join(slot) => {
                    self.dirty.insert(linear);
                    outcomes.push(declined((linear, slot)));
                }
            }
        }
        targets.sort_unstable_by_key(|target| target.linear);
        self.execute(broker, targets, &Terms::default(), outcomes)?;
        identified
    }

    /// Offers pages by their identities where the decision was [`Decision::Identify`], and replaces that by the decision
    /// about the identity.
    ///
    /// # Errors
    ///
    /// When the broker fails: the decisions are as they were.
    fn offer_by_identity(
        &mut self,
        broker: &mut dyn Broker,
        offers: &[Offer],
        decisions: &mut [Decision],
    ) -> Result<(), AgentError> {
        let wanted = |(_, decision): &(&Offer, &mut Decision)| **decision == Decision::Identify;
        let (linears, places): (Vec<LinearIndex>, Vec<&mut Decision>) = offers
            .iter()
            .zip(decisions)
            .filter(wanted)
            .map(|(offer, decision)| (offer.linear, decision))
            .unzip();
        if linears.is_empty() {
            return Ok(());
        }
        let mut decided = Vec::with_capacity(places.len());
        let identities = self.identify(&linears);
        broker.offer_by_identity(self.vm, &identities, &mut decided)?;
        places.into_iter().zip(decided).for_each(|(place, decision)| *place = decision);
        Ok(())
    }
}
