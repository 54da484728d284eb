//! Recovery of a slot whose memory has failed.
//!
//! The hardware reports it to the process that touches such memory (`SIGBUS`, `BUS_MCEERR_AR`), and the
//! handler passes the address on to here. What was lost are bytes that several guests see,
//! so they are looked for wherever they may be once more, and recognised by their BLAKE3.

use std::ops::ControlFlow;

use super::walk::sharers_of;
use super::{Domain, Engine, MoveSlotError, WalkError};
use crate::fingerprint::Identity;
use crate::protocol::Copies;
use crate::{LinearIndex, Mapping, PAGE_SIZE, Slot, VmId};

/// Where the bytes of a slot were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverySource {
    /// In another slot of the same content.
    Dup(Slot),
    /// In a guest's own memory.
    PrivateCopy {
        /// The guest's VM.
        vm: VmId,
        /// The page.
        linear: LinearIndex,
    },
}

/// What became of a slot that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Where its bytes were found, and the slot that has them now; `None` if they are lost.
    pub recovered: Option<(RecoverySource, Slot)>,
    /// Pages that have just been mapped to the new slot.
    pub recovered_pages: u64,
    /// Every place where a guest sees bytes that are lost.
    pub affected: Vec<Mapping>,
}

impl Engine {
    /// Replaces a slot whose memory has failed by another with the same bytes, if they can be found:
    /// in a dup, in a page that waits, or in a page that was written and has been written back.
    /// Nothing that shows the slot is read. If they are lost the slot stays, no directive names
    /// it any more, and the report names whom that affects: pages that have their own copy are not
    /// among them. Pages of the same content that come later may be what it is recovered from by
    /// another call. Pages that the kernel refuses to map elsewhere are tried again by each pass.
    /// O(sharers + extents).
    ///
    /// # Errors
    ///
    /// When there is no such slot, or pages are joining it just now, and nothing has changed; or when
    /// the store is full, and the slot stays, as if its bytes were lost.
    pub fn recover_slot(
        &mut self,
        domain: &str,
        slot: Slot,
    ) -> Result<RecoveryReport, MoveSlotError> {
        let no_domain = || MoveSlotError::Domain(WalkError::NoDomain(domain.to_owned()));
        let empty = || WalkError::EmptySlot { domain: domain.to_owned(), slot };
        let refused = |source| MoveSlotError::Broker { domain: domain.to_owned(), source };
        let broker = &mut self.domains.get_mut(domain).ok_or_else(no_domain)?.broker;
        broker.copies(slot).ok_or_else(|| MoveSlotError::Domain(empty()))?;
        broker.mark_lost(slot).map_err(refused)?;
        // Only now: pages that were to join the slot may be waiting for others.
        let copies = broker.copies(slot).ok_or_else(|| MoveSlotError::Domain(empty()))?;
        let mut report =
            RecoveryReport { recovered: None, recovered_pages: 0, affected: Vec::new() };
        if let Some((source, page)) = self.find_bytes(domain, slot, &copies) {
            let found = self.domains.get_mut(domain).ok_or_else(no_domain)?;
            let to = found.broker.begin_recovery(slot, &page).map_err(refused)?;
            report.recovered = Some((source, to));
            report.recovered_pages = self.replace_slot(domain, slot, to);
        }
        report.affected = self.affected(domain, slot);
        Ok(report)
    }

    /// Maps pages to other slots that could not be, or had been swapped out, when theirs were
    /// recovered. Their agents must not get directives to: they would compare the pages first,
    /// and so read what is lost.
    pub(super) fn resume_recoveries(&mut self) {
        let recoveries = |(name, domain): (&String, &Domain)| {
            let of_domain = domain.broker.recoveries();
            of_domain.into_iter().map(|(slot, to)| (name.clone(), slot, to)).collect::<Vec<_>>()
        };
        let begun: Vec<(String, Slot, Slot)> = self.domains.iter().flat_map(recoveries).collect();
        for (domain, slot, to) in begun {
            self.replace_slot(&domain, slot, to);
        }
    }

    /// A good copy of a slot's bytes.
    fn find_bytes(
        &self,
        domain: &str,
        slot: Slot,
        copies: &Copies,
    ) -> Option<(RecoverySource, Box<[u8; PAGE_SIZE]>)> {
        let broker = &self.domains.get(domain)?.broker;
        let dup = copies.dups.iter().find_map(|&dup| {
            broker.read(dup, copies.identity).map(|page| (RecoverySource::Dup(dup), page))
        });
        let mut own = copies.private.iter().copied().chain(self.private_pages_over(domain, slot));
        dup.or_else(|| {
            own.find_map(|(vm, linear)| {
                let page = self.private_page(domain, vm, linear, copies.identity)?;
                Some((RecoverySource::PrivateCopy { vm, linear }, Box::new(page)))
            })
        })
    }

    /// A page's bytes, if they are its own and of this name.
    fn private_page(
        &self,
        domain: &str,
        vm: VmId,
        linear: LinearIndex,
        identity: Identity,
    ) -> Option<[u8; PAGE_SIZE]> {
        let agent = &self.members.get(&vm)?.agent;
        let own = agent.is_private(linear).unwrap_or(false);
        let page = own.then(|| agent.copy(linear))?;
        self.domains.get(domain)?.broker.has_identity(&page, identity).then_some(page)
    }

    /// Pages that lie over a slot and have their own copies.
    fn private_pages_over<'a>(
        &'a self,
        domain: &'a str,
        slot: Slot,
    ) -> impl Iterator<Item = (VmId, LinearIndex)> + 'a {
        let members = self.members.iter().filter(move |(_, member)| member.domain == domain);
        members.flat_map(move |(&vm, member)| {
            let pages = member.agent.pages_over(slot).unwrap_or_default();
            pages.into_iter().filter_map(move |(linear, own)| own.then_some((vm, linear)))
        })
    }

    /// Has the pages that share a slot show another; returns how many do.
    fn replace_slot(&mut self, domain: &str, slot: Slot, to: Slot) -> u64 {
        let mut replaced = 0;
        let Some(domain) = self.domains.get_mut(domain) else { return 0 };
        let mut pages = sharers_of(&*domain.broker, slot);
        pages.sort_unstable();
        for of_vm in pages.chunk_by(|one, next| one.0 == next.0) {
            let Some(member) = self.members.get_mut(&of_vm[0].0) else { continue };
            let linears: Vec<LinearIndex> = of_vm.iter().map(|&(_, linear)| linear).collect();
            match member.agent.replace_slot(&mut *domain.broker, &linears, to) {
                Ok(pages) => replaced += pages,
                Err(error) => log::error!("VM {}: {error}", of_vm[0].0),
            }
        }
        replaced
    }

    /// Every place where a guest sees a slot.
    fn affected(&self, domain: &str, slot: Slot) -> Vec<Mapping> {
        let mut affected = Vec::new();
        let walked = self.walk(domain, slot, |mapping| {
            let agent = self.members.get(&mapping.vm).map(|member| &member.agent);
            // If the kernel does not report it, it may be affected.
            if !agent.is_some_and(|agent| agent.is_private(mapping.linear).unwrap_or(false)) {
                affected.push(*mapping);
            }
            ControlFlow::Continue(())
        });
        // The slot is gone with its last sharer: nobody is affected.
        drop(walked);
        affected
    }
}

#[cfg(test)]
mod tests;
