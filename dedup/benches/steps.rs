//! What one step of a broker looks at, with 1, 4 and 16 million pages: the same, however many there are.
//!
//! Nothing here is guest memory, as in `index`. Each count is asserted; times are printed only, and are processor
//! time: what else runs on the machine would hide a step that is long.
//!
//! `cargo bench -p pagefold-dedup --bench steps [-- PAGES...]`

#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, its counts are small, and a failure is a panic"
)]

#[path = "sys/clock.rs"]
mod clock;

use std::ops::ControlFlow;
use std::time::Duration;

use clock::thread_cpu_time;
use pagefold_dedup::internals::{
    Broker, CompactCursor, Decision, Directive, Extent, Fingerprint, LocalBroker, Offer, Outcome,
};
use pagefold_dedup::{CompactScope, LinearIndex, PAGE_SIZE, Slot, VmId};

/// Pages of both VMs.
const SIZES: [u32; 3] = [1 << 20, 1 << 22, 1 << 24];

const VMS: [VmId; 2] = [VmId(0), VmId(1)];

/// What an agent puts into one request.
const BATCH: usize = 4096;

/// Batches of one directive, each of which is declined.
const DECLINES: u32 = 1000;

/// Slots of a store that is full.
const SLOTS: u32 = 64;

/// Contents of the pages that are compacted: 256 MiB of slots.
const CONTENTS: u32 = 1 << 16;

/// What one group of a compaction may have: so many slots, and so many sharers before its last one.
const GROUP_SLOTS: usize = 256;
const GROUP_SHARERS: u32 = 24 << 10;

/// Pages that one call of a compaction looks at, at most.
const LOOK_PAGES: u32 = 1 << 14;

/// Sharers that are counted in one call, and a slot's more at most.
const COUNTED_SHARERS: u32 = 2048;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let mut sizes: Vec<u32> =
        arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    println!("{:>10}  {:<28}{:>12}{:>14}", "pages", "step", "looked at", "longest");
    for page_count in sizes {
        declines(page_count);
        full_store(page_count);
        compaction(page_count);
    }
}

fn print(page_count: u32, step: &str, looked_at: u64, longest: Duration) {
    println!("{page_count:>10}  {step:<28}{looked_at:>12}{longest:>14.1?}");
}

/// What `call` returns, and the processor time that it took if that was longer than `longest`.
fn timed<T>(longest: &mut Duration, call: impl FnOnce() -> T) -> T {
    let before = thread_cpu_time().unwrap();
    let result = call();
    *longest = thread_cpu_time().unwrap().saturating_sub(before).max(*longest);
    result
}

/// The bytes of a content.
fn page(content: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0xa5; PAGE_SIZE];
    page[..4].copy_from_slice(&content.to_le_bytes());
    page
}

/// A domain with a store of so many slots, and two VMs, each page of which has its twin in the other.
/// None of them has a slot yet.
fn matched(slot_count: u32, page_count: u32) -> LocalBroker {
    let mut broker = LocalBroker::new(slot_count, 256).unwrap();
    for vm in VMS {
        broker.register(vm, page_count / 2).unwrap();
    }
    let mut decisions = Vec::new();
    for first in (0..page_count / 2).step_by(BATCH) {
        let pages = first..(first + BATCH as u32).min(page_count / 2);
        // Of pages that nobody fills the bytes do not matter.
        let fingerprint = |number: u32| match number {
            0..SLOTS => broker.secret().fingerprint(&page(number)),
            _ => Fingerprint(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        };
        let offers: Vec<Offer> = pages
            .map(|number| Offer { linear: LinearIndex(number), fingerprint: fingerprint(number) })
            .collect();
        for vm in VMS {
            decisions.clear();
            broker.offer(vm, &offers, &mut decisions).unwrap();
        }
    }
    broker
}

/// A poll for `limit` directives, and how many pages it looked at.
fn poll(
    broker: &mut LocalBroker,
    vm: VmId,
    limit: usize,
    longest: &mut Duration,
) -> (Vec<Directive>, u64) {
    let before = broker.polled_pages();
    let mut directives = Vec::new();
    timed(longest, || broker.directives(vm, limit, &mut directives).unwrap());
    (directives, broker.polled_pages() - before)
}

/// An agent that declines each page by itself, while all others wait to be asked about.
fn declines(page_count: u32) {
    let mut broker = matched(page_count, page_count);
    let (mut looked_at, mut longest) = (0, Duration::ZERO);
    for _ in 0..DECLINES {
        let (directives, looked) = poll(&mut broker, VMS[0], 1, &mut longest);
        let &[Directive::Create { linear, slot, .. }] = &directives[..] else {
            panic!("{directives:?}")
        };
        let declined = [Outcome::Declined { linear, slot }];
        timed(&mut longest, || broker.report(VMS[0], &declined).unwrap());
        assert_eq!(looked, 1, "pages looked at for one directive");
        looked_at = looked.max(looked_at);
    }
    print(page_count, "one decline", looked_at, longest);
}

/// Pages that wait while a store is full, and one slot that becomes free.
fn full_store(page_count: u32) {
    let mut broker = matched(SLOTS, page_count);
    let mut longest = Duration::ZERO;
    for vm in VMS {
        fold(&mut broker, vm, |linear| linear);
    }
    for _ in 0..100 {
        for vm in VMS {
            let (directives, looked) = poll(&mut broker, vm, BATCH, &mut longest);
            assert_eq!((directives.len(), looked), (0, 0), "an idle poll of a full store");
        }
    }
    print(page_count, "idle poll, store full", 0, longest);
    let linear = LinearIndex(7);
    for vm in VMS {
        let gone = [Outcome::Left { linear }, Outcome::Unbacked { linear, page_count: 1 }];
        broker.report(vm, &gone).unwrap();
    }
    longest = Duration::ZERO;
    let (directives, looked) = poll(&mut broker, VMS[0], BATCH, &mut longest);
    assert_eq!((directives.len(), looked), (1, 1), "there is room for one");
    print(page_count, "poll, one slot free", looked, longest);
}

/// Does what the broker wants of a VM, until it wants nothing more.
fn fold(broker: &mut LocalBroker, vm: VmId, content: impl Fn(u32) -> u32) {
    loop {
        let (directives, _) = poll(broker, vm, BATCH, &mut Duration::default());
        if directives.is_empty() {
            return;
        }
        for directive in directives {
            let (linear, slot) = match directive {
                Directive::Create { linear, slot, .. } => {
                    broker.fill(vm, slot, &page(content(linear.0)), &mut Vec::new()).unwrap();
                    (linear, slot)
                }
                Directive::Merge { linear, slot, .. } => (linear, slot),
                Directive::Offer { .. } | Directive::Unshare { .. } => continue,
            };
            broker.report(vm, &[merged(linear, slot)]).unwrap();
        }
    }
}

/// Two VMs with the same pages in the same order, all over slots that lie in another.
fn scattered(page_count: u32) -> LocalBroker {
    let mut broker = LocalBroker::new(4 * CONTENTS, 1024).unwrap();
    let secret = broker.secret().clone();
    let fingerprints: Vec<Fingerprint> =
        (0..CONTENTS).map(|content| secret.fingerprint(&page(content))).collect();
    let offer = |linear, content: u32| Offer {
        linear: LinearIndex(linear),
        fingerprint: fingerprints[content as usize],
    };
    // Two that have given out the slots, and end when all others are there.
    let first = [VmId(2), VmId(3)];
    let content = |linear: u32| linear.wrapping_mul(7919) % CONTENTS;
    for vm in first {
        broker.register(vm, CONTENTS).unwrap();
        let offers: Vec<Offer> =
            (0..CONTENTS).map(|linear| offer(linear, content(linear))).collect();
        broker.offer(vm, &offers, &mut Vec::new()).unwrap();
    }
    for vm in first {
        fold(&mut broker, vm, content);
    }
    let mut decisions = Vec::new();
    for vm in VMS {
        broker.register(vm, page_count / 2).unwrap();
        for start in (0..page_count / 2).step_by(BATCH) {
            let pages = start..(start + BATCH as u32).min(page_count / 2);
            let offers: Vec<Offer> = pages.map(|linear| offer(linear, linear % CONTENTS)).collect();
            decisions.clear();
            broker.offer(vm, &offers, &mut decisions).unwrap();
            let outcomes: Vec<Outcome> = offers
                .iter()
                .zip(&decisions)
                .map(|(&Offer { linear, .. }, decision)| match *decision {
                    Decision::Join(slot) => merged(linear, slot),
                    other => panic!("{other:?}"),
                })
                .collect();
            broker.report(vm, &outcomes).unwrap();
        }
    }
    for vm in first {
        broker.unregister(vm).unwrap();
    }
    broker
}

/// Compaction of pages every one of which is a run by itself.
fn compaction(page_count: u32) {
    let mut broker = scattered(page_count);
    let (mut cursor, mut longest) = (CompactCursor::default(), Duration::ZERO);
    let (mut moved_slots, mut most_sharers, mut idle_calls, mut groups) = (0, 0, 0, 0);
    for vm in VMS {
        cursor.rewind();
        while let Some(group) = timed(&mut longest, || {
            broker.compact(vm, &mut cursor, CompactScope::Gainful, |_, _| false)
        })
        .unwrap()
        {
            idle_calls += u32::from(group.is_empty());
            groups += u32::from(!group.is_empty());
            moved_slots += group.len() as u32;
            most_sharers = execute_moves(&mut broker, &group).max(most_sharers);
            assert!(group.len() <= GROUP_SLOTS, "{} slots in one group", group.len());
        }
    }
    let slot_sharers = page_count.div_ceil(CONTENTS);
    assert_eq!(moved_slots, CONTENTS.min(page_count / 2), "each slot moves once");
    assert!(most_sharers < GROUP_SHARERS + slot_sharers, "{most_sharers} sharers in one group");
    // Each group is looked for, and its sharers are counted, in calls of their own.
    let calls_of_groups = 2 * groups + page_count / COUNTED_SHARERS;
    let most = page_count.div_ceil(LOOK_PAGES) + VMS.len() as u32 + calls_of_groups;
    assert!(idle_calls <= most, "{idle_calls} calls that moved nothing");
    print(page_count, "sharers of a group", u64::from(most_sharers), longest);
}

/// Has all sharers of slots go where these are being moved; says how many there are.
fn execute_moves(broker: &mut LocalBroker, group: &[(Slot, Slot)]) -> u32 {
    let mut sharers: Vec<(VmId, LinearIndex)> = Vec::new();
    for &(slot, _) in group {
        broker.walk_slot(slot, |vm, linear| {
            sharers.push((vm, linear));
            ControlFlow::Continue(())
        });
    }
    sharers.sort_unstable();
    for of_vm in sharers.chunk_by(|one, next| one.0 == next.0) {
        let (vm, mut directives) = (of_vm[0].0, Vec::new());
        let pages: Vec<LinearIndex> = of_vm.iter().map(|&(_, linear)| linear).collect();
        broker.move_directives(vm, &pages, &mut directives).unwrap();
        let outcomes: Vec<Outcome> = directives
            .iter()
            .map(|directive| match *directive {
                Directive::Merge { linear, slot, .. } => merged(linear, slot),
                other => panic!("{other:?}"),
            })
            .collect();
        broker.report(vm, &outcomes).unwrap();
    }
    sharers.len() as u32
}

fn merged(linear: LinearIndex, slot: Slot) -> Outcome {
    Outcome::Merged(Extent { linear, slot, page_count: 1 })
}
