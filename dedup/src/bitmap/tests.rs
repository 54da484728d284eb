//! Sets against sets of numbers.

use proptest::prelude::*;
use std::collections::BTreeSet;

use super::Bitmap;
use super::chunk::{BITS, CHUNK};

proptest! {
    #[test]
    fn agrees_with_a_set_of_numbers(
        len in 1_usize..300,
        ops in prop::collection::vec((any::<bool>(), 0_usize..300, 0_usize..90), 0..60),
    ) {
        let mut bitmap = Bitmap::new(len);
        let mut model = BTreeSet::new();
        for (insert, start, count) in ops {
            let range = start.min(len)..(start + count).min(len);
            if insert {
                model.extend(range.clone());
                bitmap.insert_range(range);
            } else {
                range.clone().for_each(|index| { model.remove(&index); });
                bitmap.remove_range(range);
            }
            prop_assert!(bitmap.iter().eq(model.iter().copied()));
            prop_assert!(bitmap.runs().flatten().eq(model.iter().copied()));
            prop_assert_eq!(bitmap.count(), model.len());
            let maximal = bitmap.runs().zip(bitmap.runs().skip(1)).all(|(a, b)| a.end < b.start);
            prop_assert!(maximal);
        }
    }

    #[test]
    fn parts_of_a_set_agree_with_the_whole(
        members in prop::collection::btree_set(0_usize..300, 0..200),
        others in prop::collection::btree_set(0_usize..300, 0..200),
        start in 0_usize..300, end in 0_usize..300, limit in 1_usize..100,
    ) {
        let set = |members: &BTreeSet<usize>| {
            let mut bitmap = Bitmap::new(300);
            for &member in members {
                bitmap.insert(member);
            }
            bitmap
        };
        let (bitmap, other) = (set(&members), set(&others));
        let within = start.min(end)..start.max(end);
        let inside = members.iter().copied().filter(|member| within.contains(member));
        prop_assert_eq!(bitmap.count_within(within.clone()), inside.clone().count());
        prop_assert!(bitmap.runs_within(within.clone()).flatten().eq(inside));
        let mut rest = bitmap.clone();
        rest.subtract_within(&other, within.clone());
        let mut more = bitmap.clone();
        more.union_within(&other, within.clone());
        let added = others.iter().copied().filter(|other| within.contains(other));
        let expected: BTreeSet<usize> = members.iter().copied().chain(added).collect();
        prop_assert!(more.iter().eq(expected));
        let kept = |member: &usize| !(others.contains(member) && within.contains(member));
        prop_assert!(rest.iter().eq(members.iter().copied().filter(kept)));
        let stop = bitmap.stretch(start, limit, 100);
        prop_assert!(stop <= (start + 100).min(300) && stop > start);
        let count = members.range(start..stop).count();
        prop_assert!(count < limit + BITS);
        prop_assert!(count >= limit || stop == (start + 100).min(300));
    }
}

proptest! {
    #[test]
    fn sets_are_combined_as_sets_of_numbers_are(
        mine in prop::collection::vec((0_usize..700, 0_usize..300), 0..6),
        theirs in prop::collection::vec((0_usize..700, 0_usize..300), 0..6),
        single in 0_usize..700, first in 0_usize..700, words in prop::collection::vec(any::<u64>(), 0..4),
    ) {
        let set = |runs: &[(usize, usize)]| {
            let mut bitmap = Bitmap::new(700);
            let mut model = BTreeSet::new();
            for &(start, count) in runs {
                let range = start..(start + count).min(700);
                bitmap.insert_range(range.clone());
                model.extend(range);
            }
            (bitmap, model)
        };
        let ((mine, my_model), (theirs, their_model)) = (set(&mine), set(&theirs));
        let same = |bitmap: &Bitmap, model: &BTreeSet<usize>| {
            let mut other = Bitmap::new(700);
            for &member in model {
                other.insert(member);
            }
            bitmap.iter().eq(model.iter().copied())
                && *bitmap == other
                && bitmap.is_empty() == model.is_empty()
                && (0..700).all(|index| bitmap.contains(index) == model.contains(&index))
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
        let numbers = (0..64 * words.len()).filter(|bit| words[bit / 64] & (1 << (bit % 64)) != 0);
        model.extend(numbers.map(|bit| first + bit).filter(|&number| number < 700));
        set.insert_words(first, &words);
        set.clear_beyond_end();
        prop_assert!(same(&set, &model));
    }
}

#[test]
fn a_set_takes_memory_only_where_some_are_in_it_and_others_are_not() {
    let len = 10 * CHUNK;
    let least = Bitmap::new(len).heap_bytes();
    let mut set = Bitmap::full(len);
    assert_eq!(set.heap_bytes(), least);
    set.remove(CHUNK);
    assert_eq!(set.heap_bytes(), least + CHUNK / 8);
    // Worked off part by part, as a pass does it.
    let all = Bitmap::full(len);
    (0..len).step_by(50).for_each(|start| set.subtract_within(&all, start..len.min(start + 50)));
    assert_eq!((set.is_empty(), set.heap_bytes()), (true, least));
    let some = |members: &[usize]| {
        let mut set = Bitmap::new(len);
        for &member in members {
            assert!(set.insert(member));
        }
        set
    };
    let mut set = some(&[1, 2 * CHUNK]);
    set.subtract(&some(&[1]));
    set.intersect_with(&some(&[5]));
    assert_eq!(set.heap_bytes(), least);
    set.union_with(&Bitmap::new(len));
    assert_eq!(set.heap_bytes(), least);
}

#[test]
fn a_full_set_has_one_run() {
    assert_eq!(Bitmap::full(130).runs().collect::<Vec<_>>(), vec![0..130]);
    assert_eq!(Bitmap::full(128).runs().collect::<Vec<_>>(), vec![0..128]);
}
