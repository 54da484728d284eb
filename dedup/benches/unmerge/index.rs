//! The index by itself: VMs that are page numbers.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use pagefold_dedup::internals::{Broker, Fingerprint, Offer, Outcome};
use pagefold_dedup::{LinearIndex, Slot, VmId};

use crate::population::{BATCH, Mix, Operation, Population, Record};
use crate::times::{self, Times};

/// Pages of each VM: 256 MiB.
const VM_PAGES: u32 = 1 << 16;
pub(crate) const FULL_VMS: u32 = 4096;
pub(crate) const DEFAULT_VMS: u32 = FULL_VMS / 8;

/// How long each batch took that was taken out of the trees.
#[derive(Default)]
struct Batches(Vec<Duration>);

impl Record for Batches {
    fn took(&mut self, operation: Operation, _items: usize, time: Duration) {
        if operation == Operation::Release {
            self.0.push(time);
        }
    }
}

/// Unmerges `vm_count` VMs, with a request between any two batches.
pub(crate) fn measure(vm_count: u32, json: bool) {
    let mix = Mix { vm_count, vm_pages: VM_PAGES, pairs: false };
    let began = Instant::now();
    let mut population = Population::fold(mix, Batches::default());
    let built = began.elapsed();
    let stats = population.broker.stats("unmerge");
    let pages = mix.page_count();
    if !json {
        println!(
            "index of {pages} items ({vm_count} VMs of 256 MiB; of each 50 pages 32 shared by all,\n\
             7 waiting, 11 zero): {} slots, {} pages sharing, {} waiting, {:.2} GB of metadata,\n\
             built in {:.1} s. A request waits for one batch of {BATCH} pages at most.\n",
            stats.pages_shared,
            stats.pages_sharing,
            stats.pages_unshared,
            stats.metadata_bytes as f64 / 1e9,
            built.as_secs_f64()
        );
        times::print_head();
    }
    // The one that the other requests are about.
    let spare = VmId(vm_count);
    population.broker.register(spare, VM_PAGES).unwrap();
    let mut requests = Vec::new();
    population.release(|population| {
        let began = Instant::now();
        request(population, spare);
        requests.push(began.elapsed());
    });
    let after = population.broker.stats("unmerge");
    assert_eq!((after.pages_shared, after.pages_unshared), (0, 0), "everything was released");
    let released = stats.pages_shared + stats.pages_sharing + stats.pages_unshared;
    Times::of("index batch", population.record.0).print(released, json);
    Times::of("other request", requests).print(pages, json);
    if !json && vm_count < FULL_VMS {
        let times = f64::from(FULL_VMS) / f64::from(vm_count);
        println!(
            "(1 TiB is {times:.0} times as many batches, of the same size; --full makes them)"
        );
    }
}

/// Who shares some slot, how many nodes there are, and a page of the spare VM that is offered and
/// written again.
fn request(population: &mut Population<Batches>, spare: VmId) {
    let number = population.random.number();
    let broker = &mut population.broker;
    let mut sharers = 0;
    let _ = broker.walk_slot(Slot(number as u32 % VM_PAGES), |_, _| {
        sharers += 1;
        ControlFlow::Continue(())
    });
    black_box((sharers, broker.node_count()));
    let linear = LinearIndex(number as u32 % VM_PAGES);
    let offer = Offer { linear, fingerprint: Fingerprint(number) };
    broker.offer(spare, &[offer], &mut Vec::new()).unwrap();
    broker.report(spare, &[Outcome::Left { linear }]).unwrap();
}
