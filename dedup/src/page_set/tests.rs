//! Sets against sets of page numbers.

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;

use super::PageSet;
use super::chunk::{BITS, CHUNK};
use crate::LinearIndex;
use crate::page_range::PageRange;

fn pages(numbers: Range<u32>) -> Range<LinearIndex> {
    LinearIndex(numbers.start)..LinearIndex(numbers.end)
}

fn any_page(below: u32) -> impl Strategy<Value = LinearIndex> {
    (0..below).prop_map(LinearIndex)
}

proptest! {
    #[test]
    fn agrees_with_a_set_of_numbers(
        page_count in 1_u32..300,
        ops in prop::collection::vec((any::<bool>(), 0_u32..300, 0_u32..90), 0..60),
    ) {
        let mut set = PageSet::new(page_count);
        let mut model = BTreeSet::new();
        for (insert, start, count) in ops {
            let range = pages(start.min(page_count)..(start + count).min(page_count));
            if insert {
                model.extend(range.clone().pages());
                set.insert_range(range);
            } else {
                range.clone().pages().for_each(|page| { model.remove(&page); });
                set.remove_range(range);
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.runs().flat_map(PageRange::pages).eq(model.iter().copied()));
            prop_assert_eq!(set.count() as usize, model.len());
            let maximal = set.runs().zip(set.runs().skip(1)).all(|(a, b)| a.end < b.start);
            prop_assert!(maximal);
        }
    }

    #[test]
    fn parts_of_a_set_agree_with_the_whole(
        members in prop::collection::btree_set(any_page(300), 0..200),
        others in prop::collection::btree_set(any_page(300), 0..200),
        start in any_page(300), end in any_page(300), limit in 1_u32..100,
    ) {
        let set = |members: &BTreeSet<LinearIndex>| {
            let mut set = PageSet::new(300);
            for &member in members {
                set.insert(member);
            }
            set
        };
        let (set, other) = (set(&members), set(&others));
        let common = members.intersection(&others).count();
        prop_assert_eq!(set.count_common(&other) as usize, common);
        prop_assert_eq!(set.count_without(&[&other, &other]) as usize, members.len() - common);
        prop_assert_eq!(PageSet::full(300).count_without(&[&set, &other]) as usize,
            300 - members.union(&others).count());
        let within = start.min(end)..start.max(end);
        let inside = members.iter().copied().filter(|member| within.contains(member));
        prop_assert_eq!(set.count_within(within.clone()) as usize, inside.clone().count());
        prop_assert!(set.runs_within(within.clone()).flat_map(PageRange::pages).eq(inside));
        let mut rest = set.clone();
        rest.subtract_within(&other, within.clone());
        let mut more = set.clone();
        more.union_within(&other, within.clone());
        let added = others.iter().copied().filter(|other| within.contains(other));
        let expected: BTreeSet<LinearIndex> = members.iter().copied().chain(added).collect();
        prop_assert!(more.iter().eq(expected));
        let kept = |member: &LinearIndex| !(others.contains(member) && within.contains(member));
        prop_assert!(rest.iter().eq(members.iter().copied().filter(kept)));
        let stop = set.stretch(start, limit, 100);
        let most = start.offset(100).min(set.end());
        prop_assert!(stop <= most && stop > start);
        let count = members.range(start..stop).count();
        prop_assert!(count < limit as usize + BITS);
        prop_assert!(count >= limit as usize || stop == most);
    }
}

proptest! {
    #[test]
    fn sets_are_combined_as_sets_of_numbers_are(
        mine in prop::collection::vec((0_u32..700, 0_u32..300), 0..6),
        theirs in prop::collection::vec((0_u32..700, 0_u32..300), 0..6),
        single in any_page(700), first in any_page(700), words in prop::collection::vec(any::<u64>(), 0..4),
    ) {
        let set = |runs: &[(u32, u32)]| {
            let mut set = PageSet::new(700);
            let mut model = BTreeSet::new();
            for &(start, count) in runs {
                let range = pages(start..(start + count).min(700));
                set.insert_range(range.clone());
                model.extend(range.pages());
            }
            (set, model)
        };
        let ((mine, my_model), (theirs, their_model)) = (set(&mine), set(&theirs));
        let same = |set: &PageSet, model: &BTreeSet<LinearIndex>| {
            let mut other = PageSet::new(700);
            for &member in model {
                other.insert(member);
            }
            set.iter().eq(model.iter().copied())
                && *set == other
                && set.is_empty() == model.is_empty()
                && set.whole().pages().all(|page| set.contains(page) == model.contains(&page))
        };
        let mut set = mine.clone();
        set.union_with(&theirs);
        prop_assert!(same(&set, &my_model.union(&their_model).copied().collect()));
        let mut set = mine.clone();
        set.subtract(&theirs);
        prop_assert!(same(&set, &my_model.difference(&their_model).copied().collect()));
        let mut set = mine.clone();
        set.intersect_with(&theirs);
        prop_assert!(same(&set, &my_model.intersection(&their_model).copied().collect()));
        prop_assert!(set.is_subset(&mine) && set.is_subset(&theirs));
        prop_assert_eq!(mine.is_subset(&theirs), my_model.is_subset(&their_model));
        let (mut set, mut model) = (mine.clone(), my_model);
        prop_assert_eq!(set.remove(single), model.remove(&single));
        prop_assert!(same(&set, &model));
        prop_assert!(set.insert(single));
        model.insert(single);
        let numbers = (0..).zip(&words).flat_map(|(number, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| number * 64 + bit)
        });
        model.extend(numbers.map(|number| first.offset(number)).filter(|&page| page < set.end()));
        set.insert_words(first, &words);
        set.clear_beyond_end();
        prop_assert!(same(&set, &model));
    }
}

#[test]
fn a_set_takes_memory_only_where_some_are_in_it_and_others_are_not() {
    let chunk_pages = u32::try_from(CHUNK).unwrap();
    let page_count = 10 * chunk_pages;
    let least = PageSet::new(page_count).heap_bytes();
    let mut set = PageSet::full(page_count);
    assert_eq!(set.heap_bytes(), least);
    set.remove(LinearIndex(chunk_pages));
    assert_eq!(set.heap_bytes(), least + CHUNK / 8);
    // Worked off part by part, as a pass does it.
    let all = PageSet::full(page_count);
    all.whole().pages().step_by(50).for_each(|start| {
        set.subtract_within(&all, (start..all.end()).first(50));
    });
    assert_eq!((set.is_empty(), set.heap_bytes()), (true, least));
    let some = |members: &[u32]| {
        let mut set = PageSet::new(page_count);
        for &member in members {
            assert!(set.insert(LinearIndex(member)));
        }
        set
    };
    let mut set = some(&[1, 2 * chunk_pages]);
    set.subtract(&some(&[1]));
    set.intersect_with(&some(&[5]));
    assert_eq!(set.heap_bytes(), least);
    set.union_with(&PageSet::new(page_count));
    assert_eq!(set.heap_bytes(), least);
}

#[test]
fn a_full_set_has_one_run() {
    assert_eq!(PageSet::full(130).runs().collect::<Vec<_>>(), vec![pages(0..130)]);
    assert_eq!(PageSet::full(128).runs().collect::<Vec<_>>(), vec![pages(0..128)]);
}
