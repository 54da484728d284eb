//! A broker whose calls fail as a test has it.

use std::ops::Range;

use crate::broker::LocalBroker;
use crate::protocol::{
    Broker, BrokerError, Decision, Directive, IdentityOffer, Offer, Outcome, ReportError,
};
use crate::{LinearIndex, Slot, VmId};

/// Passes on to a real broker all calls but those that fail.
pub(in crate::agent) struct Faulty {
    pub(super) broker: LocalBroker,
    pub(super) calls: usize,
    /// The calls that fail, by their numbers.
    pub(super) fails: Range<usize>,
    /// Outcomes that are always refused, and why.
    pub(super) refuses: fn(VmId, &Outcome) -> Option<BrokerError>,
    /// Pages that are to be offered by their identities.
    pub(super) by_identity: fn(LinearIndex) -> bool,
    /// Whether what is offered by its identity is refused.
    pub(super) refuses_identities: bool,
    /// Directives that it returns once, and that no broker should.
    pub(super) strays: Vec<Directive>,
}

impl Faulty {
    /// One around `broker` of which the calls with these numbers fail.
    pub(super) fn new(broker: LocalBroker, fails: Range<usize>) -> Self {
        Self {
            broker,
            calls: 0,
            fails,
            refuses: |_, _| None,
            by_identity: |_| false,
            refuses_identities: false,
            strays: Vec::new(),
        }
    }

    /// The error of a broker that has no memory for now.
    fn call(&mut self) -> Result<(), BrokerError> {
        let call = self.calls;
        self.calls += 1;
        let full = BrokerError::NoItems { page_count: 1, limit: 0 };
        if self.fails.contains(&call) { Err(full) } else { Ok(()) }
    }
}

impl Broker for Faulty {
    fn offer(
        &mut self,
        vm: VmId,
        offers: &[Offer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        let by_identity = |offer: &Offer| (self.by_identity)(offer.linear);
        let others: Vec<Offer> =
            offers.iter().copied().filter(|offer| !by_identity(offer)).collect();
        let mut decided = Vec::new();
        self.broker.offer(vm, &others, &mut decided)?;
        let mut decided = decided.into_iter();
        let decide =
            |offer| if by_identity(offer) { Decision::Identify } else { decided.next().unwrap() };
        decisions.extend(offers.iter().map(decide));
        Ok(())
    }

    fn offer_by_identity(
        &mut self,
        vm: VmId,
        offers: &[IdentityOffer],
        decisions: &mut Vec<Decision>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        if self.refuses_identities {
            return Err(BrokerError::UnknownVm(vm));
        }
        self.broker.offer_by_identity(vm, offers, decisions)
    }

    fn age(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        skip: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        self.broker.age(vm, pages, skip)
    }

    fn fill(
        &mut self,
        vm: VmId,
        first: Slot,
        pages: &[u8],
        accepted: &mut Vec<bool>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        self.broker.fill(vm, first, pages, accepted)
    }

    fn report(&mut self, vm: VmId, outcomes: &[Outcome]) -> Result<(), ReportError> {
        let mut refused = outcomes.iter().map(|outcome| (self.refuses)(vm, outcome)).enumerate();
        if let Some((done, source)) = refused.find_map(|(at, why)| Some((at, why?))) {
            self.broker.report(vm, &outcomes[..done])?;
            return Err(ReportError { done, source });
        }
        let result = self.call();
        // One that fails has taken a part.
        let done = if result.is_ok() { outcomes.len() } else { outcomes.len() / 2 };
        self.broker.report(vm, &outcomes[..done])?;
        result.map_err(|source| ReportError { done, source })
    }

    fn directives(
        &mut self,
        vm: VmId,
        limit: usize,
        directives: &mut Vec<Directive>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        directives.append(&mut self.strays);
        self.broker.directives(vm, limit, directives)
    }

    fn partners(
        &mut self,
        vm: VmId,
        pages: &[LinearIndex],
        partners: &mut Vec<Option<VmId>>,
    ) -> Result<(), BrokerError> {
        self.call()?;
        self.broker.partners(vm, pages, partners)
    }

    fn unregister(&mut self, vm: VmId) -> Result<(), BrokerError> {
        self.broker.unregister(vm)
    }
}
