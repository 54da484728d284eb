//! Images of the shape that real guests have, made from a seed.

use pagefold_dedup::PAGE_SIZE;
use pagefold_guest::layout::{MemorySizeError, heap};
use pagefold_guest::params::Params;
use pagefold_guest::pattern::{Content, PAGE_WORDS};
use pagefold_guest::placement::{PageTag, PlacementError, place};
use pagefold_guest::workload::Preset;

use super::Image;

/// Zero pages, in per cent of the heap; measured on four Debian guests of 256 MiB.
const ZERO_PERCENT: u32 = 22;
/// Pages that all VMs have, in per cent of the others. Of four VMs' pages that are not zero, three
/// quarters of these can be saved: 62 %, as measured on the same guests.
const COMMON_PERCENT: u32 = 83;

/// How many VMs, how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What all content follows from.
    pub seed: u64,
    /// The number of images.
    pub vm_count: u32,
    /// The size of each.
    pub memory_bytes: u64,
}

/// Why images cannot be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The size is none that a guest could have.
    #[error("no guest has memory of that size")]
    Size(#[source] MemorySizeError),
    /// The guest's own rules do not fit together.
    #[error("the guest's pages do not fit in its memory")]
    Placement(#[source] PlacementError),
}

impl Shape {
    /// The images, as the memory of built-in guests at rest: the same pages in all of them, in runs
    /// whose places differ from VM to VM, between pages of their own and pages of zeroes.
    ///
    /// # Errors
    ///
    /// When no guest can have that much memory.
    pub fn generate(&self) -> Result<Vec<Image>, GenerateError> {
        (0..self.vm_count).map(|vm| self.image(vm)).collect()
    }

    fn image(&self, vm: u32) -> Result<Image, GenerateError> {
        let heap = heap(self.memory_bytes).map_err(GenerateError::Size)?;
        let params = self.params(vm, heap.pages).map_err(GenerateError::Size)?;
        let mut tags = vec![0; heap.pages as usize];
        place(&params, &mut tags).map_err(GenerateError::Placement)?;

        let page_count = usize::try_from(self.memory_bytes).unwrap_or(usize::MAX) / PAGE_SIZE;
        let base_pages = page_count - tags.len();
        let mut bytes = vec![0; page_count * PAGE_SIZE];
        let pages: &mut [[u8; PAGE_SIZE]] = bytes.as_chunks_mut().0;
        let mut words = [0; PAGE_WORDS];
        for (page, &bits) in pages[base_pages..].iter_mut().zip(&tags) {
            let Some(tag) = PageTag::from_bits(bits) else {
                unreachable!("`place` writes nothing but tags")
            };
            Content::of(self.seed, vm, tag, 0).fill(&mut words);
            for (bytes, word) in page.as_chunks_mut().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
        }
        Ok(Image { name: format!("generated:seed={},vm={vm}", self.seed), bytes })
    }

    fn params(&self, vm: u32, heap_pages: u32) -> Result<Params, MemorySizeError> {
        let preset = Preset::Mix.params(self.seed, vm, self.memory_bytes, 1)?;
        let zero_pages = heap_pages * ZERO_PERCENT / 100;
        let common_pages = (heap_pages - zero_pages) * COMMON_PERCENT / 100;
        let own_pages = heap_pages - zero_pages - common_pages;
        Ok(Params { common_pages, own_pages, zero_pages, ..preset })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Census;
    use super::*;

    #[test]
    fn generated_images_can_be_folded_as_real_ones_can() {
        let shape = Shape { seed: 1, vm_count: 4, memory_bytes: 16 << 20 };
        let census = Census::of(&shape.generate().unwrap());
        let shareable = census.saveable_pages() - census.zero_pages;
        let percent = |part: u64, whole: u64| part * 100 / whole;
        assert!((20..32).contains(&percent(census.zero_pages, census.pages)), "{census:?}");
        assert!((60..64).contains(&percent(shareable, census.pages - census.zero_pages)));
    }
}
