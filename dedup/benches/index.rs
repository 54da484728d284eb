//! The index by itself: what a page of a VM costs in time and in memory, at 1, 10 and 60 million.
//!
//! Nothing here is guest memory: the VMs are page numbers, driven through `protocol::Broker` as
//! agents do it. What is shared is real: each slot is filled with a page of its own in the store.
//!
//! `cargo bench -p pagefold-dedup --bench index [-- [--json] [PAGES...]]`

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, its counts are small, and a failure is a panic"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::broker::LocalBroker;
use pagefold_dedup::extents::{Extent, ExtentMap};
use pagefold_dedup::fingerprint::Fingerprint;
use pagefold_dedup::protocol::{Broker, Decision, Directive, Offer, Outcome};
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, LinearIndex, PAGE_SIZE, Slot,
    Unchanging, VmId,
};

const SIZES: [u32; 3] = [1_000_000, 10_000_000, 60_000_000];
const BATCH: usize = 4096;
const MAX_PAGE_SHARING: u32 = 256;

/// Slots that are filled at most, 4 KiB each: a population that needs more is left out.
const MAX_FILLED: u32 = 3_000_000;

/// What the index may cost of the 64-VM mix's memory, and KSM's 64 bytes an item is not within.
const MAX_PER_CENT: f64 = 0.5;

/// Pages of a VM after which the mix begins anew: 32 shared by all VMs, 7 its own, 11 zero.
const GROUP: u32 = 50;
const GROUP_SHARED: u32 = 32;
const GROUP_OWN: u32 = 7;

const MIXES: [Mix; 3] = [
    Mix { name: "64 VMs", count_vms: 64, max_pages: u32::MAX, pairs: false },
    Mix { name: "4 VMs", count_vms: 4, max_pages: u32::MAX, pairs: false },
    Mix { name: "pairs", count_vms: 2, max_pages: 1_000_000, pairs: true },
];

const LEGEND: &str = "\
64 VMs, 4 VMs: VMs of one image; of each 50 pages 32 are shared by all VMs (64 %), 7 are a VM's own and
wait (14 %), 11 are zero and never offered (22 %). pairs, the worst case: each page is shared by 2, and
no two neighbours lie side by side in the store.
wait: an offer without a twin. match: one that finds the first. join: one that finds a slot.
confirm: Outcome::Merged. release: Outcome::Left, the slots' memory given back included.
fill: bytes handed over, two hashes and the copy included. Millions a second, one thread (fill: all).";

#[derive(Debug, Clone, Copy)]
struct Mix {
    name: &'static str,
    count_vms: u32,
    /// Not made with more pages than that.
    max_pages: u32,
    pairs: bool,
}

impl Mix {
    fn count_contents(self, vm_pages: u32) -> u32 {
        if self.pairs { vm_pages } else { self.shared(vm_pages).count() as u32 }
    }

    /// The pages of a VM that others have as well.
    fn shared(self, vm_pages: u32) -> impl Iterator<Item = u32> {
        (0..vm_pages).filter(move |page| self.pairs || page % GROUP < GROUP_SHARED)
    }

    /// The pages of a VM that only it has.
    fn own(self, vm_pages: u32) -> impl Iterator<Item = u32> {
        let own = GROUP_SHARED..GROUP_SHARED + GROUP_OWN;
        (0..vm_pages).filter(move |page| !self.pairs && own.contains(&(page % GROUP)))
    }

    /// Which of the contents a shared page has.
    fn content(self, vm: u32, page: u32, vm_pages: u32) -> u32 {
        match (self.pairs, vm) {
            (false, _) => page / GROUP * GROUP_SHARED + page % GROUP,
            (true, 0) => page,
            (true, _) => (u64::from(page) * 7919 % u64::from(vm_pages)) as u32,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Cost {
    items: u64,
    time: Duration,
    /// Nanoseconds an item in each batch.
    batches: Vec<f64>,
}

impl Cost {
    fn measure<T>(&mut self, items: usize, task: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = task();
        let time = began.elapsed();
        if items > 0 {
            self.time += time;
            self.items += items as u64;
            self.batches.push(time.as_nanos() as f64 / items as f64);
        }
        result
    }

    fn ns(&self) -> f64 {
        self.time.as_nanos() as f64 / self.items as f64
    }

    /// What an item takes in half of the batches or more: not in those during which the processor
    /// was somebody else's.
    fn ns_median(&self) -> f64 {
        let mut batches = self.batches.clone();
        batches.sort_unstable_by(f64::total_cmp);
        batches[batches.len() / 2]
    }

    fn millions(&self) -> f64 {
        self.items as f64 / self.time.as_secs_f64() / 1e6
    }
}

#[derive(Debug, Clone, Default)]
struct Costs {
    wait: Cost,
    twin: Cost,
    join: Cost,
    confirm: Cost,
    release: Cost,
    fill: Cost,
}

impl Costs {
    fn all(&self) -> [(&'static str, &Cost); 6] {
        [
            ("wait", &self.wait),
            ("match", &self.twin),
            ("join", &self.join),
            ("confirm", &self.confirm),
            ("release", &self.release),
            ("fill", &self.fill),
        ]
    }
}

/// A domain of VMs that are page numbers.
struct Population {
    mix: Mix,
    vm_pages: u32,
    broker: LocalBroker,
    fingerprints: Vec<Fingerprint>,
    /// What the agents would have beside the broker's own.
    extents: Vec<ExtentMap>,
    random: u64,
    costs: Costs,
}

impl Population {
    fn new(mix: Mix, count_pages: u32) -> Self {
        let vm_pages = count_pages / mix.count_vms;
        let broker = LocalBroker::new(u32::MAX / 2, MAX_PAGE_SHARING).unwrap();
        let fingerprint = |content| broker.secret().fingerprint(&page(content));
        let fingerprints = (0..mix.count_contents(vm_pages)).map(fingerprint).collect();
        let extents = (0..mix.count_vms).map(|_| ExtentMap::default()).collect();
        let costs = Costs::default();
        Self { mix, vm_pages, broker, fingerprints, extents, random: 0, costs }
    }

    fn fold(&mut self) {
        for vm in 0..self.mix.count_vms {
            self.broker.register(VmId(vm), self.vm_pages).unwrap();
            let shared: Vec<u32> = self.mix.shared(self.vm_pages).collect();
            for pages in shared.chunks(BATCH) {
                self.offer_shared(vm, pages);
            }
            let own: Vec<u32> = self.mix.own(self.vm_pages).collect();
            for pages in own.chunks(BATCH) {
                self.offer_own(vm, pages);
            }
            // The one whose pages waited for this one's hands their bytes over.
            for vm in vm.saturating_sub(1)..=vm {
                self.follow(vm);
            }
        }
    }

    fn offer_shared(&mut self, vm: u32, pages: &[u32]) {
        let offer = |&page: &u32| {
            let content = self.mix.content(vm, page, self.vm_pages);
            offer(page, self.fingerprints[content as usize])
        };
        let offers: Vec<Offer> = pages.iter().map(offer).collect();
        let mut decisions = Vec::with_capacity(offers.len());
        let cost = match vm {
            0 => &mut self.costs.wait,
            1 => &mut self.costs.twin,
            _ => &mut self.costs.join,
        };
        cost.measure(offers.len(), || {
            self.broker.offer(VmId(vm), &offers, &mut decisions).unwrap();
        });
        let joins = pages.iter().zip(&decisions).filter_map(|(&page, decision)| match decision {
            Decision::Join(slot) => Some((LinearIndex(page), *slot)),
            Decision::Wait | Decision::Keep => None,
        });
        let joins: Vec<(LinearIndex, Slot)> = joins.collect();
        assert_eq!(joins.len(), if vm < 2 { 0 } else { pages.len() }, "the third finds a slot");
        self.confirm(vm, &joins);
    }

    fn offer_own(&mut self, vm: u32, pages: &[u32]) {
        let mut random = || {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            Fingerprint(mixed ^ mixed >> 31)
        };
        let offers: Vec<Offer> = pages.iter().map(|&page| offer(page, random())).collect();
        let mut decisions = Vec::with_capacity(offers.len());
        self.costs.wait.measure(offers.len(), || {
            self.broker.offer(VmId(vm), &offers, &mut decisions).unwrap();
        });
    }

    fn follow(&mut self, vm: u32) {
        let mut directives = Vec::new();
        loop {
            directives.clear();
            self.broker.directives(VmId(vm), BATCH, &mut directives).unwrap();
            if directives.is_empty() {
                return;
            }
            let creates: Vec<(LinearIndex, Slot)> =
                directives.iter().filter_map(|directive| creates(*directive)).collect();
            for run in creates.chunk_by(|one, next| one.1.offset(1) == next.1) {
                self.fill(vm, run);
            }
            let targets: Vec<(LinearIndex, Slot)> =
                directives.iter().filter_map(|directive| target(*directive)).collect();
            self.confirm(vm, &targets);
        }
    }

    fn fill(&mut self, vm: u32, run: &[(LinearIndex, Slot)]) {
        let content = |page: &(LinearIndex, Slot)| self.mix.content(vm, page.0.0, self.vm_pages);
        let bytes: Vec<u8> = run.iter().flat_map(|target| page(content(target))).collect();
        let mut accepted = Vec::new();
        self.costs.fill.measure(run.len(), || {
            self.broker.fill(VmId(vm), run[0].1, &bytes, &mut accepted).unwrap();
        });
        assert!(accepted.iter().all(|&accepted| accepted), "the bytes that were offered");
    }

    fn confirm(&mut self, vm: u32, targets: &[(LinearIndex, Slot)]) {
        let next = |one: &(LinearIndex, Slot), next: &(LinearIndex, Slot)| {
            (one.0.offset(1), one.1.offset(1)) == *next
        };
        let extent = |run: &[(LinearIndex, Slot)]| Extent {
            linear: run[0].0,
            slot: run[0].1,
            count_pages: run.len() as u32,
        };
        let extents: Vec<Extent> = targets.chunk_by(next).map(extent).collect();
        let outcomes: Vec<Outcome> = extents.iter().copied().map(Outcome::Merged).collect();
        self.costs.confirm.measure(targets.len(), || {
            self.broker.report(VmId(vm), &outcomes).unwrap();
        });
        for extent in extents {
            self.extents[vm as usize].insert(extent, |_| {});
        }
    }

    /// Bytes of the domain and of its agents' maps; `agent_bytes` a page for the rest of them.
    fn bytes_per_page(&self, agent_bytes: f64) -> f64 {
        let maps: usize = self.extents.iter().map(ExtentMap::heap_bytes).sum();
        let index = self.broker.stats("index").metadata_bytes + maps as u64;
        index as f64 / self.count_pages() as f64 + agent_bytes
    }

    fn count_pages(&self) -> u64 {
        u64::from(self.vm_pages) * u64::from(self.mix.count_vms)
    }

    fn release(&mut self) {
        let mix = self.mix;
        for vm in 0..mix.count_vms {
            let mut pages: Vec<u32> = mix.shared(self.vm_pages).collect();
            pages.extend(mix.own(self.vm_pages));
            pages.sort_unstable();
            for pages in pages.chunks(BATCH) {
                let left = |&page: &u32| Outcome::Left { linear: LinearIndex(page) };
                let outcomes: Vec<Outcome> = pages.iter().map(left).collect();
                self.costs.release.measure(outcomes.len(), || {
                    self.broker.report(VmId(vm), &outcomes).unwrap();
                });
            }
        }
    }
}

/// The bytes of a content.
fn page(content: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0xa5; PAGE_SIZE];
    page[..4].copy_from_slice(&content.to_le_bytes());
    page
}

fn offer(page: u32, fingerprint: Fingerprint) -> Offer {
    Offer { linear: LinearIndex(page), fingerprint }
}

fn creates(directive: Directive) -> Option<(LinearIndex, Slot)> {
    match directive {
        Directive::Create { linear, slot } => Some((linear, slot)),
        Directive::Merge { .. } | Directive::Unshare { .. } => None,
    }
}

fn target(directive: Directive) -> Option<(LinearIndex, Slot)> {
    match directive {
        Directive::Create { linear, slot } | Directive::Merge { linear, slot } => {
            Some((linear, slot))
        }
        Directive::Unshare { .. } => None,
    }
}

/// What an agent takes for each page of its VM, before anything is shared.
fn agent_bytes_per_page() -> f64 {
    const PAGES: u32 = 1_000_000;
    let mut engine = Engine::new(EngineConfig::default()).unwrap();
    let spec = AttachSpec {
        domain: "index".to_owned(),
        mode: DedupMode::On,
        memory: Arc::new(AnonymousMemory::new(PAGES).unwrap()),
        changes: Box::new(Unchanging),
    };
    engine.attach(VmId(0), spec).unwrap();
    let stats = engine.stats();
    (stats.metadata_bytes - stats.domains[0].metadata_bytes) as f64 / f64::from(PAGES)
}

/// Measures one mix, or returns `None` where it would need too much of the host's memory.
fn measure(mix: Mix, count_pages: u32, agent_bytes: f64) -> Option<(Costs, f64, u64)> {
    let fits = mix.count_contents(count_pages / mix.count_vms) <= MAX_FILLED;
    if !fits || count_pages > mix.max_pages {
        return None;
    }
    let mut population = Population::new(mix, count_pages);
    population.fold();
    let bytes = population.bytes_per_page(agent_bytes);
    let slots = population.broker.stats("index").pages_shared;
    population.release();
    let stats = population.broker.stats("index");
    assert_eq!((stats.pages_shared, stats.pages_unshared), (0, 0), "everything was released");
    Some((population.costs, bytes, slots))
}

fn print(mix: Mix, count_pages: u32, costs: &Costs, bytes: f64, slots: u64, json: bool) {
    let per_cent = bytes * 100.0 / PAGE_SIZE as f64;
    if json {
        let costs = costs.all().map(|(name, cost)| {
            let number = |ns: fn(&Cost) -> f64| {
                if cost.items == 0 { "null".to_owned() } else { format!("{:.1}", ns(cost)) }
            };
            format!(
                "\"{name}_count\":{},\"{name}_ns\":{},\"{name}_ns_median\":{}",
                cost.items,
                number(Cost::ns),
                number(Cost::ns_median)
            )
        });
        println!(
            "{{\"mix\":\"{}\",\"pages\":{count_pages},\"slots\":{slots},{},\
             \"bytes_per_page\":{bytes:.2},\"per_cent\":{per_cent:.3}}}",
            mix.name,
            costs.join(",")
        );
        return;
    }
    print!("{:<7}{count_pages:>11}{slots:>9}", mix.name);
    for (_, cost) in costs.all() {
        if cost.items == 0 {
            print!("{:>9}", "-");
        } else {
            print!("{:>9.2}", cost.millions());
        }
    }
    println!("{bytes:>12.2}{per_cent:>9.3} %");
}

/// How much more than in the first of the sizes an item takes in the others.
fn print_growth(mix: Mix, measured: &[(u32, Costs)]) {
    let Some((first, rest)) = measured.split_first() else { return };
    for (size, costs) in rest {
        print!("{:<7}{size:>11} : {:<9}", mix.name, first.0);
        for ((name, cost), (_, base)) in costs.all().iter().zip(first.1.all()) {
            if base.items > 0 {
                print!("  {name} x{:.2}", cost.ns_median() / base.ns_median());
            }
        }
        println!();
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
    let mut sizes: Vec<u32> =
        arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let agent_bytes = agent_bytes_per_page();
    if !json {
        println!("{LEGEND}\nbytes a page: the domain's, and the agents' ({agent_bytes:.2}).\n");
        print!("{:<7}{:>11}{:>9}", "mix", "pages", "slots");
        for (name, _) in Costs::default().all() {
            print!("{name:>9}");
        }
        println!("{:>12}{:>11}", "bytes/page", "of a page");
    }
    let mut growths = Vec::new();
    for mix in MIXES {
        let mut measured = Vec::new();
        for &count_pages in &sizes {
            let Some((costs, bytes, slots)) = measure(mix, count_pages, agent_bytes) else {
                if !json && count_pages <= mix.max_pages {
                    println!(
                        "{:<7}{count_pages:>11}  needs more than {MAX_FILLED} slots",
                        mix.name
                    );
                }
                continue;
            };
            print(mix, count_pages, &costs, bytes, slots, json);
            let per_cent = bytes * 100.0 / PAGE_SIZE as f64;
            assert!(mix.count_vms != 64 || per_cent < MAX_PER_CENT, "{per_cent} % of a page");
            measured.push((count_pages, costs));
        }
        growths.push((mix, measured));
    }
    if !json {
        println!("\ntime an item (median of the batches), against the first size:");
        for (mix, measured) in &growths {
            print_growth(*mix, measured);
        }
    }
}
