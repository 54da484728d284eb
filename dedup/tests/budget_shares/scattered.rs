//! Pages that lie side by side in one VM, and scattered in all others.

use pagefold_dedup::{Engine, Step};

use crate::common::{Random, TestVm, check_counters, page};
use crate::memory::{attach_all, with_contents, with_mappings};

/// VMs that are not attached yet, which have the same pages, each in an order of its own.
fn shuffled(vm_count: u32, page_count: u32) -> Vec<TestVm> {
    let mut random = Random::new(u64::from(page_count));
    let mut contents: Vec<Vec<u32>> = Vec::new();
    for _ in 0..vm_count {
        let mut order: Vec<u32> = (0..page_count).collect();
        for last in (1..page_count).rev() {
            order.swap(last as usize, random.within(0..last + 1) as usize);
        }
        contents.push(order);
    }
    with_contents(&contents)
}

/// Makes passes, step by step.
fn make_passes(engine: &mut Engine, count: u32) {
    for _ in 0..count {
        while !matches!(engine.step(), Step::Done(_)) {}
    }
}

// What one VM deferred, the others filled slots for in the same pass, page by page in orders of their own, so that its
// runs were full of holes, each of which took mappings: of 9000 pages 6700 were shared, and of 3 times 4400 pages 3600.
#[test]
fn pages_that_lie_scattered_are_all_shared_if_there_is_a_mapping_for_each() {
    const LIMIT: u64 = 10_000;
    for (vm_count, page_count) in [(2, 9000), (3, 4500), (4, 3000)] {
        let mut engine = with_mappings(LIMIT);
        let vms = shuffled(vm_count, page_count);
        attach_all(&mut engine, &vms);
        make_passes(&mut engine, 30);
        let stats = engine.stats();
        let case = format!("{vm_count} VMs, {page_count} pages: {}", stats.pages_sharing);
        assert_eq!(stats.pages_sharing, u64::from(page_count * (vm_count - 1)), "{case}");
        assert_eq!(stats.events.unshares, 0, "{case}: merged for a twin that was deferred");
        check_counters(&engine);
        let mut seen = vec![0; page_count as usize];
        for (vm, number) in vms.iter().flat_map(|vm| (0..page_count).map(move |n| (vm, n))) {
            let bytes = vm.read(number as usize);
            let content = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert!(bytes == page(content), "{case}: page {number}");
            seen[content as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count == vm_count), "{case}");
    }
}
