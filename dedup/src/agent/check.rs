//! An agent's picture of its VM's memory, held against the kernel's.

use std::io;
use std::ops::ControlFlow;

use super::Agent;
use super::changes::linear_index;
use crate::extents::{Extent, ExtentMap};
use crate::regions::RegionsCheckError;
use crate::sys::{PageKind, Region};
use crate::{LinearIndex, PAGE_SIZE, Slot, VmId};

/// Where the picture and the memory differ.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The kernel did not say.
    #[error("cannot read the process's mappings")]
    Read(#[source] io::Error),
    /// The regions are not as they should be.
    #[error("the regions")]
    Regions(#[source] RegionsCheckError),
    /// A line of `/proc/self/maps` is not as it should be.
    #[error("cannot understand the mapping '{0}'")]
    Parse(String),
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
        if vmas < self.vmas {
            return Err(differs(format!("{} mappings counted, the kernel has {vmas}", self.vmas)));
        }
        for (one, other) in
            [(&self.shared, &self.zero), (&self.shared, &self.waiting), (&self.zero, &self.waiting)]
        {
            let mut both = one.clone();
            both.intersect_with(other);
            if let Some(page) = both.iter().next() {
                return Err(differs(format!("page {page} is in two states")));
            }
        }
        let loose =
            self.shared.iter().find(|&page| self.extents.slot(linear_index(page)).is_none());
        if let Some(page) = loose {
            return Err(differs(format!("page {page} is shared and lies over no slot")));
        }
        let mut exposed = None;
        for region in self.space.regions() {
            self.process
                .pagemap
                .scan(self.space.whole(region), |first, count_pages, kind| {
                    let first = (region.linear.0 + first) as usize;
                    let mut pages = first..first + count_pages as usize;
                    if kind == PageKind::Slot {
                        exposed =
                            exposed.or_else(|| pages.find(|&page| !self.shared.contains(page)));
                    }
                })
                .map_err(MappingError::Read)?;
        }
        match exposed {
            Some(page) => Err(differs(format!("page {page} shows its slot and does not share it"))),
            None => Ok(()),
        }
    }

    /// The extents and the number of mappings, as the kernel has them.
    fn kernel_extents(&self) -> Result<(ExtentMap, u64), MappingError> {
        let inode = self.store.memfd.inode().map_err(MappingError::Read)?;
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(MappingError::Read)?;
        let (mut extents, mut vmas) = (ExtentMap::default(), 0);
        for line in maps.lines() {
            let map = Mapping::parse(line).ok_or_else(|| MappingError::Parse(line.to_owned()))?;
            for region in self.space.regions() {
                let Some((linear, offset, count_pages)) = map.overlap(region) else {
                    continue;
                };
                vmas += 1;
                if map.inode == inode {
                    extents.insert(Extent { linear, slot: Slot(offset), count_pages }, |_| {});
                }
            }
        }
        Ok((extents, vmas))
    }
}

struct Mapping {
    start: usize,
    end: usize,
    offset: u64,
    inode: u64,
}

impl Mapping {
    /// A line like `7f0000000000-7f0000001000 rw-p 00003000 00:01 1035 /memfd:name`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (offset, inode) = (fields.nth(1)?, fields.nth(1)?);
        Some(Self {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            offset: u64::from_str_radix(offset, 16).ok()?,
            inode: inode.parse().ok()?,
        })
    }

    /// The part that lies in the region: its first page, the file's page there, and its length.
    fn overlap(&self, region: &Region) -> Option<(LinearIndex, u32, u32)> {
        let start = self.start.max(region.host_addr);
        let end = self.end.min(region.host_addr + region.len_bytes());
        if start >= end {
            return None;
        }
        let page = |bytes: usize| u32::try_from(bytes / PAGE_SIZE).ok();
        let file = usize::try_from(self.offset).ok()? + (start - self.start);
        let linear = region.linear.offset(page(start - region.host_addr)?);
        // Only a store's offsets fit a slot number by design; others are not looked at.
        Some((linear, page(file).unwrap_or(u32::MAX), page(end - start)?))
    }
}
