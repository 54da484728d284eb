//! One visit of a VM's changed pages.

use super::changes::{count, linear_index};
use super::locked::Locking;
use super::price::Terms;
use super::runs::{Target, Want};
use super::scan::{Content, Resident};
use super::{Agent, AgentError};
use crate::LinearIndex;
use crate::mode::DedupMode;
use crate::protocol::{Broker, Decision, Offer};

/// Pages that are read, offered and merged before the next ones are looked at.
pub(super) const BATCH_PAGES: u32 = 4096;

/// Pages that are passed by at once when there is nothing to look at.
pub(super) const STRETCH_PAGES: usize = 1 << 18;

/// Passing by so many counts as looking at one: a bound on how long a step takes in memory that
/// nobody has touched.
const PASSED_PER_PAGE: usize = 256;

/// What an agent is to make of what it finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRules {
    /// Pass over pages that keep changing.
    pub(crate) smart_scan: bool,
    /// Give pages of zeroes back.
    pub(crate) use_zero_pages: bool,
}

impl Agent {
    /// Begins a visit: finds out which pages have changed. Those are to be [taken in](Self::take_in),
    /// and then those that are unchanged since the last pass are to be [looked at](Self::look).
    ///
    /// # Errors
    ///
    /// When the kernel does not say what changed, or the broker fails. There is nothing to look at.
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
        let is_scanning = is_scanning && self.locking == Locking::Unlocked;
        self.todo.clear();
        (self.cursor, self.taken_in, self.is_scanning) = (0, self.fresh.len(), is_scanning);
        if is_scanning {
            self.requeue_deferred();
        }
        self.unshare_lone(broker)?;
        self.watch_as_needed()?;
        if !self.changes.is_on {
            return Ok(());
        }
        self.collect()?;
        self.sweep()?;
        self.taken_in = 0;
        if self.budget.is_short() {
            self.stale.begin();
        }
        Ok(())
    }

    /// Looks at the next `limit` pages at most of those that are to be looked at; says how much of
    /// the limit that took, or `None` if all have been.
    ///
    /// # Errors
    ///
    /// When the kernel does not say what is there, or the broker fails. What was merged stays so;
    /// the rest is looked at by the next pass.
    pub(crate) fn look(
        &mut self,
        broker: &mut dyn Broker,
        limit: u32,
        rules: ScanRules,
    ) -> Result<Option<u32>, AgentError> {
        if self.cursor >= self.todo.len() {
            return Ok(None);
        }
        self.catch_up(broker)?;
        let limit = limit.clamp(1, BATCH_PAGES) as usize;
        // So many at least that passing by pages that are not there has a bound in a step, too.
        let at_least = limit.max(PASSED_PER_PAGE);
        let mut end = self.todo.stretch(self.cursor, at_least, STRETCH_PAGES);
        let Resident { mut pages, mut swapped } = self.resident(self.cursor..end)?;
        if let Some(&over) = pages.get(limit) {
            pages.truncate(limit);
            end = over;
            swapped.retain(|&page| page < end);
        }
        self.pending.subtract_within(&self.todo, self.cursor..end);
        // Looked at when they return: nothing is read in for it.
        for page in swapped {
            self.pending.insert(page);
        }
        let taken = count(pages.len() + (end - self.cursor) / PASSED_PER_PAGE);
        self.cursor = end;
        if let Err(error) = self.fold_calm(broker, &mut pages, rules) {
            for &page in pages.iter().filter(|&&page| !self.shared.contains(page)) {
                self.pending.insert(page);
            }
            return Err(error);
        }
        Ok(Some(taken))
    }

    /// Reads pages that have come to rest, but for those that are to be passed over, and folds them.
    fn fold_calm(
        &mut self,
        broker: &mut dyn Broker,
        pages: &mut Vec<usize>,
        rules: ScanRules,
    ) -> Result<(), AgentError> {
        if rules.smart_scan {
            self.pass_over(broker, pages)?;
        }
        self.fold(broker, pages, rules)
    }

    /// Drops pages that keep changing, and are not to be looked at this time.
    fn pass_over(
        &mut self,
        broker: &mut dyn Broker,
        pages: &mut Vec<usize>,
    ) -> Result<(), AgentError> {
        let linears: Vec<LinearIndex> = pages.iter().map(|&page| linear_index(page)).collect();
        let mut skip = Vec::with_capacity(linears.len());
        broker.age(self.vm, &linears, &mut skip)?;
        let mut skips = skip.into_iter();
        pages.retain(|&page| {
            let skipped = skips.next().unwrap_or(false);
            if skipped {
                self.pending.insert(page);
                self.events.pages_skipped += 1;
                self.backlog_pages += u64::from(!self.touched.contains(page));
            }
            !skipped
        });
        Ok(())
    }

    /// Reads pages, gives zeroes back, and offers the others.
    fn fold(
        &mut self,
        broker: &mut dyn Broker,
        pages: &[usize],
        rules: ScanRules,
    ) -> Result<(), AgentError> {
        let contents = self.read(pages, rules.use_zero_pages);
        let (mut targets, mut offers) = (Vec::new(), Vec::new());
        for (&page, content) in pages.iter().zip(contents) {
            let linear = linear_index(page);
            match content {
                Content::Zero => targets.push(Target { linear, want: Want::Zero }),
                Content::Data(fingerprint) if self.mode == DedupMode::On => {
                    offers.push(Offer { linear, fingerprint });
                }
                Content::Data(_) => {}
            }
        }
        let mut decisions = Vec::with_capacity(offers.len());
        broker.offer(self.vm, &offers, &mut decisions)?;
        self.offer_named(broker, &offers, &mut decisions)?;
        for (Offer { linear, .. }, decision) in offers.into_iter().zip(decisions) {
            match decision {
                Decision::Wait => {
                    self.waiting.insert(linear.0 as usize);
                }
                Decision::Keep | Decision::Name => {
                    self.pending.insert(linear.0 as usize);
                }
                Decision::Join(slot) => targets.push(Target { linear, want: Want::Share(slot) }),
            }
        }
        targets.sort_unstable_by_key(|target| target.linear);
        self.carry_out(broker, targets, &Terms::default(), Vec::new())
    }

    /// Offers pages once more that the broker wants named, and puts what it says of them in the place
    /// of that.
    fn offer_named(
        &mut self,
        broker: &mut dyn Broker,
        offers: &[Offer],
        decisions: &mut [Decision],
    ) -> Result<(), AgentError> {
        let wanted = |(_, decision): &(&Offer, &mut Decision)| **decision == Decision::Name;
        let (linears, places): (Vec<LinearIndex>, Vec<&mut Decision>) = offers
            .iter()
            .zip(decisions)
            .filter(wanted)
            .map(|(offer, decision)| (offer.linear, decision))
            .unzip();
        if linears.is_empty() {
            return Ok(());
        }
        let mut named = Vec::with_capacity(places.len());
        broker.offer_named(self.vm, &self.name(&linears), &mut named)?;
        places.into_iter().zip(named).for_each(|(place, decision)| *place = decision);
        Ok(())
    }
}
