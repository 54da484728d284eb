//! Which pages of a VM others have as well.

/// Pages of a VM after which the mix begins anew: 32 shared by all VMs, 7 its own, 11 zero.
const GROUP: u32 = 50;
const GROUP_SHARED: u32 = 32;
const GROUP_OWN: u32 = 7;

/// VMs of one size and of one image, or two VMs all of whose pages are the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) vm_count: u32,
    pub(crate) vm_pages: u32,
    /// Each page is shared by two VMs, and the second one has them in another order.
    pub(crate) pairs: bool,
}

impl Mix {
    pub(crate) fn page_count(self) -> u64 {
        u64::from(self.vm_count) * u64::from(self.vm_pages)
    }

    /// How many pages are equal to others and to each other not.
    pub(crate) fn content_count(self) -> u32 {
        if self.pairs { self.vm_pages } else { self.shared().count() as u32 }
    }

    /// The pages of a VM that others have as well.
    pub(super) fn shared(self) -> impl Iterator<Item = u32> {
        (0..self.vm_pages).filter(move |page| self.pairs || page % GROUP < GROUP_SHARED)
    }

    /// The pages of a VM that only it has.
    pub(super) fn own(self) -> impl Iterator<Item = u32> {
        let own = GROUP_SHARED..GROUP_SHARED + GROUP_OWN;
        (0..self.vm_pages).filter(move |page| !self.pairs && own.contains(&(page % GROUP)))
    }

    /// Both, in order: all that is not zero.
    pub(super) fn offered(self) -> Vec<u32> {
        let mut pages: Vec<u32> = self.shared().chain(self.own()).collect();
        pages.sort_unstable();
        pages
    }

    /// Which of the contents a shared page has.
    pub(super) fn content(self, vm: u32, page: u32) -> u32 {
        match (self.pairs, vm) {
            (false, _) => page / GROUP * GROUP_SHARED + page % GROUP,
            (true, 0) => page,
            (true, _) => (u64::from(page) * 7919 % u64::from(self.vm_pages)) as u32,
        }
    }
}
