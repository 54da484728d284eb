//! What was written to guest memory: KVM's dirty log, and the VMM's own writes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use pagefold_dedup::{ChangeSource, LinearIndex, PageSet};

use super::ram::RamRegion;
use crate::sys::memslot::MappedVm;

/// Pages in a word of a log.
const WORD_PAGES: usize = 64;

/// Pages whose log is cleared at a time, at most, and a word's worth more: KVM protects each of them, and no
/// vCPU can fault meanwhile.
const CLEARED_PAGES: u32 = 8192;

/// The changes of one VM's memory.
///
/// It keeps the VM and its memory alive, so a VM's end includes dropping it.
#[derive(Debug)]
pub struct KvmDirtyLog {
    vm: Arc<MappedVm>,
    /// One for each region.
    logs: Vec<RegionLog>,
}

/// What was written to a region, and has not been handed on.
#[derive(Debug, Default)]
struct RegionLog {
    /// One bit a page; none once all has been handed on.
    words: Vec<u64>,
    /// The first word that has not been handed on since the log was last read.
    next: usize,
}

impl KvmDirtyLog {
    /// The changes since now of `vm`, whose slots all log their writes whenever this is read.
    pub(crate) fn new(vm: Arc<MappedVm>) -> Self {
        let logs = vm.ram().regions().iter().map(|_| RegionLog::default()).collect();
        Self { vm, logs }
    }

    /// Reads the log of a region: KVM's, which is only copied (2 MB for 64 GiB), and what the VMM wrote.
    fn read(&mut self, position: usize, region: &RamRegion) -> io::Result<()> {
        let slot = u32::try_from(position).map_err(io::Error::other)?;
        let len_bytes = usize::try_from(region.len_bytes()).map_err(io::Error::other)?;
        let mut words = self.vm.fd().get_dirty_log(slot, len_bytes)?;
        // Taken, and so known to nobody else: as is what could not be handed on before.
        let own = self.vm.ram().take_written(position);
        let log = &mut self.logs[position];
        for known in [&own, &log.words] {
            words.iter_mut().zip(known).for_each(|(word, known)| *word |= known);
        }
        *log = RegionLog { words, next: 0 };
        Ok(())
    }

    /// Hands on what was written to a region, from word `first` of its log to `end` at most; returns the
    /// word at which it stopped because that was enough.
    fn hand_on(
        &mut self,
        position: usize,
        region: &RamRegion,
        words: Range<usize>,
        changed: &mut PageSet,
    ) -> io::Result<usize> {
        let log = &self.logs[position];
        if log.words.is_empty() || log.next != words.start {
            self.read(position, region)?;
        }
        let log = &mut self.logs[position];
        let mut page_count = 0;
        let some = log.words[words.clone()].iter().position(|word| {
            let is_enough = page_count >= CLEARED_PAGES;
            page_count += word.count_ones();
            is_enough
        });
        let end = some.map_or(words.end, |some| words.start + some);
        let part = &mut log.words[words.start..end];
        if page_count > 0 {
            self.vm.clear_log(position, words.start, part)?;
            changed.insert_words(first_page(region, words.start), part);
            part.fill(0);
        }
        log.next = end;
        if end == log.words.len() {
            *log = RegionLog::default();
        }
        Ok(end)
    }
}

/// The first page of a word of a region's log, or the end of the region.
fn first_page(region: &RamRegion, word: usize) -> LinearIndex {
    let pages = u32::try_from(word * WORD_PAGES).unwrap_or(u32::MAX);
    region.first.offset(pages.min(region.page_count))
}

impl ChangeSource for KvmDirtyLog {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        let mut rest = changed.whole();
        while !rest.is_empty() {
            rest.start = self.collect_part(rest.clone(), changed)?;
        }
        Ok(())
    }

    /// What is handed on has been cleared in KVM's log just before, and what is written from then on is
    /// named by a later call. The rest is in the log still, should a call fail.
    fn collect_part(
        &mut self,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        let vm = Arc::clone(&self.vm);
        let mut regions = vm.ram().regions().iter().enumerate();
        let holds = |region: &RamRegion| region.range().contains(&within.start);
        let Some((position, region)) = regions.find(|(_, region)| holds(region)) else {
            return Ok(within.end);
        };
        let bit = |page: LinearIndex| (page.0 - region.first.0) as usize;
        let start = bit(within.start) / WORD_PAGES;
        let end = bit(within.end.min(region.range().end)).div_ceil(WORD_PAGES);
        let end = self.hand_on(position, region, start..end, changed)?;
        Ok(first_page(region, end))
    }

    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        // Without a log KVM protects nothing, and a guest's writes cost nothing more.
        self.vm.log_writes(is_watched)
    }
}

#[cfg(test)]
mod tests;
