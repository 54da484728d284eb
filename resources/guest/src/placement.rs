//! Which content lies on which page.
//!
//! Each of the three pools (common, own, zero) is cut into runs of 1 to 128 pages, short ones as
//! frequent as long ones on a logarithmic scale. The cuts follow from the seed alone, so that the
//! common pool has the same runs in every VM, as files have in page caches; then all runs are
//! shuffled for each VM, as address randomisation and page-cache order do it.

use core::error::Error;
use core::fmt;

use crate::params::Params;
use crate::rng::{Rng, scramble};

/// The longest run, in pages.
pub const MAX_RUN_PAGES: u32 = 128;

/// Which pool a page is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// The same in every VM of the group.
    Common,
    /// Found nowhere else.
    Own,
    /// Zeroes.
    Zero,
}

impl PageKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Common, Self::Own, Self::Zero];
}

/// A page's pool (upper two bits) and its number in it (the other 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageTag(u32);

const ID_BITS: u32 = 30;
const ID_MASK: u32 = (1 << ID_BITS) - 1;

impl PageTag {
    /// The tag of page `id` of a pool; only the lower 30 bits of `id` count.
    pub const fn new(kind: PageKind, id: u32) -> Self {
        Self((kind as u32) << ID_BITS | id & ID_MASK)
    }

    /// The tag with these bits, `None` if they name no pool.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits >> ID_BITS <= 2 { Some(Self(bits)) } else { None }
    }

    /// The bits.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The pool.
    pub const fn kind(self) -> PageKind {
        match self.0 >> ID_BITS {
            0 => PageKind::Common,
            1 => PageKind::Own,
            _ => PageKind::Zero,
        }
    }

    /// The number in the pool.
    pub const fn id(self) -> u32 {
        self.0 & ID_MASK
    }
}

/// Fills `tags` with the [`PageTag`] bits of each heap page of the VM, in page order.
///
/// Takes time proportional to the pages and no memory beside the slice, which serves as the list of
/// runs first.
///
/// # Errors
/// [`PlacementError`] if the slice is not as long as the parameters have pages; it is unchanged.
pub fn place(params: &Params, tags: &mut [u32]) -> Result<(), PlacementError> {
    if tags.len() as u64 != params.pages() {
        return Err(PlacementError { asked: params.pages(), room: tags.len() });
    }
    let mut run_count: u32 = 0;
    for kind in PageKind::ALL {
        let mut id = 0;
        while id < pool_pages(params, kind) {
            tags[run_count as usize] = PageTag::new(kind, id).to_bits();
            id += run_pages(params, kind, id);
            run_count += 1;
        }
    }
    let mut rng = Rng::new(params.seed, u64::from(params.vm_number));
    for last in (1..run_count).rev() {
        tags.swap(last as usize, rng.below(last + 1) as usize);
    }
    expand(params, tags, run_count);
    Ok(())
}

/// Replaces the list of runs at the front of the slice by their pages, from the back: the pages of
/// run `n` lie at or behind entry `n`, because no run before it is empty.
fn expand(params: &Params, tags: &mut [u32], run_count: u32) {
    let mut end = tags.len();
    for run in (0..run_count as usize).rev() {
        let first = PageTag(tags[run]);
        let pages = run_pages(params, first.kind(), first.id());
        let start = end - pages as usize;
        for (tag, id) in tags[start..end].iter_mut().zip(first.id()..) {
            *tag = PageTag::new(first.kind(), id).to_bits();
        }
        end = start;
    }
}

/// Pages in a pool.
pub fn pool_pages(params: &Params, kind: PageKind) -> u32 {
    match kind {
        PageKind::Common => params.common_pages,
        PageKind::Own => params.own_pages,
        PageKind::Zero => params.zero_pages,
    }
}

/// Length of the run of a pool that starts at page `first`; at least 1 if `first` is in the pool.
///
/// A function of the start alone, so that a run needs no record of its length.
pub fn run_pages(params: &Params, kind: PageKind, first: u32) -> u32 {
    let stream = scramble(u64::from(PageTag::new(kind, first).to_bits()) | 1 << 63);
    let mut rng = Rng::new(params.seed, stream);
    let octave = rng.below(MAX_RUN_PAGES.ilog2());
    let pages = (1 << octave) + rng.below((1 << octave) + 1);
    pages.min(pool_pages(params, kind).saturating_sub(first))
}

/// A slice of tags that is not as long as the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementError {
    /// Pages the parameters have.
    pub asked: u64,
    /// Length of the slice.
    pub room: usize,
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, room } = self;
        write!(f, "{asked} pages cannot be placed in a table of {room}")
    }
}

impl Error for PlacementError {}

#[cfg(test)]
mod tests;
