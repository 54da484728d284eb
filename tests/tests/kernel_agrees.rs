//! Folding's figures, held against the kernel's: what is resident, what is saved, what the process as a
//! whole takes, and how many mappings there are.
//!
//! The VMs are in processes of their own, once folded and once not, with the same seed: what the
//! second holds is what the guests have touched.

use pagefold_dedup::stats::DedupStats;
use pagefold_tests::harness::agree_within;
use pagefold_tests::harness::guest_ram::{Held, held};
use pagefold_tests::harness::proc::{rollup_pss_bytes, stores};
use pagefold_tests::harness::testbed::{Spec, Testbed};

const TESTBED: &str = env!("CARGO_BIN_EXE_testbed");

/// Enough memory that a per cent of it is more than the few MiB that a pass works in, which the C
/// library keeps.
const FOLDED: Spec = Spec { count: 6, memory_mib: 64, guest: "builtin:mix", seed: 26, dedup: "on" };

/// What there is to know of VMs at rest.
struct Figures {
    stats: DedupStats,
    held: Held,
    pss_bytes: u64,
    ideal_saved_bytes: u64,
}

impl Figures {
    fn of(spec: Spec) -> Self {
        let mut testbed = Testbed::launch(TESTBED, spec);
        testbed.bring_to_rest();
        let figures = Self {
            stats: testbed.stats(),
            held: held(testbed.pid(), testbed.ram()),
            pss_bytes: rollup_pss_bytes(testbed.pid()),
            ideal_saved_bytes: testbed.ideal_saved_bytes(),
        };
        testbed.command("check");
        testbed.finish();
        figures
    }
}

fn guest_bytes(spec: Spec) -> u64 {
    u64::from(spec.count) * (spec.memory_mib << 20)
}

#[test]
fn resident_and_saved_memory_are_what_the_kernel_says() {
    let folded = Figures::of(FOLDED);
    let unfolded = Figures::of(Spec { dedup: "off", ..FOLDED });
    let DedupStats { saved_bytes, resident_bytes, .. } = folded.stats;
    println!(
        "saved {saved_bytes} of {} that could be, resident {resident_bytes:?}; the kernel holds \
         {:?}, and {:?} unfolded; Pss {} and {}; mappings {}",
        folded.ideal_saved_bytes,
        folded.held,
        unfolded.held,
        folded.pss_bytes,
        unfolded.pss_bytes,
        folded.stats.vmas_used,
    );

    let resident_bytes = resident_bytes.expect("the kernel said");
    let kernel_bytes = folded.held.bytes();
    assert!(agree_within(1, kernel_bytes, resident_bytes, kernel_bytes), "resident");
    let store_bytes = folded.stats.domains[0].store_bytes;
    assert_eq!(store_bytes, Some(folded.held.store_bytes));

    let touched_bytes = unfolded.held.private_bytes;
    let kernel_saved = touched_bytes - kernel_bytes;
    assert!(agree_within(1, kernel_saved, saved_bytes, kernel_saved), "{kernel_saved}");
    assert!(saved_bytes * 100 >= folded.ideal_saved_bytes * 97, "{saved_bytes}");

    // The process pays for what it knows of each page; that it does know how much, this shows.
    let net_bytes = saved_bytes - folded.stats.metadata_bytes;
    let dropped = unfolded.pss_bytes - folded.pss_bytes;
    println!("Pss is less by {dropped}, and should be by {net_bytes}");
    assert!(agree_within(1, guest_bytes(FOLDED), dropped, net_bytes), "Pss");
}

#[test]
fn mappings_are_counted_as_the_kernel_counts_them() {
    let spec = Spec { count: 3, memory_mib: 32, seed: 5, ..FOLDED };
    let mut testbed = Testbed::launch(TESTBED, spec);
    testbed.bring_to_rest();
    let stats = testbed.stats();
    for (vm, interval) in stats.vms.iter().zip(testbed.ram()) {
        let kernel = held(testbed.pid(), &[*interval]).count_mappings;
        assert_eq!(vm.vmas, kernel, "VM {}", vm.id);
        assert!(vm.vmas >= vm.extents, "VM {}", vm.id);
    }
    assert_eq!(stats.vmas_used, stats.vms.iter().map(|vm| vm.vmas).sum::<u64>());
    testbed.finish();
}

#[test]
fn the_store_holds_each_shared_page_once() {
    let spec = Spec { count: 2, memory_mib: 16, seed: 9, ..FOLDED };
    let mut testbed = Testbed::launch(TESTBED, spec);
    testbed.bring_to_rest();
    let stats = testbed.stats();
    let [store] = &stores(testbed.pid())[..] else { panic!("{:?}", stores(testbed.pid())) };
    assert_eq!(store.held_bytes, stats.pages_shared * 4096);
    let merging: u64 = stats.vms.iter().map(|vm| vm.merging_pages).sum();
    assert_eq!(stats.pages_sharing, merging - stats.pages_shared);
    assert_eq!(stats.saved_bytes, (stats.pages_sharing + stats.pages_zero) * 4096);
    testbed.finish();
}
