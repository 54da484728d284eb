use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Values are positions among these: as many distinct keys as wanted, spread like hashes.
fn spread_keys(count: u64) -> Vec<Fingerprint> {
    // A bijection of u64, from splitmix64.
    let mix = |number: u64| {
        let mut key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Fingerprint(key ^ (key >> 31))
    };
    (1..=count).map(mix).collect()
}

/// A index, and what it should hold: values are positions among `keys`.
struct Checked {
    index: LinearHashIndex,
    model: BTreeMap<Fingerprint, u32>,
    keys: Vec<Fingerprint>,
}

impl Checked {
    fn new(keys: Vec<Fingerprint>, multiplier: u64) -> Self {
        Self { index: LinearHashIndex::with_multiplier(multiplier), model: BTreeMap::new(), keys }
    }

    fn step(&mut self, step: Step) {
        let keys = &self.keys;
        let key_of = |value: u32| keys[value as usize % keys.len()];
        let (Step::Put(value) | Step::Take(value)) = step;
        let key = key_of(value);
        let expected = self.model.get(&key).copied();
        assert_eq!(self.index.find(key, key_of), expected);
        match step {
            Step::Put(value) => {
                assert_eq!(self.index.replace(key, value, key_of), expected);
                if expected.is_none() {
                    self.index.insert(key, value, key_of);
                }
                self.model.insert(key, value);
                assert_eq!(self.index.find(key, key_of), Some(value));
            }
            Step::Take(_) => {
                assert_eq!(self.index.remove(key, key_of), expected);
                self.model.remove(&key);
                assert_eq!(self.index.find(key, key_of), None);
            }
        }
        assert_eq!(self.index.check(key_of), Ok(()));
    }

    fn assert_same_values(&self) {
        let mut values: Vec<_> = self.index.iter().collect();
        values.sort_unstable();
        let mut expected: Vec<_> = self.model.values().copied().collect();
        expected.sort_unstable();
        assert_eq!(values, expected);
        assert_eq!(self.index.len(), expected.len());
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Put(u32),
    Take(u32),
}

/// Keys as hashes are, as they are in tests, and as an attacker would choose them.
fn keys() -> impl Strategy<Value = Vec<Fingerprint>> {
    (1..600_u64, 0..4_u8).prop_map(|(count, kind)| match kind {
        0 => spread_keys(count),
        1 => (0..count).map(Fingerprint).collect(),
        2 => (0..count).map(|number| Fingerprint(number << 54)).collect(),
        _ => (0..count).map(|number| Fingerprint(0xffff_ffff_0000_0000 | number << 22)).collect(),
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Two values a key, so that one can take the other's place.
    let step = |bias| {
        (any::<u32>(), 0..8_u8).prop_map(move |(value, draw)| {
            if draw < bias { Step::Put(value) } else { Step::Take(value) }
        })
    };
    let run = (1..8_u8).prop_flat_map(move |bias| prop::collection::vec(step(bias), 0..400));
    prop::collection::vec(run, 1..4).prop_map(|runs| runs.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_behaves_like_a_map_whatever_the_keys_and_the_multiplier(
        keys in keys(),
        multiplier in prop_oneof![Just(1), any::<u64>()],
        steps in steps(),
    ) {
        let mut checked = Checked::new(keys, multiplier);
        for step in steps {
            checked.step(step);
        }
        checked.assert_same_values();
    }
}

#[test]
fn every_step_of_growing_by_many_splits_and_shrinking_to_nothing_holds_the_invariants() {
    let count = 1500;
    let mut checked = Checked::new(spread_keys(count.into()), 1);
    (0..count).for_each(|value| checked.step(Step::Put(value)));
    assert!(checked.index.buckets.len() > 10);
    checked.assert_same_values();
    // From the middle outwards: neither the order of coming nor its reverse.
    (0..count).for_each(|nth| checked.step(Step::Take((count / 2 + nth * 7) % count)));
    checked.assert_same_values();
    assert_eq!(checked.index.heap_bytes(), 0);
}

#[test]
fn buckets_are_in_the_order_of_their_keys_leading_bits_once_the_bits_of_their_numbers_are_reversed()
{
    let keys = spread_keys(100_000);
    let key_of = |value: u32| keys[value as usize];
    let mut index = LinearHashIndex::with_multiplier(1);
    for (value, &key) in (0..).zip(&keys) {
        index.insert(key, value, key_of);
    }
    let depth = index.buckets.len().ilog2();
    for (index, bucket) in index.buckets.iter().enumerate().take(1 << depth) {
        let leading = u64::try_from(index).unwrap().reverse_bits() >> (64 - depth);
        assert!(bucket.values().all(|value| key_of(value).0 >> (64 - depth) == leading));
    }
}

#[test]
fn keys_in_sequence_do_not_gather_in_few_buckets() {
    let mut index = LinearHashIndex::default();
    let key_of = |value: u32| Fingerprint(value.into());
    (0..200_000).for_each(|value| index.insert(key_of(value), value, key_of));
    let fullest = index.buckets.iter().map(Bucket::len).max();
    assert!(fullest < Some(64 * SPLIT_LOAD), "{fullest:?}");
}

#[test]
fn an_entry_costs_at_most_6_bytes_at_any_size_growing_and_shrinking() {
    let keys = spread_keys(1_000_000);
    let key_of = |value: u32| keys[value as usize];
    let assert_small = |index: &LinearHashIndex| {
        let len = index.len();
        if len >= 100_000 && len.is_multiple_of(10_000) {
            let bytes = index.heap_bytes();
            assert!(bytes <= 6 * len, "{bytes} bytes for {len} entries");
        }
    };
    let mut index = LinearHashIndex::default();
    for (value, &key) in (0..).zip(&keys) {
        index.insert(key, value, key_of);
        assert_small(&index);
    }
    assert_eq!(index.check(key_of), Ok(()));
    for (value, &key) in (0..).zip(&keys) {
        assert_eq!(index.remove(key, key_of), Some(value));
        assert_small(&index);
    }
    assert_eq!(index.heap_bytes(), 0, "memory comes back when the index empties");
}

#[test]
fn check_finds_a_value_whose_key_has_changed() {
    let mut index = LinearHashIndex::default();
    index.insert(Fingerprint(7), 0, |_| Fingerprint(7));
    assert_eq!(index.check(|_| Fingerprint(7)), Ok(()));
    // Any one other key has the same tag in one of 256 trees, as the tags are scrambled anew in each.
    assert!((8..40).any(|key| index.check(|_| Fingerprint(key)).is_err()));
}
