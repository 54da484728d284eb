//! Checks of an agent's state of its VM's memory against the kernel's page map and mappings.

pub(super) mod breaks;
pub(super) mod frames;
pub(super) mod marks;
pub(super) mod sets;

use std::io;
use std::ops::ControlFlow;

use super::Agent;
use crate::extents::{Extent, ExtentMap};
use crate::page_range::PageRange;
use crate::regions::RegionsCheckError;
use crate::sys::{PageKind, Piece, ProcessMapping, Space};
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// How an agent's state and the kernel's mappings differ.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The kernel did not report them.
    #[error("cannot read the process's mappings")]
    Read(#[source] io::Error),
    /// The regions are not as they should be.
    #[error("the regions")]
    Regions(#[source] RegionsCheckError),
    /// The mappings are not those that were made.
    #[error("VM {vm}: {what}")]
    Differs {
        /// The VM.
        vm: VmId,
        /// What is different.
        what: String,
    },
}

impl Agent {
    /// Compares extents, shared pages and the count of mappings with the kernel's. Exact only
    /// while nothing writes the VM's memory. O(mappings of the process + pages).
    ///
    /// # Errors
    ///
    /// The first difference.
    pub(crate) fn check(&self) -> Result<(), MappingError> {
        let differs = |what: String| MappingError::Differs { vm: self.vm, what };
        self.regions.check().map_err(MappingError::Regions)?;
        let mut misplaced = None;
        self.regions.all(|region| {
            let fits = self.host_addr(region) == Some(region.host_addr);
            misplaced = (!fits).then_some(*region);
            if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Some(region) = misplaced {
            return Err(differs(format!("{region:?} is not where its memory is")));
        }
        let (extents, vmas) = self.kernel_extents()?;
        if extents != self.extents {
            let ours = self.extents.iter().find(|one| !extents.iter().any(|other| other == *one));
            let theirs = extents.iter().find(|one| !self.extents.iter().any(|other| other == *one));
            return Err(differs(format!("ours alone: {ours:?}, the kernel's alone: {theirs:?}")));
        }
        let recounted = self.vma_count();
        if recounted != self.vmas {
            return Err(differs(format!("{} mappings counted, then {recounted}", self.vmas)));
        }
        // A kernel that does not report seams (`PROCMAP_QUERY`) has as many mappings more than are counted.
        let is_counted = match &self.process.bounds {
            Some(_) => vmas == self.vmas,
            None => vmas >= self.vmas,
        };
        if !is_counted {
            return Err(differs(format!("{} mappings counted, the kernel has {vmas}", self.vmas)));
        }
        if let Some(what) = self.find_contradiction() {
            return Err(differs(what));
        }
        let loose = self.shared.iter().find(|&page| self.extents.slot(page).is_none());
        if let Some(page) = loose {
            return Err(differs(format!("page {page} is shared and lies over no slot")));
        }
        let is_exposed = |page, kind| kind == PageKind::Slot && !self.shared.contains(page);
        if let Some(page) = self.find_page(is_exposed)? {
            return Err(differs(format!("page {page} shows its slot and does not share it")));
        }
        if let Some(what) = self.find_unmarked().map_err(MappingError::Read)? {
            return Err(differs(what));
        }
        match self.find_other_frame().map_err(MappingError::Read)? {
            Some(page) => Err(differs(format!("page {} is not in its slot's page frame", page.0))),
            None => Ok(()),
        }
    }

    /// The first page that is there and of which something holds.
    pub(super) fn find_page(
        &self,
        mut holds: impl FnMut(LinearIndex, PageKind) -> bool,
    ) -> Result<Option<LinearIndex>, MappingError> {
        let mut found = None;
        for piece in self.space.pieces() {
            let visit = |first, page_count: u32, kind| {
                let mut pages = piece.linear.offset(first).run(page_count).pages();
                found = found.or_else(|| pages.find(|&page| holds(page, kind)));
            };
            let scanned = self.process.pagemap.scan(self.space.whole(piece), visit);
            scanned.map_err(MappingError::Read)?;
        }
        Ok(found)
    }

    /// The extents and the number of mappings, as the kernel has them.
    fn kernel_extents(&self) -> Result<(ExtentMap, u64), MappingError> {
        let inode = self.store.memfd.inode().map_err(MappingError::Read)?;
        let (mut extents, mut vmas) = (ExtentMap::default(), 0);
        for mapping in ProcessMapping::all().map_err(MappingError::Read)? {
            for piece in self.space.pieces() {
                let Some(extent) = overlap(&mapping, &self.space, piece) else { continue };
                vmas += 1;
                if mapping.inode == inode {
                    extents.insert(extent, |_| {});
                }
            }
        }
        Ok((extents, vmas))
    }
}

/// The part of a mapping that lies in a piece of the VM's memory, as pages over slots.
fn overlap(mapping: &ProcessMapping, space: &Space, piece: &Piece) -> Option<Extent> {
    let span = space.whole(piece);
    let start = mapping.range.start.max(span.start());
    let end = mapping.range.end.min(span.start() + span.len_bytes());
    if start >= end {
        return None;
    }
    let page = |bytes: usize| u32::try_from(bytes / PAGE_SIZE).ok();
    let offset = usize::try_from(mapping.offset_bytes).ok()? + (start - mapping.range.start);
    let linear = piece.linear.offset(page(start - span.start())?);
    // Only a store's offsets fit a slot number by design; others are not looked at.
    let slot = Slot(page(offset).unwrap_or(u32::MAX));
    Some(Extent { linear, slot, page_count: page(end - start)? })
}
