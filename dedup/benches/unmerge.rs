//! Unmerging everything, `run` = 2: how long any other request waits meanwhile, and how fast it is.
//!
//! First the index by itself, as large as fits: VMs of one image, whose pages are numbers, are taken
//! out of the trees a batch at a time, with another request between any two batches. Then real
//! memory: 2 GiB of shared pages get their own memory again, step by step.
//!
//! `cargo bench -p pagefold-dedup --bench unmerge [-- [--json] [--full] [VMS]]`
//! `--full` makes 1 TiB of VMs of 256 MiB, an index of 268 million items, instead of 1/8 of that.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, its counts are small, and a failure is a panic"
)]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::broker::LocalBroker;
use pagefold_dedup::extents::Extent;
use pagefold_dedup::fingerprint::Fingerprint;
use pagefold_dedup::protocol::{Broker, Decision, Directive, Offer, Outcome};
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, LinearIndex, PAGE_SIZE, Run,
    Slot, Step, Unchanging, VmId,
};

/// Pages of each VM of the index: 256 MiB.
const VM_PAGES: u32 = 1 << 16;
const FULL_VMS: u32 = 4096;
const DEFAULT_VMS: u32 = FULL_VMS / 8;

/// What an agent gives its own memory at a time.
const BATCH: usize = 4096;
const MAX_PAGE_SHARING: u32 = 256;

/// Pages of a VM after which the mix begins anew: 32 shared by all VMs, 7 its own, 11 zero.
const GROUP: u32 = 50;
const GROUP_SHARED: u32 = 32;
const GROUP_FOLDED: u32 = 39;

/// The VMs of real memory: 512 MiB each.
const REAL_VMS: u32 = 4;
const REAL_PAGES: u32 = 1 << 17;

/// A domain of VMs that are page numbers.
struct Index {
    broker: LocalBroker,
    count_vms: u32,
    random: u64,
}

impl Index {
    fn new(count_vms: u32) -> Self {
        let broker = LocalBroker::new(u32::MAX / 2, MAX_PAGE_SHARING).unwrap();
        let mut index = Self { broker, count_vms, random: 0 };
        let fingerprints: Vec<Fingerprint> =
            (0..VM_PAGES).map(|number| index.broker.secret().fingerprint(&page(number))).collect();
        // One VM more, which the other requests are about.
        for vm in 0..=count_vms {
            index.broker.register(VmId(vm), VM_PAGES).unwrap();
        }
        for vm in 0..count_vms {
            for pages in folded_pages().chunks(BATCH) {
                index.offer(vm, pages, &fingerprints);
            }
            // The one whose pages waited for this one's hands their bytes over.
            for vm in vm.saturating_sub(1)..=vm {
                index.follow(vm);
            }
        }
        index
    }

    fn offer(&mut self, vm: u32, pages: &[u32], fingerprints: &[Fingerprint]) {
        let mut offer = |&page: &u32| {
            let shared = page % GROUP < GROUP_SHARED;
            let fingerprint = if shared {
                fingerprints[page as usize]
            } else {
                Fingerprint(random(&mut self.random))
            };
            Offer { linear: LinearIndex(page), fingerprint }
        };
        let offers: Vec<Offer> = pages.iter().map(&mut offer).collect();
        let mut decisions = Vec::new();
        self.broker.offer(VmId(vm), &offers, &mut decisions).unwrap();
        let joins = pages.iter().zip(&decisions).filter_map(|(&page, decision)| match decision {
            Decision::Join(slot) => Some((LinearIndex(page), *slot)),
            Decision::Wait | Decision::Keep => None,
        });
        let joins: Vec<(LinearIndex, Slot)> = joins.collect();
        self.confirm(vm, &joins);
    }

    fn follow(&mut self, vm: u32) {
        let mut directives = Vec::new();
        loop {
            directives.clear();
            self.broker.directives(VmId(vm), BATCH, &mut directives).unwrap();
            if directives.is_empty() {
                return;
            }
            let mut targets = Vec::with_capacity(directives.len());
            for directive in &directives {
                match *directive {
                    Directive::Create { linear, slot } => {
                        let mut accepted = Vec::new();
                        self.broker.fill(VmId(vm), slot, &page(linear.0), &mut accepted).unwrap();
                        assert_eq!(accepted, [true], "the bytes that were offered");
                        targets.push((linear, slot));
                    }
                    Directive::Merge { linear, slot } => targets.push((linear, slot)),
                    Directive::Unshare { .. } => {}
                }
            }
            self.confirm(vm, &targets);
        }
    }

    fn confirm(&mut self, vm: u32, targets: &[(LinearIndex, Slot)]) {
        let next = |one: &(LinearIndex, Slot), next: &(LinearIndex, Slot)| {
            (one.0.offset(1), one.1.offset(1)) == *next
        };
        let merged = |run: &[(LinearIndex, Slot)]| {
            let (linear, slot) = run[0];
            Outcome::Merged(Extent { linear, slot, count_pages: run.len() as u32 })
        };
        let outcomes: Vec<Outcome> = targets.chunk_by(next).map(merged).collect();
        self.broker.report(VmId(vm), &outcomes).unwrap();
    }

    /// Takes everything out of the trees; returns how long each batch took, and each request that
    /// was made between two.
    fn unmerge(&mut self) -> (Vec<Duration>, Vec<Duration>) {
        let (mut batches, mut requests) = (Vec::new(), Vec::new());
        let folded = folded_pages();
        for vm in 0..self.count_vms {
            for pages in folded.chunks(BATCH) {
                let left = |&page: &u32| Outcome::Left { linear: LinearIndex(page) };
                let outcomes: Vec<Outcome> = pages.iter().map(left).collect();
                let began = Instant::now();
                self.broker.report(VmId(vm), &outcomes).unwrap();
                batches.push(began.elapsed());
                let began = Instant::now();
                self.request();
                requests.push(began.elapsed());
            }
        }
        (batches, requests)
    }

    /// Who shares some slot, how many nodes there are, and a page of the spare VM that is offered
    /// and written again.
    fn request(&mut self) {
        let number = random(&mut self.random);
        let mut sharers = 0;
        let _ = self.broker.walk_slot(Slot(number as u32 % VM_PAGES), |_, _| {
            sharers += 1;
            ControlFlow::Continue(())
        });
        black_box((sharers, self.broker.count_nodes()));
        let (spare, linear) = (VmId(self.count_vms), LinearIndex(number as u32 % VM_PAGES));
        let offer = Offer { linear, fingerprint: Fingerprint(number) };
        self.broker.offer(spare, &[offer], &mut Vec::new()).unwrap();
        self.broker.report(spare, &[Outcome::Left { linear }]).unwrap();
    }
}

/// The pages of a VM that are shared or wait.
fn folded_pages() -> Vec<u32> {
    (0..VM_PAGES).filter(|page| page % GROUP < GROUP_FOLDED).collect()
}

/// The bytes of a content.
fn page(content: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0xa5; PAGE_SIZE];
    page[..4].copy_from_slice(&content.to_le_bytes());
    page
}

/// The next number of a splitmix64 sequence.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// How long things took.
struct Times {
    what: &'static str,
    count: usize,
    total: Duration,
    longest: Duration,
    p99: Duration,
}

impl Times {
    fn of(what: &'static str, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            what,
            count: times.len(),
            total: times.iter().sum(),
            longest: times[times.len() - 1],
            p99: times[(times.len() - 1) * 99 / 100],
        }
    }

    fn print(&self, pages: u64, json: bool) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let mean = us(self.total) / self.count as f64;
        let (what, count, total) = (self.what, self.count, self.total.as_secs_f64());
        let (longest, p99) = (us(self.longest), us(self.p99));
        if json {
            println!(
                "{{\"what\":\"{what}\",\"pages\":{pages},\"count\":{count},\"total_s\":{total:.3},\
                 \"longest_us\":{longest:.1},\"p99_us\":{p99:.1},\"mean_us\":{mean:.1}}}"
            );
        } else {
            println!(
                "{what:<16}{pages:>12}{count:>9}{total:>10.3}{longest:>12.1}{p99:>11.1}{mean:>11.1}"
            );
        }
    }
}

fn bench_index(count_vms: u32, json: bool) {
    let began = Instant::now();
    let mut index = Index::new(count_vms);
    let built = began.elapsed();
    let stats = index.broker.stats("unmerge");
    let pages = u64::from(count_vms) * u64::from(VM_PAGES);
    if !json {
        println!(
            "index of {pages} items ({count_vms} VMs of 256 MiB; of each 50 pages 32 shared by all,\n\
             7 waiting, 11 zero): {} slots, {} pages sharing, {} waiting, {:.2} GB of metadata,\n\
             built in {:.1} s. A request waits for one batch of {BATCH} pages at most.\n",
            stats.pages_shared,
            stats.pages_sharing,
            stats.pages_unshared,
            stats.metadata_bytes as f64 / 1e9,
            built.as_secs_f64()
        );
        println!(
            "{:<16}{:>12}{:>9}{:>10}{:>12}{:>11}{:>11}",
            "what", "pages", "times", "total s", "longest us", "p99 us", "mean us"
        );
    }
    let (batches, requests) = index.unmerge();
    let after = index.broker.stats("unmerge");
    assert_eq!((after.pages_shared, after.pages_unshared), (0, 0), "everything was released");
    let released = stats.pages_shared + stats.pages_sharing + stats.pages_unshared;
    Times::of("index batch", batches).print(released, json);
    Times::of("other request", requests).print(pages, json);
    if !json && count_vms < FULL_VMS {
        let times = f64::from(FULL_VMS) / f64::from(count_vms);
        println!(
            "(1 TiB is {times:.0} times as many batches, of the same size; --full makes them)"
        );
    }
}

/// VMs of 2 GiB together, whose pages are all shared, or to be.
fn real_memory() -> Engine {
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    for vm in 0..REAL_VMS {
        let memory = AnonymousMemory::new(REAL_PAGES).unwrap();
        for number in 0..REAL_PAGES {
            memory.write(number as usize * PAGE_SIZE, &page(number));
        }
        let spec = AttachSpec {
            domain: "unmerge".to_owned(),
            mode: DedupMode::On,
            memory: Arc::new(memory),
            changes: Box::new(Unchanging),
        };
        engine.attach(VmId(vm), spec).unwrap();
    }
    engine
}

/// Steps until `done`, or until a pass ends in which it is; returns the time of each step.
fn steps(engine: &mut Engine, done: impl Fn(&Engine) -> bool) -> Vec<Duration> {
    let mut times = Vec::new();
    loop {
        let began = Instant::now();
        let step = engine.step();
        times.push(began.elapsed());
        match step {
            Step::More => {}
            Step::Done(report) => {
                assert!(report.errors.is_empty(), "{:?}", report.errors);
                if done(engine) {
                    return times;
                }
            }
            Step::Stopped => panic!("run is not 0"),
        }
    }
}

fn bench_memory(json: bool) {
    let pages = u64::from(REAL_VMS) * u64::from(REAL_PAGES);
    let mut engine = real_memory();
    let all = pages - u64::from(REAL_PAGES);
    let merging = steps(&mut engine, |engine| engine.stats().pages_sharing == all);
    let merging = Times::of("merge step", merging);
    let mut knobs = engine.knobs();
    knobs.run = Run::Unmerge;
    engine.set_knobs(knobs).unwrap();
    let folded = |engine: &Engine| {
        let stats = engine.stats();
        (stats.pages_shared, stats.pages_sharing, stats.pages_unshared)
    };
    let unmerging = steps(&mut engine, |engine| folded(engine) == (0, 0, 0));
    let unmerging = Times::of("unmerge step", unmerging);
    assert_eq!(engine.stats().events.unmerges, pages, "each page has its own memory again");
    for times in [merging, unmerging] {
        times.print(pages, json);
        if !json {
            let mib = (pages * PAGE_SIZE as u64) as f64 / f64::from(1 << 20);
            println!("{:>16}: {:.0} MiB/s", times.what, mib / times.total.as_secs_f64());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !has("--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let json = has("--json");
    let given = arguments.iter().find_map(|argument| argument.parse().ok());
    let count_vms = given.unwrap_or(if has("--full") { FULL_VMS } else { DEFAULT_VMS });
    bench_index(count_vms, json);
    bench_memory(json);
}
