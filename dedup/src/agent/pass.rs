//! One visit of a VM's changed pages.

use std::collections::HashSet;

use super::changes::{count, linear_index};
use super::runs::{Run, Target, Want, cut};
use super::scan::Content;
use super::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::protocol::{Broker, BrokerError, Decision, Directive, Offer, Outcome};
use crate::{LinearIndex, PAGE_SIZE, Slot};

/// Pages that are read, offered and merged before the next ones are looked at.
const BATCH_PAGES: u32 = 4096;

/// Pages that are passed by at once when there is nothing to look at: a bound on how long a step
/// takes in memory that nobody has touched.
const STRETCH_PAGES: usize = 1 << 18;

/// Pages whose bytes are handed over for new slots in one message.
const FILL_PAGES: usize = 64;

/// What an agent is to make of what it finds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRules {
    /// Pass over pages that keep changing.
    pub(crate) smart_scan: bool,
    /// Give pages of zeroes back.
    pub(crate) use_zero_pages: bool,
}

impl Agent {
    /// Finds out which pages have changed, and which of those have come to rest since the last
    /// pass and are to be looked at by this one, with [`look`](Self::look).
    ///
    /// # Errors
    ///
    /// When the kernel does not say what changed, or the broker fails. There is nothing to look at.
    pub(crate) fn begin_pass(&mut self, broker: &mut dyn Broker) -> Result<(), AgentError> {
        self.todo.clear();
        self.cursor = 0;
        self.requeue_deferred();
        let mut calm = self.take_changes(broker)?;
        if self.mode == DedupMode::Off {
            return Ok(());
        }
        calm.subtract(&self.shared);
        calm.subtract(&self.zero);
        if let Some(excluded) = &self.excluded {
            calm.subtract(excluded);
        }
        self.todo = calm;
        Ok(())
    }

    /// Looks at the next `limit` pages at most of those that are to be looked at; says how many
    /// there were, or `None` if all have been.
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
        let limit = limit.clamp(1, BATCH_PAGES) as usize;
        let mut end = self.todo.stretch(self.cursor, limit, STRETCH_PAGES);
        let mut pages = self.resident(self.cursor..end)?;
        if let Some(&over) = pages.get(limit) {
            pages.truncate(limit);
            end = over;
        }
        self.pending.subtract_within(&self.todo, self.cursor..end);
        self.cursor = end;
        let looked_at = count(pages.len());
        if let Err(error) = self.fold_calm(broker, &mut pages, rules) {
            for &page in pages.iter().filter(|&&page| !self.shared.contains(page)) {
                self.pending.insert(page);
            }
            return Err(error);
        }
        Ok(Some(looked_at))
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

    /// Does what the broker wants of pages that were not offered just now, `limit` pages at most;
    /// says of how many.
    ///
    /// # Errors
    ///
    /// When the broker fails. Every page is in a state that the next pass handles.
    pub(crate) fn follow(
        &mut self,
        broker: &mut dyn Broker,
        limit: u32,
    ) -> Result<u32, AgentError> {
        let mut directives = Vec::new();
        let limit = limit.clamp(1, BATCH_PAGES) as usize;
        broker.directives(self.vm, limit, &mut directives)?;
        let (mut targets, mut creators) = (Vec::new(), Vec::new());
        let mut outcomes = Vec::new();
        for directive in &directives {
            let (linear, slot) = match *directive {
                Directive::Create { linear, slot } => {
                    creators.push((linear, slot));
                    (linear, slot)
                }
                Directive::Merge { linear, slot } => (linear, slot),
                Directive::Unshare { linear } => {
                    self.unshare(linear, &mut outcomes);
                    continue;
                }
            };
            self.waiting.remove(linear.0 as usize);
            targets.push(Target { linear, want: Want::Share(slot) });
        }
        if let Err(error) = self.carry_out(broker, targets, &creators, outcomes) {
            for linear in directives.iter().map(Directive::linear) {
                if !self.shared.contains(linear.0 as usize) {
                    self.pending.insert(linear.0 as usize);
                }
            }
            return Err(error);
        }
        Ok(count(directives.len()))
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
        for (Offer { linear, .. }, decision) in offers.into_iter().zip(decisions) {
            match decision {
                Decision::Wait => {
                    self.waiting.insert(linear.0 as usize);
                }
                Decision::Keep => {
                    self.pending.insert(linear.0 as usize);
                }
                Decision::Join(slot) => targets.push(Target { linear, want: Want::Share(slot) }),
            }
        }
        targets.sort_unstable_by_key(|target| target.linear);
        self.carry_out(broker, targets, &[], Vec::new())
    }

    /// Has targets, ascending, be what they are to be, as far as the budget allows and they still
    /// can, and tells the broker, after `outcomes`. The slots of `creators` are filled first.
    fn carry_out(
        &mut self,
        broker: &mut dyn Broker,
        targets: Vec<Target>,
        creators: &[(LinearIndex, Slot)],
        mut outcomes: Vec<Outcome>,
    ) -> Result<(), AgentError> {
        let mut runs = cut(targets, &self.extents);
        self.within_budget(&mut runs, &mut outcomes);
        let empty = self.fill(broker, &runs, creators)?;
        if !empty.is_empty() {
            runs = self.without(&runs, &empty, &mut outcomes);
        }
        self.merge(&runs, &mut outcomes);
        Ok(broker.report(self.vm, &outcomes)?)
    }

    /// Hands over the bytes for the slots of those `creators` (ascending) that are still part of
    /// `runs`, and returns the new slots that hold nothing: the budget did not allow for the page,
    /// or it had changed.
    fn fill(
        &mut self,
        broker: &mut dyn Broker,
        runs: &[Run],
        creators: &[(LinearIndex, Slot)],
    ) -> Result<HashSet<Slot>, AgentError> {
        let mut empty: HashSet<Slot> = creators.iter().map(|&(_, slot)| slot).collect();
        let is_creator = |(linear, _): &(LinearIndex, Slot)| {
            creators.binary_search_by_key(linear, |&(creator, _)| creator).is_ok()
        };
        let fills: Vec<(LinearIndex, Slot)> =
            runs.iter().flat_map(Run::shares).filter(is_creator).collect();
        let (mut bytes, mut accepted) = (Vec::new(), Vec::new());
        let neighbours =
            |one: &(LinearIndex, Slot), next: &(LinearIndex, Slot)| one.1.offset(1) == next.1;
        for batch in fills.chunk_by(neighbours).flat_map(|batch| batch.chunks(FILL_PAGES)) {
            bytes.resize(batch.len() * PAGE_SIZE, 0);
            for (&(linear, _), page) in batch.iter().zip(bytes.as_chunks_mut().0) {
                self.space.span(linear, 1).copy_page(0, page);
            }
            accepted.clear();
            match broker.fill(self.vm, batch[0].1, &bytes, &mut accepted) {
                Err(error @ BrokerError::Store(_)) => {
                    log::warn!("VM {}: cannot share pages: {}", self.vm, describe(&error));
                    self.events.errors += 1;
                }
                result => result?,
            }
            for ((_, slot), _) in batch.iter().zip(&accepted).filter(|(_, accepted)| **accepted) {
                empty.remove(slot);
            }
        }
        Ok(empty)
    }

    /// The runs without the pages that were to share slots that hold nothing.
    fn without(
        &mut self,
        runs: &[Run],
        empty: &HashSet<Slot>,
        outcomes: &mut Vec<Outcome>,
    ) -> Vec<Run> {
        let mut kept = Vec::new();
        for run in runs {
            let gone =
                |page: &u32| run.part(*page, 1).shares().any(|(_, slot)| empty.contains(&slot));
            let pages: Vec<u32> = (0..run.count_pages).collect();
            for part in pages.chunk_by(|one, next| gone(one) == gone(next)) {
                let sub_run = run.part(part[0], count(part.len()));
                if gone(&part[0]) {
                    self.events.declines += part.len() as u64;
                    self.note_work(sub_run.positions());
                    self.pending.insert_range(sub_run.positions());
                    let declined = |(linear, slot)| Outcome::Declined { linear, slot };
                    outcomes.extend(sub_run.shares().map(declined));
                } else {
                    kept.push(sub_run);
                }
            }
        }
        kept
    }

    /// Makes a page private again that nobody shares.
    fn unshare(&mut self, linear: LinearIndex, outcomes: &mut Vec<Outcome>) {
        match self.space.span(linear, 1).populate_write() {
            Ok(()) => {
                self.shared.remove(linear.0 as usize);
                // Offered again by the next pass: its twin may have come to rest by then.
                self.pending.insert(linear.0 as usize);
                self.events.unshares += 1;
                self.note_work(linear.0 as usize..linear.0 as usize + 1);
                outcomes.push(Outcome::Left { linear });
            }
            Err(error) => {
                log::debug!("VM {}: cannot make page {} private: {error}", self.vm, linear.0);
                self.events.errors += 1;
            }
        }
    }
}

/// An error with its causes, for the log.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
