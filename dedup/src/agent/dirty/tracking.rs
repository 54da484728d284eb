//! Change tracking: which pages may have changed since the last pass.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::LinearIndex;
use crate::page_set::PageSet;

/// Names the pages of one VM that may have changed.
///
/// A source may name too many pages and must never name too few: a page that changed unnoticed would
/// keep a stale place on the unstable tree (harmless: the bytes decide) or be counted as a sharer
/// of a slot that it has left.
pub trait ChangeSource: Send {
    /// Adds to `changed` every page that may have been written since the
    /// call before; the first call names the pages that were written since the VM was registered.
    /// Those that are already in it stay.
    ///
    /// # Errors
    ///
    /// The kernel's, when it refuses to name them. Nothing that was not named is forgotten: the pages
    /// are named again by the next call.
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()>;

    /// Does what [`collect`](Self::collect) does for pages from `within.start` on only, so that nobody
    /// waits for all of a large VM. Returns the first page, above that one, of which it has not reported
    /// whether it was written: perhaps less than `within.end`. Other pages may be named, too.
    ///
    /// A source that has no parts answers for all pages at once.
    ///
    /// # Errors
    ///
    /// As for [`collect`](Self::collect); what was named before stays so.
    fn collect_part(
        &mut self,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        let _ = within;
        self.collect(changed)?;
        Ok(changed.end())
    }

    /// Sets whether the source will be read from now on, as is so at first. It is not while the VM is not
    /// folded, so that it need not track changes then. Once watched again, the source names what is written
    /// from then on, and need not name what was written before.
    ///
    /// # Errors
    ///
    /// The kernel's; the call is made again.
    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        let _ = is_watched;
        Ok(())
    }
}

/// A change source, and whether it is watched.
pub(in crate::agent) struct Watch {
    pub(in crate::agent) source: Box<dyn ChangeSource>,
    pub(in crate::agent) is_on: bool,
}

/// The source for memory that nobody writes, such as a loaded image: every page changed once,
/// before the VM was registered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unchanging;

impl ChangeSource for Unchanging {
    fn collect(&mut self, _changed: &mut PageSet) -> io::Result<()> {
        Ok(())
    }
}

/// The source for memory whose writers name what they write: a set of pages that its clones share.
///
/// A page is to be named after it was written, or while it is: one that is named first can be taken
/// for unchanged by a pass that comes in between.
#[derive(Debug, Clone)]
pub struct WrittenPages(Arc<Mutex<PageSet>>);

impl WrittenPages {
    /// None yet, of a VM of so many pages.
    pub fn new(page_count: u32) -> Self {
        Self(Arc::new(Mutex::new(PageSet::new(page_count))))
    }

    /// Names a page that was written.
    ///
    /// # Panics
    ///
    /// When the VM has no such page.
    pub fn insert(&self, page: LinearIndex) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(page);
    }
}

impl ChangeSource for WrittenPages {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changed.union_with(&written);
        written.clear();
        Ok(())
    }

    fn collect_part(
        &mut self,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changed.union_within(&written, within.clone());
        written.remove_range(within.clone());
        Ok(within.end)
    }
}
