//! Directives: what is to be done with pages that were not offered just now.

use super::runs::{Target, Want, declined};
use super::terms::{Creator, Terms};
use crate::agent::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::protocol::{Broker, Directive, Outcome};
use crate::types::count;
use crate::{LinearIndex, Slot};

/// Pages for which there was no memory that a visit tries again, at most.
const RETRIED_PAGES: usize = 256;

impl Agent {
    /// Polls the broker for directives and executes them: for `limit` pages at most, and as many as
    /// the step has room for. Returns for how many.
    ///
    /// # Errors
    ///
    /// When the broker fails. Every page is in a state that the next pass handles.
    pub(crate) fn poll(&mut self, broker: &mut dyn Broker, limit: u32) -> Result<u32, AgentError> {
        self.flush_outbox(broker)?;
        let mut directives = Vec::new();
        let limit = limit.max(1).min(self.work.room_to_fill());
        broker.directives(self.vm, limit as usize, &mut directives)?;
        self.work.directed_pages += 1 + directives.len() as u64;
        self.apply_directives(broker, &directives, Terms::default())?;
        if !directives.is_empty() {
            // Others see what is left of what the VM shares.
            self.count_mappings(self.vmas);
        }
        Ok(count(directives.len()))
    }

    /// Moves pages to other slots, by directives that the broker has just given in ascending order, for a caller that
    /// has established that this is worth its cost.
    ///
    /// # Errors
    ///
    /// As for [`poll`](Self::poll).
    pub(crate) fn move_pages(
        &mut self,
        broker: &mut dyn Broker,
        directives: &[Directive],
    ) -> Result<(), AgentError> {
        self.apply_directives(broker, directives, Terms { is_worth_it: true, ..Terms::default() })
    }

    /// Executes directives, which the broker has just given in ascending order, on `terms` that they add to.
    fn apply_directives(
        &mut self,
        broker: &mut dyn Broker,
        directives: &[Directive],
        mut terms: Terms,
    ) -> Result<(), AgentError> {
        let (mut targets, mut outcomes) = (Vec::new(), Vec::new());
        for directive in directives {
            if directive.linear() >= self.dirty.end() {
                log::error!("VM {}: the broker directs {directive:?}: no such page", self.vm);
                self.events.errors += 1;
                continue;
            }
            let (linear, slot) = match *directive {
                Directive::Create { linear, slot, partners, apart } => {
                    let apart = apart.min(partners);
                    let goes_on = self.goes_on(linear, slot);
                    terms.creators.push(Creator { linear, slot, partners, apart, goes_on });
                    (linear, slot)
                }
                Directive::Merge { linear, slot, awaited } => {
                    if awaited {
                        terms.awaited.push(linear);
                    }
                    (linear, slot)
                }
                Directive::Offer { linear } => {
                    if self.end_offer(linear) {
                        self.dirty.insert(linear);
                        self.note_work(linear.run(1));
                    }
                    continue;
                }
                Directive::Unshare { linear } => {
                    self.unshare(linear, &mut outcomes);
                    continue;
                }
            };
            self.end_offer(linear);
            if !self.may_share(linear) || !self.has_slot(slot) {
                // Forbidden since it was offered, or since it was to go elsewhere. A slot that it was to
                // fill stays empty.
                if !self.shared.contains(linear) {
                    self.dirty.insert(linear);
                }
                outcomes.push(declined((linear, slot)));
                continue;
            }
            targets.push(Target { linear, want: Want::Share(slot) });
        }
        if let Err(error) = self.execute(broker, targets, &terms, outcomes) {
            for page in directives.iter().map(Directive::linear) {
                if page < self.dirty.end() {
                    self.look_once_more(page);
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// Whether the page before lies over the slot before, and shares it: a run of them was cut between two batches.
    fn goes_on(&self, linear: LinearIndex, slot: Slot) -> bool {
        let before = linear.0.checked_sub(1).map(LinearIndex);
        before.is_some_and(|page| {
            self.shared.contains(page)
                && self.extents.slot(page).is_some_and(|before| before.offset(1) == slot)
        })
    }

    /// Has a page count neither as offered nor as deferred any more. Returns whether it did.
    fn end_offer(&mut self, page: LinearIndex) -> bool {
        self.offered.remove(page) || self.deferred.remove(page)
    }

    /// Whether a page may go to a slot: what shares one may go to another until it is unmerged.
    fn may_share(&self, page: LinearIndex) -> bool {
        let is_wanted = self.mode == DedupMode::On && !self.is_excluded(page);
        self.can_map() && !self.is_locked(page) && (is_wanted || self.shared.contains(page))
    }

    /// Whether the store has a slot that the broker names; that it has not is an error of the broker's.
    pub(in crate::agent) fn has_slot(&mut self, slot: Slot) -> bool {
        let has = self.store.view.has(slot);
        if !has {
            log::error!("VM {}: the broker names slot {}, which the store lacks", self.vm, slot.0);
            self.events.errors += 1;
        }
        has
    }

    /// Makes pages private for which there was no memory when they were to be made so.
    ///
    /// # Errors
    ///
    /// When the broker fails.
    pub(in crate::agent) fn retry_unsharing(
        &mut self,
        broker: &mut dyn Broker,
    ) -> Result<(), AgentError> {
        let mut outcomes = Vec::new();
        // Others are made private by the next visits.
        let some = self.unshare_retry.len().saturating_sub(RETRIED_PAGES);
        for linear in self.unshare_retry.split_off(some) {
            if self.shared.contains(linear) {
                self.unshare(linear, &mut outcomes);
            }
        }
        self.report(broker, outcomes)
    }

    /// Makes a page private again that has no other sharers.
    pub(in crate::agent) fn unshare(&mut self, linear: LinearIndex, outcomes: &mut Vec<Outcome>) {
        self.work.mapped_runs += 1;
        self.work.mapped_pages += 1;
        match self.space.span(linear, 1).populate_write() {
            Ok(()) => {
                self.shared.remove(linear);
                self.own_copies.forget(linear.run(1));
                self.stale.note_left(!self.backlog.changed_since_mark.contains(linear));
                // Offered again by the next pass: its twin may be unchanged by then.
                self.dirty.insert(linear);
                self.events.unshares += 1;
                self.note_work(linear.run(1));
                outcomes.push(Outcome::Left { linear });
            }
            Err(error) => {
                log::debug!("VM {}: cannot make page {linear} private: {error}", self.vm);
                self.events.errors += 1;
                self.unshare_retry.push(linear);
            }
        }
    }
}
