//! An agent's requests to a broker in another process, and its replies: a message for each method of
//! [`Broker`].

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::protocol::{
    Broker, BrokerError, Decision, Directive, IdentityOffer, Offer, Outcome, ReportError,
};
use crate::{LinearIndex, Slot, VmId};

/// A call of a method of [`Broker`], with its arguments in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentRequest {
    /// [`Broker::offer`].
    Offer(VmId, Vec<Offer>),
    /// [`Broker::offer_by_identity`].
    OfferByIdentity(VmId, Vec<IdentityOffer>),
    /// [`Broker::age`].
    Age(VmId, Vec<LinearIndex>),
    /// [`Broker::fill`].
    Fill(VmId, Slot, Bytes),
    /// [`Broker::report`].
    Report(VmId, Vec<Outcome>),
    /// [`Broker::directives`].
    Directives(VmId, usize),
    /// [`Broker::partners`].
    Partners(VmId, Vec<LinearIndex>),
    /// [`Broker::unregister`].
    Unregister(VmId),
}

/// What a method of [`Broker`] has appended, or why it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentReply {
    /// Of [`Broker::offer`].
    Offer(Result<Vec<Decision>, BrokerError>),
    /// Of [`Broker::offer_by_identity`].
    OfferByIdentity(Result<Vec<Decision>, BrokerError>),
    /// Of [`Broker::age`].
    Age(Result<Vec<bool>, BrokerError>),
    /// Of [`Broker::fill`], which appends also where it fails.
    Fill((Vec<bool>, Result<(), BrokerError>)),
    /// Of [`Broker::report`].
    Report(Result<(), ReportError>),
    /// Of [`Broker::directives`].
    Directives(Result<Vec<Directive>, BrokerError>),
    /// Of [`Broker::partners`].
    Partners(Result<Vec<Option<VmId>>, BrokerError>),
    /// Of [`Broker::unregister`].
    Unregister(Result<(), BrokerError>),
}

impl AgentRequest {
    /// Makes the call that the request stands for; returns the reply.
    pub fn dispatch(self, broker: &mut dyn Broker) -> AgentReply {
        match self {
            Self::Offer(vm, offers) => {
                AgentReply::Offer(appended(|decisions| broker.offer(vm, &offers, decisions)))
            }
            Self::OfferByIdentity(vm, offers) => {
                AgentReply::OfferByIdentity(appended(|decisions| {
                    broker.offer_by_identity(vm, &offers, decisions)
                }))
            }
            Self::Age(vm, pages) => AgentReply::Age(appended(|skip| broker.age(vm, &pages, skip))),
            Self::Fill(vm, first, pages) => {
                let mut accepted = Vec::new();
                let result = broker.fill(vm, first, &pages.0, &mut accepted);
                AgentReply::Fill((accepted, result))
            }
            Self::Report(vm, outcomes) => AgentReply::Report(broker.report(vm, &outcomes)),
            Self::Directives(vm, limit) => AgentReply::Directives(appended(|directives| {
                broker.directives(vm, limit, directives)
            })),
            Self::Partners(vm, pages) => {
                AgentReply::Partners(appended(|partners| broker.partners(vm, &pages, partners)))
            }
            Self::Unregister(vm) => AgentReply::Unregister(broker.unregister(vm)),
        }
    }
}

/// What a call appends to an empty list.
fn appended<T>(
    call: impl FnOnce(&mut Vec<T>) -> Result<(), BrokerError>,
) -> Result<Vec<T>, BrokerError> {
    let mut list = Vec::new();
    call(&mut list).map(|()| list)
}
