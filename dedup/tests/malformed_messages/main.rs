//! Bytes that are no message: refused, whatever they are, and without much memory.

#![cfg(feature = "encoded-messages")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod sys;

use pagefold_dedup::internals::{AdminReply, AdminRequest, AgentReply, AgentRequest, decode};
use proptest::prelude::*;

/// More than there are of any message.
const VARIANTS: u8 = 64;

/// Serde takes a MB for a list before it has seen its first element, and some have two lists or a table.
const MOST_BYTES: usize = 8 << 20;

/// The lengths that a list, and one byte after it, claim to have: 2^64 − 1 and 2^32 − 1.
const CLAIMS: [&[u8]; 2] = [
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
];

/// The requests of an agent's that are a VM's number and a list, by their numbers.
const LISTS: [u8; 5] = [0, 1, 2, 4, 6];

/// Tries bytes as any message. Some may be one.
fn decode_all(bytes: &[u8]) {
    drop(decode::<AgentRequest>(bytes));
    drop(decode::<AgentReply>(bytes));
    drop(decode::<AdminRequest>(bytes));
    drop(decode::<AdminReply>(bytes));
}

#[test]
fn bytes_that_promise_more_than_there_is_are_refused_without_much_memory() {
    // Whatever a thread and its output take is taken before.
    decode_all(&[]);
    let before = sys::reset_peak();
    for variant in 0..VARIANTS {
        // Where the list stands in a message, and what stands before it, differ.
        for (skip, fill) in (0..24).flat_map(|skip| [0, 1, 2].map(|fill| (skip, fill))) {
            for claim in CLAIMS {
                let mut bytes = vec![variant];
                bytes.extend(std::iter::repeat_n(fill, skip));
                bytes.extend_from_slice(claim);
                decode_all(&[&bytes[..], &[0; 3]].concat());
            }
        }
    }
    for (list, claim) in LISTS.into_iter().flat_map(|list| CLAIMS.map(|claim| (list, claim))) {
        let bytes = [&[list, 7], claim, &[0; 3]].concat();
        assert!(decode::<AgentRequest>(&bytes).is_err(), "{bytes:?}");
        assert!(decode::<AgentRequest>(&[list, 7, 0]).is_ok(), "an empty list");
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let start = (0..VARIANTS, prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..4], 0..200));
    runner
        .run(&start, |(variant, rest)| {
            decode_all(&[&[variant], &rest[..]].concat());
            Ok(())
        })
        .unwrap();
    let taken = sys::peak() - before;
    assert!(taken < MOST_BYTES, "{taken} bytes at a time");
}
