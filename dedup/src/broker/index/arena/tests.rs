//! An arena against a map from numbers to entries.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn a_new_entry_takes_the_lowest_free_number() {
    let mut arena = Arena::default();
    let count = 3 * CHUNK;
    assert!((0..count).all(|number| arena.insert(number) == number));
    for number in [2 * CHUNK, CHUNK + 7, 5, 3] {
        arena.remove(number);
    }
    let numbers: Vec<usize> = (0..5).map(|entry| arena.insert(entry)).collect();
    assert_eq!(numbers, [3, 5, CHUNK + 7, 2 * CHUNK, count]);
    arena.check().unwrap();
}

#[test]
fn memory_comes_back_chunk_by_chunk_and_all_of_it_in_the_end() {
    let mut arena = Arena::default();
    let count = 64 * CHUNK;
    (0..count).for_each(|number| {
        arena.insert(number as u64);
    });
    let full = arena.heap_bytes();
    assert!(full <= count * 8 * 11 / 10, "{full}");
    // Every chunk but each eighth.
    (0..count)
        .filter(|number| !(number / CHUNK).is_multiple_of(8))
        .for_each(|number| arena.remove(number));
    assert!(arena.heap_bytes() <= full / 8 + 64 * 256, "{} of {full}", arena.heap_bytes());
    arena.check().unwrap();
    (0..count)
        .filter(|number| (number / CHUNK).is_multiple_of(8))
        .for_each(|number| arena.remove(number));
    arena.check().unwrap();
    assert!(arena.heap_bytes() <= 2 * SPARE_CHUNKS * size_of::<Used>(), "{}", arena.heap_bytes());
    assert_eq!((arena.len(), arena.capacity()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_entry_is_found_by_its_number(
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, 1..700_u32), 1..30),
    ) {
        let (mut arena, mut model) = (Arena::default(), BTreeMap::new());
        for (index, step, count) in steps {
            for entry in 0..count {
                if step > 0 {
                    let number = arena.insert(entry);
                    prop_assert!(model.insert(number, entry).is_none());
                } else if !model.is_empty() {
                    let from = index.index(arena.end());
                    let number = *model.range(from..).next().unwrap().0;
                    model.remove(&number);
                    arena.remove(number);
                }
            }
            arena.check().map_err(TestCaseError::fail)?;
            let end = model.last_key_value().map_or(0, |(number, _)| number + 1);
            prop_assert_eq!((arena.len(), arena.end()), (model.len(), end));
            prop_assert!(model.iter().all(|(&number, entry)| arena[number] == *entry));
        }
    }
}
