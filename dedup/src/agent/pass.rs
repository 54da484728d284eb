//! One visit of a VM's changed pages.

use std::collections::HashSet;

use super::changes::linear_index;
use super::runs::{Run, Target, cut};
use super::scan::Content;
use super::{Agent, AgentError};
use crate::mode::DedupMode;
use crate::protocol::{Broker, BrokerError, Decision, Directive, Offer, Outcome};
use crate::{LinearIndex, PAGE_SIZE, Slot};

/// Pages that are read, offered and merged before the next ones are looked at.
const BATCH_PAGES: usize = 8192;

/// Pages whose bytes are handed over for new slots in one message.
const FILL_PAGES: usize = 256;

impl Agent {
    /// Looks at every page that has changed and come to rest since the last pass.
    ///
    /// # Errors
    ///
    /// When the kernel does not say what changed, or the broker fails. What was merged stays so;
    /// the rest is looked at by the next pass.
    pub(crate) fn pass(&mut self, broker: &mut dyn Broker) -> Result<(), AgentError> {
        self.requeue_deferred();
        let mut calm = self.take_changes(broker)?;
        if self.mode == DedupMode::Off {
            return Ok(());
        }
        calm.subtract(&self.shared);
        calm.subtract(&self.zero);
        let resident = self.resident(&calm)?;
        self.pending.subtract(&calm);
        for batch in resident.chunks(BATCH_PAGES) {
            if let Err(error) = self.fold(broker, batch) {
                let unfolded = resident.iter().filter(|&&page| !self.shared.contains(page));
                unfolded.for_each(|&page| {
                    self.pending.insert(page);
                });
                return Err(error);
            }
        }
        Ok(())
    }

    /// Does what the broker wants of pages that were not offered just now; says whether there was
    /// anything.
    ///
    /// # Errors
    ///
    /// When the broker fails. Every page is in a state that the next pass handles.
    pub(crate) fn follow(&mut self, broker: &mut dyn Broker) -> Result<bool, AgentError> {
        let mut directives = Vec::new();
        broker.directives(self.vm, &mut directives)?;
        let (mut targets, mut outcomes) = (Vec::new(), Vec::new());
        for directive in &directives {
            match *directive {
                Directive::Merge { linear, slot } => targets.push(Target { linear, slot }),
                Directive::Unshare { linear } => self.unshare(linear, &mut outcomes),
            }
        }
        let runs = self.within_budget(&targets, &mut outcomes);
        self.merge(&runs, &mut outcomes);
        for target in &targets {
            self.waiting.remove(target.linear.0 as usize);
        }
        broker.report(self.vm, &outcomes)?;
        Ok(!directives.is_empty())
    }

    fn fold(&mut self, broker: &mut dyn Broker, pages: &[usize]) -> Result<(), AgentError> {
        let contents = self.read(pages);
        let mut outcomes = Vec::new();
        let zeroes: Vec<usize> = pages
            .iter()
            .zip(&contents)
            .filter_map(|(&page, content)| (*content == Content::Zero).then_some(page))
            .collect();
        self.discard_zeroes(&zeroes, &mut outcomes);
        broker.report(self.vm, &outcomes)?;
        if self.mode == DedupMode::Zero {
            return Ok(());
        }
        let offers: Vec<Offer> = pages
            .iter()
            .zip(&contents)
            .filter_map(|(&page, content)| match *content {
                Content::Data(fingerprint) => {
                    Some(Offer { linear: linear_index(page), fingerprint })
                }
                Content::Zero => None,
            })
            .collect();
        self.offer(broker, &offers)
    }

    fn offer(&mut self, broker: &mut dyn Broker, offers: &[Offer]) -> Result<(), AgentError> {
        let mut decisions = Vec::with_capacity(offers.len());
        broker.offer(self.vm, offers, &mut decisions)?;
        let (mut targets, mut creators) = (Vec::new(), Vec::new());
        for (&Offer { linear, .. }, decision) in offers.iter().zip(decisions) {
            match decision {
                Decision::Wait => {
                    self.waiting.insert(linear.0 as usize);
                }
                Decision::Keep => {
                    self.pending.insert(linear.0 as usize);
                }
                Decision::Join(slot) => targets.push(Target { linear, slot }),
                Decision::Create(slot) => {
                    targets.push(Target { linear, slot });
                    creators.push(Target { linear, slot });
                }
            }
        }
        let mut outcomes = Vec::new();
        let mut runs = self.within_budget(&targets, &mut outcomes);
        let empty = self.fill(broker, &runs, &creators)?;
        if !empty.is_empty() {
            let (gone, kept): (Vec<_>, Vec<_>) =
                runs.iter().flat_map(Run::targets).partition(|target| empty.contains(&target.slot));
            for Target { linear, slot } in gone {
                self.events.declines += 1;
                self.pending.insert(linear.0 as usize);
                outcomes.push(Outcome::Declined { linear, slot });
            }
            runs = cut(&kept, &self.extents);
        }
        self.merge(&runs, &mut outcomes);
        broker.report(self.vm, &outcomes)?;
        Ok(())
    }

    /// Hands over the bytes for the slots of those `creators` (ascending) that are still part of
    /// `runs`, and returns the new slots that hold nothing: the budget did not allow for the page,
    /// or it had changed.
    fn fill(
        &mut self,
        broker: &mut dyn Broker,
        runs: &[Run],
        creators: &[Target],
    ) -> Result<HashSet<Slot>, AgentError> {
        let mut empty: HashSet<Slot> = creators.iter().map(|creator| creator.slot).collect();
        let is_creator = |target: &Target| {
            creators.binary_search_by_key(&target.linear, |creator| creator.linear).is_ok()
        };
        let fills: Vec<Target> = runs.iter().flat_map(Run::targets).filter(is_creator).collect();
        let (mut bytes, mut accepted) = (Vec::new(), Vec::new());
        let neighbours = |one: &Target, next: &Target| one.slot.offset(1) == next.slot;
        for batch in fills.chunk_by(neighbours).flat_map(|batch| batch.chunks(FILL_PAGES)) {
            bytes.resize(batch.len() * PAGE_SIZE, 0);
            for (target, page) in batch.iter().zip(bytes.as_chunks_mut().0) {
                self.space.span(target.linear, 1).copy_page(0, page);
            }
            accepted.clear();
            match broker.fill(self.vm, batch[0].slot, &bytes, &mut accepted) {
                Err(error @ BrokerError::Store(_)) => {
                    log::warn!("VM {}: cannot share pages: {}", self.vm, describe(&error));
                    self.events.errors += 1;
                }
                result => result?,
            }
            for (target, _) in batch.iter().zip(&accepted).filter(|(_, accepted)| **accepted) {
                empty.remove(&target.slot);
            }
        }
        Ok(empty)
    }

    /// Makes a page private again that nobody shares.
    fn unshare(&mut self, linear: LinearIndex, outcomes: &mut Vec<Outcome>) {
        match self.space.span(linear, 1).populate_write() {
            Ok(()) => {
                self.shared.remove(linear.0 as usize);
                // Offered again by the next pass: its twin may have come to rest by then.
                self.pending.insert(linear.0 as usize);
                self.events.unshares += 1;
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
