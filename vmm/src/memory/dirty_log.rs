//! What was written to guest memory: KVM's dirty log, and the VMM's own writes.

use std::io;
use std::sync::Arc;

use pagefold_dedup::ChangeSource;
use pagefold_dedup::bitmap::Bitmap;

use crate::sys::memslot::MappedVm;

/// The changes of one VM's memory.
///
/// It keeps the VM and its memory alive, so a VM's end includes dropping it.
#[derive(Debug)]
pub struct KvmDirtyLog {
    vm: Arc<MappedVm>,
    /// Read from the kernel, which forgets what it has told, and not yet handed on: empty but after
    /// an error in the middle.
    undelivered: Vec<Written>,
}

/// One bit a page, from the linear index `first` on.
#[derive(Debug)]
struct Written {
    first: usize,
    words: Vec<u64>,
}

impl KvmDirtyLog {
    /// The changes since now of `vm`, whose slots all log their writes whenever this is asked.
    pub(crate) fn new(vm: Arc<MappedVm>) -> Self {
        Self { vm, undelivered: Vec::new() }
    }
}

impl ChangeSource for KvmDirtyLog {
    fn collect(&mut self, changed: &mut Bitmap) -> io::Result<()> {
        let ram = self.vm.ram();
        for (position, region) in ram.regions().iter().enumerate() {
            let first = region.first.0 as usize;
            // KVM_GET_DIRTY_LOG (KVM API section 4.8) write-protects and forgets what it reports;
            // a write from then on is in the next one.
            let slot = u32::try_from(position).map_err(io::Error::other)?;
            let len_bytes = usize::try_from(region.len_bytes()).map_err(io::Error::other)?;
            let words = self.vm.fd().get_dirty_log(slot, len_bytes)?;
            self.undelivered.push(Written { first, words });
            let words = ram.take_written(position);
            self.undelivered.push(Written { first, words });
        }
        for written in self.undelivered.drain(..) {
            changed.insert_words(written.first, &written.words);
        }
        Ok(())
    }

    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        // Without a log KVM protects nothing, and a guest's writes cost nothing more.
        self.vm.log_writes(is_watched)
    }
}

#[cfg(test)]
mod tests;
