use std::boxed::Box;
use std::collections::HashSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn filled(content: &Content) -> Box<PageWords> {
    // Not zero, so that a word left out is noticed.
    let mut page = Box::new([0x5555_5555_5555_5555; PAGE_WORDS]);
    content.fill(&mut page);
    page
}

#[test]
fn common_pages_are_the_same_in_each_vm_and_at_rest_again_after_scratch() {
    let tag = PageTag::new(PageKind::Common, 7);
    let common = Content::of(1, 0, tag, 0);
    assert_eq!(common, Content::of(1, 9, tag, 0));
    assert_eq!(common, Content::of(1, 0, tag, 2));
    assert_eq!(Content::of(1, 0, tag, 1).kind(), ContentKind::Scratch);
    assert_ne!(common, Content::of(2, 0, tag, 0));
}

#[test]
fn zero_pages_are_zero_at_rest_only() {
    let tag = PageTag::new(PageKind::Zero, 7);
    assert_eq!(*filled(&Content::of(1, 0, tag, 4)), [0; PAGE_WORDS]);
    assert!(filled(&Content::of(1, 0, tag, 5)).iter().all(|word| *word != 0));
}

#[test]
fn contents_that_must_differ_differ_in_their_first_two_words() {
    let mut seen = HashSet::new();
    for vm_number in 0..4 {
        for id in 0..40 {
            for version in 0..10 {
                for kind in [PageKind::Own, PageKind::Common, PageKind::Zero] {
                    let content = Content::of(1, vm_number, PageTag::new(kind, id), version);
                    let is_shared =
                        matches!(content.kind(), ContentKind::Common | ContentKind::Zero);
                    if !is_shared {
                        assert!(seen.insert((content.word(0), content.word(1))));
                    }
                }
            }
        }
    }
    for id in 0..40 {
        let content = Content::of(1, 0, PageTag::new(PageKind::Common, id), 0);
        assert!(seen.insert((content.word(0), content.word(1))));
    }
    assert!(!seen.contains(&(0, 0)));
}

#[test]
fn no_word_of_many_pages_repeats() {
    let mut words = HashSet::new();
    for id in 0..100 {
        let page = filled(&Content::of(1, 0, PageTag::new(PageKind::Common, id), 0));
        // The second word encodes which group the page belongs to: it is the same in all of them.
        words.extend(page.iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| *word));
    }
    assert_eq!(words.len(), 100 * (PAGE_WORDS - 1));
}

#[test]
fn the_first_wrong_byte_is_named() {
    let content = Content::of(1, 0, PageTag::new(PageKind::Own, 3), 2);
    let mut page = filled(&content);
    page[100] ^= 0x0100_0000;
    page[101] = 0;
    let mismatch = content.verify(&page).unwrap_err();
    let want = content.word(100).to_le_bytes()[3];
    assert_eq!(mismatch.byte(), (803, want, want ^ 1));
}

proptest! {
    #[test]
    fn a_filled_page_verifies_and_one_changed_bit_fails(
        seed: u64, vm_number: u32, id in 0u32..1 << 30, version: u32, bit in 0usize..32_768,
        kind in prop::sample::select(&PageKind::ALL[..]),
    ) {
        let content = Content::of(seed, vm_number, PageTag::new(kind, id), version);
        let mut page = filled(&content);
        prop_assert_eq!(content.verify(&page), Ok(()));
        prop_assert_eq!(content.word(bit / 64), page[bit / 64]);
        page[bit / 64] ^= 1 << (bit % 64);
        let (offset, want, got) = content.verify(&page).unwrap_err().byte();
        prop_assert_eq!(usize::from(offset), bit / 8);
        prop_assert_eq!(want ^ got, 1 << (bit % 8));
    }

    #[test]
    fn two_contents_are_equal_only_if_they_are_the_same(
        seed: u64,
        a in (0u32..3, 0u32..3, 0u32..3, 0u32..4),
        b in (0u32..3, 0u32..3, 0u32..3, 0u32..4),
    ) {
        let [a, b]: [Content; 2] = [a, b]
            .map(|(vm_number, kind, id, version)| {
                let tag = PageTag::new(PageKind::ALL[kind as usize], id);
                Content::of(seed, vm_number, tag, version)
            });
        let is_zero = a.kind() == ContentKind::Zero && b.kind() == ContentKind::Zero;
        let pages: Vec<_> = [a, b].iter().map(filled).collect();
        prop_assert_eq!(pages[0] == pages[1], is_zero || a == b);
    }
}
