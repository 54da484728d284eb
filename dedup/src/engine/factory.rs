//! Where domains' brokers come from.

#[cfg(test)]
use std::any::Any;
use std::sync::Arc;

use super::{AttachError, Domain};
use crate::agent::StoreAccess;
use crate::broker::LocalBroker;
#[cfg(feature = "encoded-messages")]
use crate::protocol::Encoded;
use crate::workers::Workers;

/// What a domain is to be.
pub(super) struct DomainSpec {
    /// Pages that its store holds, at most.
    pub(super) store_pages: u32,
    pub(super) max_page_sharing: u32,
    pub(super) merge_across_nodes: bool,
    /// Threads that a broker in this process may use.
    pub(super) workers: Arc<Workers>,
}

/// What makes domains.
pub(super) trait BrokerFactory: Send {
    /// Makes the domain called `name`, or connects to it, and opens its store.
    ///
    /// # Errors
    ///
    /// When its broker cannot be made, or its store not be opened; nothing is left behind.
    fn make(&self, name: &str, spec: DomainSpec) -> Result<Domain, AttachError>;
}

/// Makes brokers in this process.
pub(super) struct LocalFactory;

impl BrokerFactory for LocalFactory {
    fn make(&self, name: &str, spec: DomainSpec) -> Result<Domain, AttachError> {
        let DomainSpec { store_pages, max_page_sharing, merge_across_nodes, workers } = spec;
        let mut broker = LocalBroker::new(store_pages, max_page_sharing)
            .map_err(|source| AttachError::Domain { domain: name.to_owned(), source })?;
        broker.set_workers(workers);
        broker.set_merge_across_nodes(merge_across_nodes);
        let store = broker
            .store()
            .and_then(|memfd| StoreAccess::new(memfd, store_pages))
            .map_err(|source| AttachError::Store { domain: name.to_owned(), source })?;
        #[cfg(feature = "encoded-messages")]
        let broker = Encoded::new(broker);
        Ok(Domain { broker: Box::new(broker), store: Arc::new(store) })
    }
}

#[cfg(test)]
impl Domain {
    /// The broker itself, for what nobody but a test may do to it.
    pub(super) fn local_broker(&mut self) -> &mut LocalBroker {
        let broker: &mut dyn Any = &mut *self.broker;
        #[cfg(feature = "encoded-messages")]
        let broker =
            broker.downcast_mut::<Encoded<LocalBroker>>().unwrap().get_mut() as &mut dyn Any;
        broker.downcast_mut().expect("the default factory makes local brokers")
    }
}
