//! Giving guest memory up.

use super::{Engine, PagesError};
use crate::agent::DiscardReport;
use crate::{LinearIndex, VmId};

impl Engine {
    /// Gives a range of a VM's pages up: what a balloon, a free-page report and unplugged memory ask
    /// for. The pages read as zeroes until they are written; what they held is lost, and so is
    /// what the guest writes to them while this runs. O(extents in the range + pages).
    ///
    /// # Errors
    ///
    /// When the VM is not attached or has no such pages; nothing has changed.
    pub fn discard(
        &mut self,
        vm: VmId,
        first: LinearIndex,
        count_pages: u32,
    ) -> Result<DiscardReport, PagesError> {
        let pages = self.page_range(vm, first, count_pages)?;
        let Self { members, domains, .. } = self;
        let found = members.get_mut(&vm).and_then(|member| {
            let domain = domains.get_mut(&member.domain)?;
            Some((&mut member.agent, &mut domain.broker))
        });
        let (agent, broker) = found.ok_or(PagesError::NoVm(vm))?;
        agent.discard(broker, pages).or_else(|error| {
            // The memory is given back; only the broker counts it as it was, until the VM ends.
            log::error!("VM {vm}: {error}");
            Ok(DiscardReport { discarded_pages: count_pages.into(), kept_pages: 0 })
        })
    }
}
