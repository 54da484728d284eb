//! The memory of its own that a page mover works with.

use std::io;

use super::MAX_MOVE_PAGES;
use crate::PAGE_SIZE;
use crate::sys::backoff::Backoff;
use crate::sys::policy::MemoryPolicy;
use crate::sys::scratch::Scratch;
use crate::sys::span::Span;
use crate::sys::uffd::Userfaultfd;

/// Pages of untouched mappings that are reserved together.
const RESERVE_PAGES: u32 = 1 << 15;

#[derive(Debug)]
pub(super) struct ScratchPair {
    /// Where the pages are meanwhile.
    pub(super) buffer: Scratch,
    /// Untouched mappings, registered for missing pages.
    pub(super) untouched: Scratch,
    /// The policy of the buffer, if it is not the default.
    policy: Option<MemoryPolicy>,
}

impl ScratchPair {
    pub(super) fn new(uffd: &Userfaultfd) -> io::Result<Self> {
        let buffer = new_buffer()?;
        Ok(Self { buffer, untouched: new_untouched(uffd)?, policy: None })
    }

    /// Has room for `page_count` pages in both.
    pub(super) fn refill(&mut self, uffd: &Userfaultfd, page_count: u32) -> io::Result<()> {
        if self.untouched.span().page_count() < page_count {
            self.untouched = new_untouched(uffd)?;
        }
        if self.buffer.span().page_count() < MAX_MOVE_PAGES {
            self.buffer = new_buffer()?;
            self.policy = None;
        }
        Ok(())
    }

    /// Has the pages of the buffer, none of which is there, be put where a policy has them: they keep
    /// their frames when they are moved. All of the buffer has one policy, and stays one mapping.
    pub(super) fn adopt_policy(&mut self, policy: Option<&MemoryPolicy>) {
        if self.policy.as_ref() == policy {
            return;
        }
        let pages = self.buffer.span();
        let adopted = match policy {
            Some(policy) => policy.apply(pages),
            None => MemoryPolicy::reset(pages),
        };
        match adopted {
            Ok(()) => self.policy = policy.cloned(),
            // On another node at worst.
            Err(error) => log::debug!("pages are moved without their policy: {error}"),
        }
    }

    /// Maps an untouched mapping over the pages, in one step: of their policy, or the kernel would not join it
    /// with their neighbours.
    ///
    /// # Errors
    ///
    /// As for [`Scratch::move_to`].
    pub(super) fn move_untouched(&mut self, pages: Span<'_>) -> io::Result<()> {
        let Some(policy) = &self.policy else { return self.untouched.move_to(pages) };
        let page_count = pages.page_count();
        if let Err(error) = policy.apply(self.untouched.span().part(0, page_count)) {
            // Apart at worst.
            log::debug!("pages are moved without their policy: {error}");
        }
        let result = self.untouched.move_to(pages);
        if result.is_err()
            && let Err(error) = MemoryPolicy::reset(self.untouched.span().part(0, page_count))
        {
            log::debug!("a mapping keeps a policy: {error}");
        }
        result
    }

    /// Maps the buffer itself over the pages, in one step.
    ///
    /// # Errors
    ///
    /// The kernel's; the pages are as they were.
    pub(super) fn swap_in_buffer(&mut self, pages: Span<'_>) -> io::Result<()> {
        match self.buffer.move_to(pages) {
            Err(error) if pages.is_mapped() => {
                self.buffer.clear();
                Err(error)
            }
            Err(_) => {
                self.land_buffer(pages, 0);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Maps the buffer itself over those of the pages, all but the first `moved_bytes`, whose bytes
    /// only it has.
    pub(super) fn land_buffer(&mut self, pages: Span<'_>, moved_bytes: usize) {
        let moved_pages = u32::try_from(moved_bytes / PAGE_SIZE).unwrap_or(pages.page_count());
        let rest = pages.part(moved_pages, pages.page_count() - moved_pages);
        self.buffer.keep(moved_pages, rest.page_count());
        // It fails only for a moment without a few hundred bytes of kernel memory.
        let mut backoff = Backoff::new("map them");
        while let Err(error) = self.buffer.move_to(rest) {
            backoff.wait(&error);
        }
    }
}

fn new_buffer() -> io::Result<Scratch> {
    let buffer = Scratch::new(MAX_MOVE_PAGES)?;
    buffer.span().advise_guest()?;
    Ok(buffer)
}

fn new_untouched(uffd: &Userfaultfd) -> io::Result<Scratch> {
    let untouched = Scratch::new(RESERVE_PAGES)?;
    untouched.span().advise_guest()?;
    uffd.register_missing(untouched.span())?;
    Ok(untouched)
}
