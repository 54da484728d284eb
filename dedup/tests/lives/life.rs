//! One life of an engine: what its owner may do, in an order that a seed decides.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pagefold_dedup::{
    CompactScope, DedupMode, Engine, EngineConfig, Knobs, LinearIndex, Run, VmId,
};

use crate::common::{RacedPages, Random, TestVm, check_counters};
use crate::resident::{Content, Resident};

/// VMs at one time, at most.
const MAX_VMS: u32 = 6;

/// Things that are done in a life.
const COUNT_ACTS: u32 = 60;

/// Numbers of VMs that are written all the time, of pages that only they have.
const RACED_VMS: [u32; 2] = [MAX_VMS, MAX_VMS + 1];
const RACED_PAGES: usize = 100;

/// An engine, its VMs, and what is known about both.
pub(super) struct Life {
    random: Random,
    engine: Engine,
    vms: BTreeMap<u32, Resident>,
    domains: &'static [&'static str],
    contents: u32,
    limit: Option<u64>,
    /// Whether [`RACED_VMS`] are being written.
    is_raced: bool,
}

impl Life {
    /// The life of a seed; with mappings enough in every fourth.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let limit = (!random.once_in(4)).then(|| u64::from(random.within(60..400)));
        let knobs = Knobs {
            max_page_sharing: random.choice(&[2, 3, 5, 16, 256]),
            use_zero_pages: !random.once_in(4),
            stable_node_chains_prune_millisecs: 0,
            ..Knobs::default()
        };
        let thread_count = Some(random.within(1..3) as usize);
        let config =
            EngineConfig { knobs, thread_count, max_mappings: limit, ..EngineConfig::default() };
        Self {
            engine: Engine::new(config).unwrap(),
            vms: BTreeMap::new(),
            domains: random.choice(&[&["one"], &["one", "other"]]),
            contents: random.choice(&[2, 8, 40, 200]),
            limit,
            is_raced: false,
            random,
        }
    }

    /// Lives it, and leaves the engine with nothing in it.
    pub(super) fn live(mut self) {
        self.act_often();
        self.end();
    }

    /// The same, while two more VMs are being written.
    pub(super) fn live_raced(mut self) {
        let vms = RACED_VMS.map(|id| TestVm::new(id, RACED_PAGES as u32));
        for vm in &vms {
            vm.attach(&mut self.engine, "one", DedupMode::On);
        }
        let (mut pages, stop) = (RacedPages::new(0, RACED_PAGES), AtomicBool::new(false));
        self.is_raced = true;
        thread::scope(|scope| {
            scope.spawn(|| pages.race(&vms, &stop));
            let _stop = StopWhenDropped(&stop);
            self.act_often();
        });
        self.is_raced = false;
        self.settle();
        pages.check(&vms, |_, _| {});
        for vm in &vms {
            self.engine.detach(vm.id).unwrap();
        }
        pages.check(&vms, |_, _| {});
        self.end();
    }

    fn act_often(&mut self) {
        for _ in 0..COUNT_ACTS {
            self.act();
            (0..self.random.within(0..3)).for_each(|_| drop(self.engine.pass()));
            if self.random.once_in(6) {
                self.settle();
            }
        }
    }

    fn end(mut self) {
        self.set_run(Run::Fold);
        self.settle();
        self.check_savings();
        self.set_run(Run::Unmerge);
        self.settle();
        let stats = self.engine.stats();
        assert_eq!((stats.pages_shared, stats.pages_sharing), (0, 0), "{stats:?}");
        for vm in stats.vms.iter().filter(|vm| self.vms[&vm.id].is_in_place()) {
            assert_eq!(vm.vmas, 1, "{vm:?}");
        }
        while let Some(id) = self.pick() {
            self.detach(id);
        }
        self.engine.check().unwrap();
    }

    fn act(&mut self) {
        if self.is_raced && self.random.once_in(8) {
            return self.change_raced();
        }
        let Some(id) = self.pick() else { return self.arrive() };
        match self.random.within(0..16) {
            0 => self.arrive(),
            1 => self.detach(id),
            2 => self.clone_vm(id),
            3 | 4 => {
                let mode = self.random.choice(&[
                    DedupMode::On,
                    DedupMode::On,
                    DedupMode::Zero,
                    DedupMode::Off,
                ]);
                self.engine.set_mode(self.vms[&id].vm.id, mode).unwrap();
                self.vm(id).mode = mode;
            }
            5 => {
                let (pages, mergeable) = (self.pages(id), self.random.once_in(2));
                self.with(id, |vm, engine| vm.set_mergeable(engine, pages, mergeable));
            }
            6 => {
                let pages = self.pages(id);
                self.with(id, |vm, engine| vm.discard(engine, pages));
            }
            7 => {
                let pages = self.pages(id);
                self.with(id, |vm, engine| vm.relocate(engine, pages));
            }
            8 => self.compact(),
            9 | 10 => {
                let run = self.random.choice(&[Run::Stop, Run::Fold, Run::Fold, Run::Unmerge]);
                self.set_run(run);
            }
            _ => self.write(id),
        }
    }

    /// One that is attached, if any is.
    fn pick(&mut self) -> Option<u32> {
        let attached: Vec<u32> =
            self.vms.iter().filter(|(_, vm)| vm.is_attached).map(|(&id, _)| id).collect();
        (!attached.is_empty()).then(|| self.random.choice(&attached))
    }

    fn vm(&mut self, id: u32) -> &mut Resident {
        self.vms.get_mut(&id).unwrap()
    }

    fn with(&mut self, id: u32, act: impl FnOnce(&mut Resident, &mut Engine)) {
        act(self.vms.get_mut(&id).unwrap(), &mut self.engine);
    }

    /// Changes what of a VM may be shared that is being written.
    fn change_raced(&mut self) {
        let (id, is_folded) = (VmId(self.random.choice(&RACED_VMS)), self.random.once_in(2));
        let mode = if is_folded { DedupMode::On } else { DedupMode::Off };
        match self.random.within(0..2) {
            0 => self.engine.set_mode(id, mode).unwrap(),
            _ => self.engine.set_mergeable(id, LinearIndex(10), 50, is_folded).unwrap(),
        }
    }

    fn compact(&mut self) {
        let scope = self.random.choice(&[CompactScope::Gainful, CompactScope::All]);
        self.settle();
        let before = self.engine.stats().vmas_used;
        let report = self.engine.compact(scope);
        let after = self.engine.stats().vmas_used;
        assert!(self.is_raced || after <= before, "{before} mappings before {report:?}");
    }

    /// A range of a VM's pages: short, long or all.
    fn pages(&mut self, id: u32) -> Range<u32> {
        let page_count = self.vms[&id].page_count();
        let longest = self.random.choice(&[8, 64, page_count]).min(page_count);
        let count = self.random.within(0..longest) + 1;
        let first = self.random.within(0..page_count - count + 1);
        first..first + count
    }

    /// Attaches a VM that is new, or was attached before and has kept its bytes.
    fn arrive(&mut self) {
        let id = self.random.within(0..MAX_VMS);
        let domain = self.random.choice(self.domains);
        match self.vms.get(&id) {
            Some(vm) if vm.is_attached => return self.write(id),
            Some(vm) if vm.is_in_place() => self.vm(id).domain = domain,
            _ => {
                let page_count = self.random.choice(&[30, 100, 600]);
                self.vms.insert(id, Resident::new(id, page_count, domain));
                self.write(id);
            }
        }
        self.with(id, Resident::attach);
    }

    fn detach(&mut self, id: u32) {
        self.with(id, Resident::detach);
    }

    fn clone_vm(&mut self, parent: u32) {
        let Some(id) = (0..MAX_VMS).find(|id| !self.vms.contains_key(id)) else { return };
        let clone = Resident::clone_of(&self.vms[&parent], id, &mut self.engine);
        self.vms.insert(id, clone);
    }

    /// Writes pages one by one, each of its own content, or a whole range of one.
    fn write(&mut self, id: u32) {
        let pages = self.pages(id);
        let step = self.random.choice(&[1, 2, 3]);
        let one = self.random.once_in(4).then(|| self.random.within(0..self.contents));
        for number in pages.step_by(step) {
            let content = one.unwrap_or_else(|| self.random.within(0..self.contents));
            self.vm(id).write(number, content);
        }
    }

    fn set_run(&mut self, run: Run) {
        self.engine.set_knobs(Knobs { run, ..self.engine.knobs() }).unwrap();
    }

    /// Folds until nothing is left to do, and checks all that must be true then; of memory that is being
    /// written, only that nothing fails.
    fn settle(&mut self) {
        let report = self.engine.settle(Duration::from_mins(1), Duration::ZERO);
        assert!(report.settled, "{report:?} {:?}", self.engine.stats());
        self.vms.values().for_each(Resident::check_bytes);
        let stats = self.engine.stats();
        assert_eq!(stats.events.errors, 0, "{stats:?}");
        if self.is_raced {
            return;
        }
        self.engine.check().unwrap();
        self.engine.check_breaks().unwrap();
        if stats.knobs.run == Run::Fold {
            check_counters(&self.engine);
        }
        // Unmerging a part of a run, and moving memory, take what they need.
        let is_within = |limit| stats.vmas_used <= limit + limit / 8;
        assert!(self.limit.is_none_or(is_within), "{stats:?}");
    }

    /// That all is shared that has an equal, if there are mappings enough, and nothing else.
    fn check_savings(&self) {
        let stats = self.engine.stats();
        let mut count: BTreeMap<(&str, Content), u64> = BTreeMap::new();
        for vm in self.vms.values() {
            vm.foldable().for_each(|content| *count.entry((vm.domain, content)).or_default() += 1);
        }
        let most: u64 = count.values().map(|pages| pages - 1).sum();
        // Pages of zeroes may be untouched, or given back.
        let shared = count.iter().filter(|((_, content), _)| *content != 0);
        // Slots of one content whose sharers would fit into one are joined, so all but one are more than half full.
        let limit = u64::from(stats.knobs.max_page_sharing);
        let slots = |pages| if pages <= limit { 1 } else { 2 * pages / (limit + 1) + 1 };
        let sharing = |pages| pages - slots(pages);
        let least: u64 = shared.map(|(_, &pages)| sharing(pages)).sum();
        let saved = stats.pages_sharing;
        assert!(saved <= most, "{saved} of {most} are saved: {stats:?}");
        let is_short = self.limit.is_some();
        assert!(is_short || saved >= least, "{saved} of {least} are saved: {stats:?}");
    }
}

/// Has a writer stop, however the test ends.
struct StopWhenDropped<'stop>(&'stop AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
