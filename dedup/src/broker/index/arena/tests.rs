//! An arena against a map from indexes to entries.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn a_new_entry_takes_the_lowest_free_index() {
    let mut arena = Arena::default();
    let count = 3 * CHUNK;
    assert!((0..count).all(|index| arena.insert(index) == index));
    for index in [2 * CHUNK, CHUNK + 7, 5, 3] {
        arena.remove(index);
    }
    let indexes: Vec<usize> = (0..5).map(|entry| arena.insert(entry)).collect();
    assert_eq!(indexes, [3, 5, CHUNK + 7, 2 * CHUNK, count]);
    arena.check().unwrap();
}

#[test]
fn memory_comes_back_chunk_by_chunk_and_all_of_it_in_the_end() {
    let mut arena = Arena::default();
    let count = 64 * CHUNK;
    (0..count).for_each(|index| {
        arena.insert(index as u64);
    });
    let full = arena.heap_bytes();
    assert!(full <= count * 8 * 11 / 10, "{full}");
    // Every chunk but each eighth.
    (0..count)
        .filter(|index| !(index / CHUNK).is_multiple_of(8))
        .for_each(|index| arena.remove(index));
    assert!(arena.heap_bytes() <= full / 8 + 64 * 256, "{} of {full}", arena.heap_bytes());
    arena.check().unwrap();
    (0..count)
        .filter(|index| (index / CHUNK).is_multiple_of(8))
        .for_each(|index| arena.remove(index));
    arena.check().unwrap();
    assert!(arena.heap_bytes() <= 2 * SPARE_CHUNKS * size_of::<Used>(), "{}", arena.heap_bytes());
    assert_eq!((arena.len(), arena.capacity()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_entry_is_found_by_its_index(
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, 1..700_u32), 1..30),
    ) {
        let (mut arena, mut model) = (Arena::default(), BTreeMap::new());
        for (place, step, count) in steps {
            for entry in 0..count {
                if step > 0 {
                    let index = arena.insert(entry);
                    prop_assert!(model.insert(index, entry).is_none());
                } else if !model.is_empty() {
                    let from = place.index(arena.end());
                    let index = *model.range(from..).next().unwrap().0;
                    model.remove(&index);
                    arena.remove(index);
                }
            }
            arena.check().map_err(TestCaseError::fail)?;
            let end = model.last_key_value().map_or(0, |(index, _)| index + 1);
            prop_assert_eq!((arena.len(), arena.end()), (model.len(), end));
            prop_assert!(model.iter().all(|(&index, entry)| arena[index] == *entry));
        }
    }
}
