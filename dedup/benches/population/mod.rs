//! A domain of VMs that are page numbers, driven through `protocol::Broker` as agents do it.
//!
//! Nothing here is guest memory. What is shared is real: each slot is filled with a page of its own
//! in the store.

mod content;
mod mix;
mod record;

use std::time::Instant;

use pagefold_dedup::internals::{
    Broker, Decision, Directive, Extent, Fingerprint, LocalBroker, Offer, Outcome,
};
use pagefold_dedup::{LinearIndex, Slot, VmId};

pub(crate) use self::content::{Random, page};
pub(crate) use self::mix::Mix;
pub(crate) use self::record::{Operation, Record};

/// What an agent puts into one request.
pub(crate) const BATCH: usize = 4096;
const MAX_PAGE_SHARING: u32 = 256;

/// The VMs of a mix, their broker, and what is noted of the requests to it.
pub(crate) struct Population<R> {
    pub(crate) broker: LocalBroker,
    pub(crate) random: Random,
    pub(crate) record: R,
    mix: Mix,
    fingerprints: Vec<Fingerprint>,
}

impl<R: Record> Population<R> {
    /// Folds all VMs of `mix`, one after the other.
    pub(crate) fn fold(mix: Mix, record: R) -> Self {
        let broker = LocalBroker::new(u32::MAX / 2, MAX_PAGE_SHARING).unwrap();
        let fingerprint = |content| broker.secret().fingerprint(&page(content));
        let fingerprints = (0..mix.content_count()).map(fingerprint).collect();
        let mut population = Self { broker, random: Random::default(), record, mix, fingerprints };
        for vm in 0..mix.vm_count {
            population.fold_vm(vm);
        }
        population
    }

    fn fold_vm(&mut self, vm: u32) {
        self.broker.register(VmId(vm), self.mix.vm_pages).unwrap();
        let shared: Vec<u32> = self.mix.shared().collect();
        for pages in shared.chunks(BATCH) {
            self.offer_shared(vm, pages);
        }
        let own: Vec<u32> = self.mix.own().collect();
        for pages in own.chunks(BATCH) {
            self.offer_own(vm, pages);
        }
        // The one whose pages waited for this one's hands their bytes over.
        for vm in vm.saturating_sub(1)..=vm {
            self.follow(vm);
        }
    }

    /// Takes every page that is shared or waits out of the trees, with `between` after each batch.
    pub(crate) fn release(&mut self, mut between: impl FnMut(&mut Self)) {
        let offered = self.mix.offered();
        for vm in 0..self.mix.vm_count {
            for pages in offered.chunks(BATCH) {
                let left = |&page: &u32| Outcome::Left { linear: LinearIndex(page) };
                let outcomes: Vec<Outcome> = pages.iter().map(left).collect();
                self.request(Operation::Release, outcomes.len(), |broker| {
                    broker.report(VmId(vm), &outcomes).unwrap();
                });
                between(self);
            }
        }
    }

    fn offer_shared(&mut self, vm: u32, pages: &[u32]) {
        // With the slots of a content full, the next VM finds things as the first one did.
        let operation = match vm % MAX_PAGE_SHARING {
            0 => Operation::Wait,
            1 => Operation::Match,
            _ => Operation::Join,
        };
        let offer = |&page: &u32| Offer {
            linear: LinearIndex(page),
            fingerprint: self.fingerprints[self.mix.content(vm, page) as usize],
        };
        let offers: Vec<Offer> = pages.iter().map(offer).collect();
        let decisions = self.offer(operation, vm, &offers);
        let joins = pages.iter().zip(&decisions).filter_map(|(&page, decision)| match decision {
            Decision::Join(slot) => Some((LinearIndex(page), *slot)),
            Decision::Wait | Decision::Identify | Decision::Keep => None,
        });
        let joins: Vec<(LinearIndex, Slot)> = joins.collect();
        let expected = if operation == Operation::Join { pages.len() } else { 0 };
        assert_eq!(joins.len(), expected, "the third finds a slot");
        self.confirm(vm, &joins);
    }

    fn offer_own(&mut self, vm: u32, pages: &[u32]) {
        let random = &mut self.random;
        let offer = |&page: &u32| Offer {
            linear: LinearIndex(page),
            fingerprint: Fingerprint(random.number()),
        };
        let offers: Vec<Offer> = pages.iter().map(offer).collect();
        self.offer(Operation::Wait, vm, &offers);
    }

    fn offer(&mut self, operation: Operation, vm: u32, offers: &[Offer]) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(offers.len());
        self.request(operation, offers.len(), |broker| {
            broker.offer(VmId(vm), offers, &mut decisions).unwrap();
        });
        decisions
    }

    fn follow(&mut self, vm: u32) {
        let mut directives = Vec::new();
        loop {
            directives.clear();
            self.broker.directives(VmId(vm), BATCH, &mut directives).unwrap();
            if directives.is_empty() {
                return;
            }
            let (mut creates, mut targets) = (Vec::new(), Vec::new());
            for directive in &directives {
                match *directive {
                    Directive::Create { linear, slot, .. } => {
                        creates.push((linear, slot));
                        targets.push((linear, slot));
                    }
                    Directive::Merge { linear, slot, .. } => targets.push((linear, slot)),
                    Directive::Unshare { .. } | Directive::Offer { .. } => {}
                }
            }
            for run in creates.chunk_by(|one, next| one.1.offset(1) == next.1) {
                self.fill(vm, run);
            }
            self.confirm(vm, &targets);
        }
    }

    fn fill(&mut self, vm: u32, run: &[(LinearIndex, Slot)]) {
        let content = |&(linear, _): &(LinearIndex, Slot)| self.mix.content(vm, linear.0);
        let bytes: Vec<u8> = run.iter().flat_map(|target| page(content(target))).collect();
        let mut accepted = Vec::new();
        self.request(Operation::Fill, run.len(), |broker| {
            broker.fill(VmId(vm), run[0].1, &bytes, &mut accepted).unwrap();
        });
        assert!(accepted.iter().all(|&accepted| accepted), "the bytes that were offered");
    }

    fn confirm(&mut self, vm: u32, targets: &[(LinearIndex, Slot)]) {
        let next = |one: &(LinearIndex, Slot), next: &(LinearIndex, Slot)| {
            (one.0.offset(1), one.1.offset(1)) == *next
        };
        let extent = |run: &[(LinearIndex, Slot)]| Extent {
            linear: run[0].0,
            slot: run[0].1,
            page_count: run.len() as u32,
        };
        let extents: Vec<Extent> = targets.chunk_by(next).map(extent).collect();
        let outcomes: Vec<Outcome> = extents.iter().copied().map(Outcome::Merged).collect();
        self.request(Operation::Confirm, targets.len(), |broker| {
            broker.report(VmId(vm), &outcomes).unwrap();
        });
        for extent in extents {
            self.record.mapped(VmId(vm), extent);
        }
    }

    /// Makes a request about `items` pages, and notes how long it takes.
    fn request(
        &mut self,
        operation: Operation,
        items: usize,
        request: impl FnOnce(&mut LocalBroker),
    ) {
        let began = Instant::now();
        request(&mut self.broker);
        let time = began.elapsed();
        if items > 0 {
            self.record.took(operation, items, time);
        }
    }
}
