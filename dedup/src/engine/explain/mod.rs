//! Saying of one page whether it is shared, with whom, or why not.

mod words;

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Engine, Member, WalkReport};
use crate::agent::walk::PageState;
use crate::knobs::Run;
use crate::mode::DedupMode;
use crate::protocol::UnsharedReason;
use crate::sys::PageKind;
use crate::{LinearIndex, Slot, VmId};

/// Why a page is as it is. In JSON always an object with a `kind`, and a `detail` where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "detail", rename_all = "snake_case")]
pub enum Reason {
    /// It shares a slot with other pages.
    Shared,
    /// It has a slot to itself: the pages that it shared it with were written.
    Alone,
    /// It shared a slot when its VM was last visited and was written since.
    Broken,
    /// It is all zero, and takes no memory.
    Zero,
    /// Nothing is there: the guest has not touched it, or has given it up.
    Absent,
    /// The kernel has written it out.
    Swapped,
    /// Its range is not to be folded.
    OptedOut,
    /// The program has locked it (`mlock`), so that the kernel would copy it at once.
    Locked,
    /// Its VM's mode does not allow it.
    Mode(DedupMode),
    /// Folding does not run, or takes everything apart.
    NotRunning,
    /// It has a twin, but there are no mappings to spare.
    Budget,
    /// It was written lately, or keeps being written.
    Volatile,
    /// It keeps changing, or keeps being merged and written again: the smart scan passes it over.
    Skipped {
        /// In how many passes it had not changed and was not shared, at least as far as that counts.
        age: u8,
        /// By how many of the next passes in which it has not changed it is passed over.
        remaining_skips: u8,
    },
    /// It has a twin, and is to be merged with it by the next steps of a pass.
    Matched,
    /// It has a twin, but its domain's store has no slot left for the two.
    StoreFull,
    /// No slot of its content takes another page: each is shared by as many as may share one, or has
    /// lost its bytes. It gets another slot with the next page like it.
    SlotsFull,
    /// It has twins, but on these NUMA nodes, with which it may not share.
    OtherNode(Vec<u32>),
    /// It is unchanged, and equal to no other unchanged page of its domain that may be shared.
    NoTwin,
    /// It is unchanged and has twins, but in domains with which it may not share.
    OtherDomain(Vec<String>),
    /// It was not there when its VM was last visited, and nothing has said that it was written. A slow
    /// sweep finds it.
    Unseen,
}

/// A place where a guest sees a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharer {
    /// The guest's VM.
    pub vm: VmId,
    /// The page.
    pub linear: LinearIndex,
    /// Where the guest sees it, in bytes.
    pub gpa: u64,
}

/// Another slot of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dup {
    /// The slot.
    pub slot: Slot,
    /// Pages that share it.
    pub sharers: u64,
}

/// All that is known of a page. [`Display`](std::fmt::Display) puts it in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose page it is.
    pub vm: VmId,
    /// The address of the request, in bytes.
    pub gpa: u64,
    /// The page.
    pub linear: LinearIndex,
    /// Whom its VM shares with.
    pub domain: String,
    /// What was made of it when its VM was last visited.
    pub state: PageState,
    /// Why it is as it is.
    pub reason: Reason,
    /// Every place where a guest sees its slot, this one included. Empty if it has none.
    pub mappings: Vec<Sharer>,
    /// Other slots of the same content.
    pub dups: Vec<Dup>,
    /// What it took to find the mappings.
    pub walk: WalkReport,
}

impl Engine {
    /// Says of the page that a VM's guest sees at an address whether it is shared, with whom, or
    /// why not; `None` when the VM is not attached or has no memory there. O(sharers · log regions
    /// + dups + domains), and for some pages that share nothing O(VMs, or pages of its VM).
    pub fn explain(&self, vm: VmId, gpa: u64) -> Option<Explanation> {
        let found = self.find(vm, gpa)?;
        let member = self.members.get(&vm)?;
        let mut explanation = Explanation {
            vm,
            gpa,
            linear: found.linear,
            domain: found.domain,
            state: found.state,
            reason: Reason::NoTwin,
            mappings: Vec::new(),
            dups: Vec::new(),
            walk: WalkReport::default(),
        };
        if let PageState::Shared(slot) = found.state {
            self.describe_slot(slot, &mut explanation);
        }
        let broker = self.domains.get(&explanation.domain).map(|domain| &domain.broker);
        let unshared = broker.and_then(|broker| broker.unshared_reason(vm, found.linear));
        let skipped = broker.and_then(|broker| broker.skipped(vm, found.linear));
        if let Some(UnsharedReason::Full(slots)) = &unshared {
            explanation.dups = self.describe_dups(&explanation.domain, slots);
        }
        explanation.reason = match self.reason(member, &explanation, unshared) {
            Reason::Volatile if self.knobs.smart_scan => {
                skipped.map_or(Reason::Volatile, |(age, remaining_skips)| Reason::Skipped {
                    age,
                    remaining_skips,
                })
            }
            reason => reason,
        };
        Some(explanation)
    }

    /// Finds everything that shares a slot, or its content.
    fn describe_slot(&self, slot: Slot, explanation: &mut Explanation) {
        let mappings = &mut explanation.mappings;
        let walked = self.walk(&explanation.domain, slot, |mapping| {
            let (vm, linear, gpa) = (mapping.vm, mapping.linear, mapping.gpa);
            mappings.push(Sharer { vm, linear, gpa });
            ControlFlow::Continue(())
        });
        explanation.walk = walked.unwrap_or_default();
        let broker = self.domains.get(&explanation.domain).map(|domain| &domain.broker);
        let copies = broker.and_then(|broker| broker.copies(slot));
        let dups = copies.map(|copies| copies.dups).unwrap_or_default();
        explanation.dups = self.describe_dups(&explanation.domain, &dups);
    }

    fn describe_dups(&self, domain: &str, slots: &[Slot]) -> Vec<Dup> {
        slots.iter().map(|&slot| Dup { slot, sharers: self.sharers(domain, slot) }).collect()
    }

    fn reason(
        &self,
        member: &Member,
        explanation: &Explanation,
        unshared: Option<UnsharedReason>,
    ) -> Reason {
        let (agent, linear) = (&member.agent, explanation.linear);
        let kind = agent.kind(linear).ok().flatten();
        let own = matches!(kind, Some(PageKind::Private | PageKind::Swapped));
        match explanation.state {
            PageState::Shared(_) if own => return Reason::Broken,
            PageState::Shared(_) if explanation.walk.items > 1 => return Reason::Shared,
            PageState::Shared(_) => return Reason::Alone,
            PageState::Zero if !own => return Reason::Zero,
            _ if agent.is_excluded(linear) => return Reason::OptedOut,
            _ if agent.is_locked(linear) => return Reason::Locked,
            _ if agent.mode() == DedupMode::Off => return Reason::Mode(DedupMode::Off),
            _ => {}
        }
        match (kind, explanation.state) {
            (None | Some(PageKind::ZeroPage | PageKind::Slot), _) => Reason::Absent,
            (Some(PageKind::Swapped), _) => Reason::Swapped,
            _ if self.knobs.run != Run::Fold => Reason::NotRunning,
            (_, PageState::Deferred) => Reason::Budget,
            (_, PageState::Volatile | PageState::Zero) => Reason::Volatile,
            _ if agent.mode() == DedupMode::Zero => Reason::Mode(DedupMode::Zero),
            _ => match unshared {
                Some(UnsharedReason::Matched) => Reason::Matched,
                Some(UnsharedReason::NoSlot) => Reason::StoreFull,
                Some(UnsharedReason::Full(_)) => Reason::SlotsFull,
                Some(UnsharedReason::OtherNumaNodes(nodes)) => Reason::OtherNode(nodes),
                Some(UnsharedReason::Alone) => match self.domains_with(member, linear) {
                    others if others.is_empty() => Reason::NoTwin,
                    others => Reason::OtherDomain(others),
                },
                None => Reason::Unseen,
            },
        }
    }

    /// Other domains in which pages like this one are shared, or wait.
    fn domains_with(&self, member: &Member, linear: LinearIndex) -> Vec<String> {
        let page = member.agent.copy(linear);
        let others = self.domains.iter().filter(|&(name, _)| *name != member.domain);
        let knowing = others.filter(|(_, domain)| domain.broker.has_equal(&page));
        knowing.map(|(name, _)| name.clone()).collect()
    }
}
