use std::collections::HashSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::workload::Preset;

fn params(seed: u64, vm_number: u32, common: u32, own: u32, zero: u32) -> Params {
    Params {
        common_pages: common,
        own_pages: own,
        zero_pages: zero,
        ..Preset::Mix.params(seed, vm_number, 64 << 20, 1).unwrap()
    }
}

fn placed(params: &Params) -> Vec<u32> {
    let mut tags = vec![0; usize::try_from(params.pages()).unwrap()];
    place(params, &mut tags).unwrap();
    tags
}

/// The maximal runs of consecutive tags of a pool, as (first id, pages).
fn runs(tags: &[u32], kind: PageKind) -> Vec<(u32, u32)> {
    tags.chunk_by(|a, b| a + 1 == *b)
        .map(|run| (PageTag(run[0]), run.len()))
        .filter(|(first, _)| first.kind() == kind)
        .map(|(first, pages)| (first.id(), u32::try_from(pages).unwrap()))
        .collect()
}

#[test]
fn a_table_of_another_length_is_refused_and_left_alone() {
    let mut tags = [7; 5];
    let error = place(&params(1, 0, 1, 1, 1), &mut tags).unwrap_err();
    assert_eq!(error, PlacementError { asked: 3, room: 5 });
    assert_eq!(tags, [7; 5]);
}

#[test]
fn vms_have_their_pages_at_different_places() {
    let a = placed(&params(1, 0, 8_000, 2_000, 4_000));
    let b = placed(&params(1, 1, 8_000, 2_000, 4_000));
    let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    assert!(same < a.len() / 20, "{same} of {} at the same place", a.len());
}

#[test]
fn runs_are_short_and_long() {
    let tags = placed(&params(1, 0, 100_000, 100_000, 0));
    let runs = runs(&tags, PageKind::Common);
    let count =
        |range: core::ops::Range<u32>| runs.iter().filter(|(_, n)| range.contains(n)).count();
    assert!(count(1..4) > runs.len() / 5);
    assert!(count(4..32) > runs.len() / 3);
    assert!(count(32..129) > runs.len() / 5);
}

#[test]
fn tags_survive_their_bits() {
    for kind in PageKind::ALL {
        let tag = PageTag::new(kind, 123_456);
        assert_eq!((tag.kind(), tag.id()), (kind, 123_456));
        assert_eq!(PageTag::from_bits(tag.to_bits()), Some(tag));
    }
    assert_eq!(PageTag::from_bits(u32::MAX), None);
}

proptest! {
    #[test]
    fn every_page_of_every_pool_is_placed_once(
        seed: u64, vm_number: u32, common in 0u32..3000, own in 0u32..3000, zero in 0u32..3000,
    ) {
        let params = params(seed, vm_number, common, own, zero);
        let tags = placed(&params);
        let distinct: HashSet<u32> = tags.iter().copied().collect();
        prop_assert_eq!(distinct.len(), tags.len());
        for tag in tags {
            let tag = PageTag::from_bits(tag).unwrap();
            prop_assert!(tag.id() < pool_pages(&params, tag.kind()));
        }
    }

    #[test]
    fn the_common_pool_has_the_same_runs_in_each_vm(
        seed: u64, a: u32, b: u32, common in 1u32..3000, own in 0u32..3000,
    ) {
        let cuts = |vm_number| {
            let params = params(seed, vm_number, common, own, 100);
            // Runs that happen to follow each other in their pool are cut again here.
            let mut cuts = Vec::new();
            for (mut first, mut left) in runs(&placed(&params), PageKind::Common) {
                while left > 0 {
                    let pages = run_pages(&params, PageKind::Common, first);
                    assert!((1..=MAX_RUN_PAGES).contains(&pages) && pages <= left);
                    cuts.push((first, pages));
                    first += pages;
                    left -= pages;
                }
            }
            cuts.sort_unstable();
            cuts
        };
        prop_assert_eq!(cuts(a), cuts(b));
    }
}
