//! One change source for several readers: folding, a migration, a snapshot. KVM forgets what was written when
//! its log is read, so that what one reader takes must be kept for the others.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use super::tracking::ChangeSource;
use crate::LinearIndex;
use crate::page_set::PageSet;

/// A change source that any number of [consumers](ChangeConsumer) read, each at its own pace. Clones are
/// the same source.
#[derive(Clone)]
pub struct SharedChanges(Arc<Mutex<Shared>>);

/// A reader of [`SharedChanges`]: a change source of its own, which names what was written since it was made.
/// Dropped, it does not read any more.
pub struct ChangeConsumer {
    shared: SharedChanges,
    id: u64,
}

struct Shared {
    source: Box<dyn ChangeSource>,
    /// What the source was notified of.
    is_watched: bool,
    consumers: Vec<Consumer>,
    next_id: u64,
    /// What the source has just named; empty in between.
    named: PageSet,
}

struct Consumer {
    id: u64,
    is_watching: bool,
    /// Pages that the source has named to others, and this one has not read.
    unread: PageSet,
}

impl SharedChanges {
    /// The changes of a VM of so many pages, of which nobody reads any yet; `source` `is_watched` already or not.
    pub fn new(source: Box<dyn ChangeSource>, page_count: u32, is_watched: bool) -> Self {
        let named = PageSet::new(page_count);
        Self(Arc::new(Mutex::new(Shared {
            source,
            is_watched,
            consumers: Vec::new(),
            next_id: 0,
            named,
        })))
    }

    /// One more reader, which names what is written from now on, and perhaps what was written before. The source
    /// is watched from now on, if it was not. O(consumers).
    ///
    /// # Errors
    ///
    /// The source's, when it cannot be watched: there is no further reader.
    pub fn consumer(&self) -> io::Result<ChangeConsumer> {
        let mut shared = self.lock();
        let id = shared.next_id;
        shared.watch(true)?;
        shared.next_id += 1;
        let unread = PageSet::new(shared.named.page_count());
        shared.consumers.push(Consumer { id, is_watching: true, unread });
        drop(shared);
        Ok(ChangeConsumer { shared: self.clone(), id })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedChanges").finish_non_exhaustive()
    }
}

impl Shared {
    /// Has the source be watched or not.
    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        if self.is_watched != is_watched {
            self.source.watch(is_watched)?;
            self.is_watched = is_watched;
        }
        Ok(())
    }

    /// Whether any consumer but `id` watches.
    fn has_others(&self, id: u64) -> bool {
        self.consumers.iter().any(|one| one.id != id && one.is_watching)
    }

    /// Has the source name pages from `within.start` on in `changed`, and keeps them for all others.
    fn read(
        &mut self,
        id: u64,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        if !self.has_others(id) {
            return self.source.collect_part(within, changed);
        }
        let result = self.source.collect_part(within, &mut self.named);
        // The source may forget what it has named before it failed.
        for other in self.consumers.iter_mut().filter(|one| one.id != id && one.is_watching) {
            other.unread.union_with(&self.named);
        }
        changed.union_with(&self.named);
        self.named.clear();
        result
    }
}

impl ChangeSource for ChangeConsumer {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        let mut rest = self.shared.lock().named.whole();
        while !rest.is_empty() {
            rest.start = self.collect_part(rest.clone(), changed)?;
        }
        Ok(())
    }

    fn collect_part(
        &mut self,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        let mut shared = self.shared.lock();
        let next = shared.read(self.id, within.clone(), changed)?;
        if let Some(own) = shared.consumers.iter_mut().find(|one| one.id == self.id) {
            let read = within.start..next.min(own.unread.end());
            changed.union_within(&own.unread, read.clone());
            own.unread.remove_range(read);
        }
        Ok(next)
    }

    /// The source is watched as long as any of its readers watches.
    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        let mut shared = self.shared.lock();
        let others = shared.has_others(self.id);
        shared.watch(is_watched || others)?;
        if let Some(own) = shared.consumers.iter_mut().find(|one| one.id == self.id) {
            own.is_watching = is_watched;
            if !is_watched {
                own.unread.clear();
            }
        }
        Ok(())
    }
}

impl Drop for ChangeConsumer {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.consumers.retain(|one| one.id != self.id);
        let others = shared.has_others(self.id);
        if let Err(error) = shared.watch(others) {
            log::warn!("writes are still noticed, although nobody asks: {error}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure is a panic")]
mod tests;
