//! Whether agents, brokers and the kernel agree.

use std::collections::BTreeSet;
use std::iter;

use super::{CheckError, Engine};
use crate::agent::Agent;
use crate::extents::{Extent, ExtentMap};
use crate::page_range::PageRange;
use crate::protocol::{Admin, Batch, ItemState};
use crate::types::count;
use crate::{LinearIndex, PageState, VmId};

impl Engine {
    /// Verifies every index, every VM's mappings against the kernel's, and each agent's state against
    /// its broker's. The VMs must not run
    /// meanwhile: what they write between a pass and the check looks like a difference.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), CheckError> {
        for (name, domain) in &self.domains {
            let wrong = |source| CheckError::Index { domain: name.clone(), source };
            domain.broker.check().map_err(wrong)?;
            let mut vms = BTreeSet::new();
            for (vm, agent) in self.agents_in(name) {
                vms.insert(vm);
                agree(vm, agent, &*domain.broker)?;
            }
            domain.broker.check_vms(&vms).map_err(wrong)?;
        }
        for (&vm, member) in &self.members {
            member.agent.check().map_err(|source| CheckError::Mappings { vm, source })?;
        }
        Ok(())
    }

    /// Asks every change source what was written, then verifies what [`check`](Self::check) does, and
    /// that every other page that counts as shared, or zero, holds the bytes of its slot, or zeroes. The kernel
    /// may keep such bytes for it alone, but no longer than the sweep takes that looks for such pages: a page is
    /// wrong of which this found that before, and that has counted as folded for two rounds of 128 passes since, or more
    /// where a VM has above a million pages.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, be it that a source does not answer.
    pub fn check_breaks(&mut self) -> Result<(), CheckError> {
        self.check()?;
        for (&vm, member) in &mut self.members {
            member.agent.collect().map_err(|source| CheckError::Changes { vm, source })?;
            member.agent.check_breaks().map_err(|source| CheckError::Mappings { vm, source })?;
        }
        Ok(())
    }

    /// The agents of a domain's VMs, with those of VMs that have ended and are leaving, and what its broker
    /// calls them.
    fn agents_in(&self, domain: &str) -> impl Iterator<Item = (VmId, &Agent)> {
        let members = self.members.iter().filter(move |(_, member)| member.domain == domain);
        members.map(|(&vm, member)| (vm, &member.agent)).chain(self.leavers_in(domain))
    }
}

/// Verifies that an agent and its broker have the same state of a VM's pages. Slots are used again, and walks
/// find pages, by the broker's. O(pages).
pub(crate) fn agree(vm: VmId, agent: &Agent, broker: &dyn Admin) -> Result<(), CheckError> {
    if !agent.has_reported() {
        // The broker has failed, and what it has not taken is reported first when it works again.
        return Ok(());
    }
    let differ = |what| Err(CheckError::Disagreement { vm, what });
    let theirs = &extents_of(broker, vm);
    if theirs != agent.extents() {
        let only = |ours: &ExtentMap, theirs: &ExtentMap| -> Option<Extent> {
            ours.iter().find(|one| theirs.slot(one.linear) != Some(one.slot))
        };
        let (agents, brokers) = (only(agent.extents(), theirs), only(theirs, agent.extents()));
        return differ(format!("extents, the agent's {agents:?}, the broker's {brokers:?}"));
    }
    let items = item_states_of(broker, vm);
    let items = items.into_iter().chain(iter::repeat(ItemState::Loose));
    for (page, item) in agent.range().pages().zip(items) {
        let state = agent.page_state(page);
        let fits = match (state, item) {
            (PageState::Shared(slot), ItemState::Shared(of_node)) => of_node == Some(slot),
            (PageState::Shared(_), _) | (_, ItemState::Shared(_)) => false,
            (PageState::Unshared, item) => {
                !matches!(item, ItemState::Deferred | ItemState::Retried | ItemState::Loose)
            }
            (PageState::Deferred, ItemState::Deferred) => true,
            (_, item) => {
                matches!(item, ItemState::Loose | ItemState::Collided | ItemState::Retried)
            }
        };
        if !fits {
            return differ(format!("page {page} is {state:?}, and its item {item:?}"));
        }
    }
    Ok(())
}

/// All extents of a VM in a broker's state.
fn extents_of(broker: &dyn Admin, vm: VmId) -> ExtentMap {
    let (mut all, mut extents, mut from) = (ExtentMap::default(), Vec::new(), LinearIndex(0));
    loop {
        let batch = broker.extents(vm, from, &mut extents);
        from = extents.last().map_or(from, Extent::end);
        extents.drain(..).for_each(|extent| all.insert(extent, |_| {}));
        if batch == Batch::Last {
            return all;
        }
    }
}

/// Which trees the items of all of a VM's pages are in.
fn item_states_of(broker: &dyn Admin, vm: VmId) -> Vec<ItemState> {
    let (mut states, mut from) = (Vec::new(), 0);
    while broker.item_states(vm, LinearIndex(from), &mut states) == Batch::More {
        from = count(states.len());
    }
    states
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::LocalBroker;
    use crate::fingerprint::Fingerprint;
    use crate::protocol::{Broker, Offer, Outcome};
    use crate::{AnonymousMemory, AttachSpec, DedupMode, EngineConfig, PAGE_SIZE, Unchanging};

    /// What `check` finds once a broker was sent a report of something that no agent has done.
    fn found(mislead: impl FnOnce(&mut LocalBroker)) -> String {
        let mut engine = Engine::new(EngineConfig::default()).unwrap();
        for id in 0..2 {
            let memory = Arc::new(AnonymousMemory::new(4).unwrap());
            memory.write(0, &[7; 2 * PAGE_SIZE]);
            memory.write(2 * PAGE_SIZE, &[8 + id; PAGE_SIZE]);
            let spec = AttachSpec {
                domain: "test".to_owned(),
                mode: DedupMode::On,
                memory,
                changes: Box::new(Unchanging),
            };
            engine.attach(VmId(u32::from(id)), spec).unwrap();
        }
        (0..3).for_each(|_| drop(engine.pass()));
        engine.check().unwrap();
        mislead(engine.domains.get_mut("test").unwrap().local_broker());
        engine.check().unwrap_err().to_string()
    }

    #[test]
    fn a_sharer_that_only_its_agent_knows_is_found() {
        let linear = LinearIndex(0);
        let found = found(|broker| broker.report(VmId(0), &[Outcome::Left { linear }]).unwrap());
        assert!(found.contains("page 0 is Shared") && found.contains("Loose"), "{found}");
    }

    #[test]
    fn an_extent_that_only_the_agent_knows_is_found() {
        let linear = LinearIndex(1);
        let left = [Outcome::Left { linear }, Outcome::Unbacked { linear, page_count: 1 }];
        let found = found(|broker| broker.report(VmId(1), &left).unwrap());
        assert!(found.contains("extents"), "{found}");
    }

    #[test]
    fn a_page_that_waits_and_whose_agent_does_not_know_it_is_found() {
        let found = found(|broker| {
            let offer = Offer { linear: LinearIndex(3), fingerprint: Fingerprint(5) };
            broker.offer(VmId(0), &[offer], &mut Vec::new()).unwrap();
        });
        assert!(found.contains("page 3 is Loose") && found.contains("Waiting"), "{found}");
    }
}
