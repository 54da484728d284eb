//! The reverse walk, bounded to a page's own regions, against one that enumerates them all.
//!
//! Real memory and real merges: a VM whose memory is cut into many regions, in no order, and one
//! with a single region share 512 pages. The bounded walk is `Engine::walk`, from the slot on. The
//! full one is given the slot's pages and looks at every region of their VMs, as KSM's walk from 0
//! to `ULONG_MAX` does.
//!
//! `cargo bench -p pagefold-dedup --bench walk [-- --json]`

#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, and a failure is a panic"
)]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold_dedup::internals::Regions;
use pagefold_dedup::{
    AnonymousMemory, AttachSpec, DedupMode, Engine, EngineConfig, GuestMemory, Mapping, PAGE_SIZE,
    PageState, Slot, Unchanging, VmId,
};

const SIZES: [u32; 4] = [1, 1_000, 20_000, 200_000];
const DOMAIN: &str = "bench";
const SHARED_PAGES: u32 = 512;

/// What bounding the walk must be worth on average, with `MANY_REGIONS`: about what it was worth the
/// kernel, 228.65 ms against 0.396 ms being 577.
const MIN_RATIO: f64 = 400.0;
const MANY_REGIONS: u32 = 20_000;

/// What the kernel's walk visited with its range bounded, the two VMAs it skipped included.
const MAX_VISITS: u64 = 3;

/// Every walk is made this often in each mode, or less often where that would take long.
const ROUNDS: u32 = 100;
const MODE_TIME: Duration = Duration::from_secs(2);

const REFERENCE: &str = "\
Linux KSM, as its authors measured it (v3 of the patch that bounds the walk, about 20,000 VMAs):
               time ms   intervals visited   outside the range
  unbounded     228.65              22,169              22,168
  bounded        0.396                   3                   0
and with their rmap benchmark in QEMU (a later version of the series):
                  max ms   average ms
  unbounded       705.12       532.04
  bounded           1.67         1.44";

/// Two VMs whose pages are shared, and what is known of them from outside.
struct Scene {
    engine: Engine,
    regions: [Regions; 2],
    /// A slot and the pages that share it.
    walks: Vec<(Slot, Vec<Mapping>)>,
}

impl Scene {
    fn new(region_count: u32) -> Self {
        // No budget: each region counts as a mapping, and there are more than a process may have.
        let config = EngineConfig { max_mappings: Some(u64::MAX), ..EngineConfig::default() };
        let mut engine = Engine::new(config).unwrap();
        let piece_pages = SHARED_PAGES.div_ceil(region_count);
        let place = |number: u32| u64::from(number) * 7919 % u64::from(region_count);
        let stride = u64::from(piece_pages) * 2 * PAGE_SIZE as u64;
        let pieces: Vec<(u64, u32)> =
            (0..region_count).map(|number| (place(number) * stride, piece_pages)).collect();
        let layouts = [pieces, vec![(0, SHARED_PAGES)]];
        let memories =
            layouts.map(|pieces| Arc::new(AnonymousMemory::with_layout(&pieces).unwrap()));
        for (id, memory) in (0..).zip(&memories) {
            let apart = memory.len_bytes() / PAGE_SIZE / SHARED_PAGES as usize;
            for number in 0..SHARED_PAGES {
                let mut page = [0xa5; PAGE_SIZE];
                page[..4].copy_from_slice(&number.to_le_bytes());
                memory.write(number as usize * apart * PAGE_SIZE, &page);
            }
            let spec = AttachSpec {
                domain: DOMAIN.to_owned(),
                mode: DedupMode::On,
                memory: memory.clone(),
                changes: Box::new(Unchanging),
            };
            engine.attach(VmId(id), spec).unwrap();
        }
        engine.pass();
        engine.pass();
        let regions = memories.map(|memory| Regions::of(memory.regions()).unwrap());
        let walks = (0..SHARED_PAGES).map(|number| sharers(&engine, number)).collect();
        Self { engine, regions, walks }
    }

    /// Every walk, round after round, by `walk`, which says how many intervals and nodes it visited.
    /// The rounds are timed for the average; the walks of one more, each by itself, for the maximum.
    fn measure(&self, mode: &'static str, walk: impl Fn(&Self, usize) -> (u64, u64)) -> Figures {
        let mut figures = Figures { mode, ..Figures::default() };
        // No page next to the one before it.
        let order = || (0..self.walks.len()).map(|number| number * 211 % self.walks.len());
        for number in order() {
            let began = Instant::now();
            let visited = black_box(walk(self, number));
            figures.add(visited, began.elapsed());
        }
        let (mut rounds, started) = (0, Instant::now());
        while rounds == 0 || (rounds < ROUNDS && started.elapsed() < MODE_TIME) {
            for number in order() {
                black_box(walk(self, number));
            }
            rounds += 1;
        }
        let count = f64::from(rounds) * self.walks.len() as f64;
        figures.ns_avg = started.elapsed().as_nanos() as f64 / count;
        figures
    }

    fn bounded(&self, number: usize) -> (u64, u64) {
        let (slot, mappings) = &self.walks[number];
        let mut found = 0;
        let report = self.engine.walk(DOMAIN, *slot, |mapping| {
            found += usize::from(mapping.host_addr != 0);
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        assert_eq!(found, mappings.len(), "the bounded walk missed a mapping");
        (report.intervals_visited, report.nodes_visited)
    }

    fn full(&self, number: usize) -> (u64, u64) {
        let (_, mappings) = &self.walks[number];
        let (mut found, mut intervals, mut nodes) = (0, 0, 0);
        for mapping in mappings {
            let visits = self.regions[mapping.vm.0 as usize].all(|region| {
                let has = region.linear <= mapping.linear && mapping.linear < region.end();
                found += usize::from(has && region.host_addr != 0);
                ControlFlow::Continue(())
            });
            intervals += visits.intervals;
            nodes += visits.nodes;
        }
        assert_eq!(found, mappings.len(), "the full walk missed a mapping");
        (intervals, nodes)
    }
}

/// The slot of a page of the VM with one region, and what the walk from it finds.
fn sharers(engine: &Engine, number: u32) -> (Slot, Vec<Mapping>) {
    let found = engine.find(VmId(1), u64::from(number) * PAGE_SIZE as u64).unwrap();
    let PageState::Shared(slot) = found.state else { panic!("page {number} is {:?}", found.state) };
    let mut mappings = Vec::new();
    let report = engine.walk(DOMAIN, slot, |mapping| {
        mappings.push(*mapping);
        ControlFlow::Continue(())
    });
    assert_eq!((report.unwrap().items, mappings.len()), (2, 2), "a page of two VMs");
    (slot, mappings)
}

#[derive(Default)]
struct Figures {
    mode: &'static str,
    walks: u64,
    /// Maximum and sum.
    intervals: (u64, u64),
    /// Maximum and sum.
    nodes: (u64, u64),
    longest: Duration,
    ns_avg: f64,
}

impl Figures {
    fn add(&mut self, (intervals, nodes): (u64, u64), time: Duration) {
        self.walks += 1;
        self.intervals = (self.intervals.0.max(intervals), self.intervals.1 + intervals);
        self.nodes = (self.nodes.0.max(nodes), self.nodes.1 + nodes);
        self.longest = self.longest.max(time);
    }

    fn print(&self, regions: u32, json: bool) {
        let average = |sum: u64| sum as f64 / self.walks as f64;
        let (mode, intervals, nodes) = (self.mode, self.intervals, self.nodes);
        let (visited_avg, nodes_avg) = (average(intervals.1), average(nodes.1));
        let (ns_max, ns_avg) = (self.longest.as_nanos(), self.ns_avg);
        if json {
            println!(
                "{{\"regions\":{regions},\"mode\":\"{mode}\",\"visited_max\":{},\
                 \"visited_avg\":{visited_avg:.3},\"nodes_max\":{},\"nodes_avg\":{nodes_avg:.1},\
                 \"ns_max\":{ns_max},\"ns_avg\":{ns_avg:.1}}}",
                intervals.0, nodes.0
            );
        } else {
            println!(
                "{regions:>8}  {mode:<8}{:>13}{visited_avg:>13.1}{:>11}{nodes_avg:>11.1}\
                 {ns_max:>13}{ns_avg:>13.1}",
                intervals.0, nodes.0
            );
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
    if !json {
        println!(
            "{:>8}  {:<8}{:>13}{:>13}{:>11}{:>11}{:>13}{:>13}",
            "regions", "mode", "visited max", "avg", "nodes max", "avg", "ns max", "avg"
        );
    }
    let mut ratio = None;
    for regions in SIZES {
        let scene = Scene::new(regions);
        let bounded = scene.measure("bounded", Scene::bounded);
        let full = scene.measure("full", Scene::full);
        bounded.print(regions, json);
        full.print(regions, json);
        assert!(
            bounded.intervals.0 <= MAX_VISITS,
            "a bounded walk visited {:?}",
            bounded.intervals
        );
        if regions == MANY_REGIONS {
            let times = full.ns_avg / bounded.ns_avg;
            assert!(times >= MIN_RATIO, "bounded is only {times:.0} times as fast as full");
            ratio = Some(times);
        }
    }
    if let Some(ratio) = ratio.filter(|_| !json) {
        println!(
            "\nbounded is {ratio:.0} times as fast on average at 20,000 regions\n\n{REFERENCE}"
        );
    }
}
