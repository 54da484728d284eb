//! No byte is lost while writers race all that an engine does when mappings are short.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::collections::BTreeMap;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, TestVm, check_counters, config, page, settle};
use pagefold_dedup::{
    AnonymousMemory, CompactScope, DedupMode, Detaching, Engine, EngineConfig, Knobs, LinearIndex,
    MemoryCount, PAGE_SIZE, PageState, Run, VmId,
};

const VMS: usize = 6;
const WRITERS: u64 = 2;

/// Contents that pages of all VMs have; 0 are zeroes.
const POOL: u32 = 100;

/// What is done to an engine in a race, and how long it takes at most.
const ACTIONS: u32 = 150;
const MOST_TIME: Duration = Duration::from_secs(2);

/// A VM whose owner pauses it by locking it, and what its pages are to hold.
struct Guest {
    vm: TestVm,
    contents: Vec<u32>,
    /// Where each page lies.
    places: Vec<(Arc<AnonymousMemory>, usize)>,
    /// Contents that no other VM has.
    own: u32,
}

impl Guest {
    /// A VM with the same pages as others, in runs that differ from VM to VM.
    fn new(id: u32, random: &mut Random) -> Self {
        let page_count = random.choice(&[1, 30, 200, 400]);
        let mut guest = Self::empty(id, page_count);
        let (shift, gap) = (random.within(0..POOL), random.within(2..20));
        for number in 0..page_count {
            let content =
                if number % gap == 0 { guest.next_own() } else { (number + shift) % POOL };
            guest.write(number as usize, content);
        }
        guest
    }

    fn empty(id: u32, page_count: u32) -> Self {
        let vm = TestVm::new(id, page_count);
        let places = (0..page_count as usize).map(|number| (vm.memory.clone(), number));
        let (places, contents) = (places.collect(), vec![0; page_count as usize]);
        Self { vm, contents, places, own: 1000 * (1 + id) }
    }

    fn next_own(&mut self) -> u32 {
        self.own += 1;
        self.own
    }

    fn page_count(&self) -> u32 {
        self.contents.len() as u32
    }

    /// Whether all pages lie where they did when the VM was made.
    fn is_in_place(&self) -> bool {
        self.places.iter().all(|(memory, _)| Arc::ptr_eq(memory, &self.vm.memory))
    }

    fn write(&mut self, number: usize, content: u32) {
        let (memory, at) = &self.places[number];
        memory.write(at * PAGE_SIZE, &bytes(content));
        self.vm.mark(number);
        self.contents[number] = content;
    }

    fn read(&self, number: usize) -> [u8; PAGE_SIZE] {
        let (memory, at) = &self.places[number];
        let mut bytes = [0; PAGE_SIZE];
        memory.read(at * PAGE_SIZE, &mut bytes);
        bytes
    }

    fn check(&self, number: usize) {
        let (found, content) = (self.read(number), self.contents[number]);
        let id = self.vm.id;
        assert!(
            found == bytes(content),
            "page {number} of VM {id} begins with {:?}, and is to be {content}",
            &found[..8]
        );
    }

    fn check_all(&self) {
        (0..self.contents.len()).for_each(|number| self.check(number));
    }

    /// Some pages, from one on.
    fn range(&self, random: &mut Random) -> (LinearIndex, u32) {
        let first = random.within(0..self.page_count());
        (LinearIndex(first), random.within(1..self.page_count() - first + 1))
    }
}

fn bytes(content: u32) -> [u8; PAGE_SIZE] {
    if content == 0 { [0; PAGE_SIZE] } else { page(content) }
}

type Guests = [Mutex<Guest>; VMS];

/// A panic elsewhere poisons locks, and is what is to be seen.
fn pause(guest: &Mutex<Guest>) -> MutexGuard<'_, Guest> {
    guest.lock().unwrap()
}

/// Writes pages until it is to stop, after having looked at what they hold.
fn write(guests: &Guests, random: &mut Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut guest = pause(&guests[random.within(0..VMS as u32) as usize]);
        let first = random.within(0..guest.page_count());
        for number in (first..guest.page_count()).take(random.choice(&[1, 2, 9])) {
            guest.check(number as usize);
            let content = match random.within(0..5) {
                0 => 0,
                1 => guest.next_own(),
                2 => random.within(0..POOL),
                _ => number % POOL,
            };
            guest.write(number as usize, content);
        }
        drop(guest);
        // Most pages are unchanged from one pass to the next.
        (0..random.within(0..1 << 14)).for_each(|_| hint::spin_loop());
    }
}

/// The side that folds.
struct Folder<'guests> {
    engine: Engine,
    guests: &'guests Guests,
    detaching: BTreeMap<VmId, Detaching>,
    random: Random,
}

impl Folder<'_> {
    fn is_attached(&self, vm: VmId) -> bool {
        self.engine.vms().any(|attached| attached == vm)
    }

    /// Does one thing, whatever else is going on.
    fn act(&mut self) {
        let Self { engine, random, .. } = self;
        let guest = &self.guests[random.within(0..VMS as u32) as usize];
        let vm = pause(guest).vm.id;
        match random.within(0..14) {
            0 => self.attach_or_detach(guest),
            1 => self.replace(guest),
            2 => {
                let mode = random.choice(&[DedupMode::Off, DedupMode::On, DedupMode::Zero]);
                _ = engine.set_mode(vm, mode);
            }
            3 => {
                let (first, page_count) = pause(guest).range(random);
                _ = engine.set_mergeable(vm, first, page_count, random.once_in(2));
            }
            4 => self.discard(guest),
            5 => self.relocate(guest),
            6 => self.clone_into(guest),
            7 => self.compact(),
            8 => self.move_slot(guest),
            9 => {
                let run = random.choice(&[Run::Stop, Run::Unmerge, Run::Fold, Run::Fold]);
                engine.set_knobs(Knobs { run, ..engine.knobs() }).unwrap();
            }
            10 => self.turn_knobs(),
            11 => (0..random.within(0..4)).for_each(|_| _ = engine.pass()),
            // Everybody comes back.
            12 => {
                engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
                engine.vms().collect::<Vec<_>>().into_iter().for_each(|vm| {
                    engine.set_mode(vm, DedupMode::On).unwrap();
                });
            }
            _ => self.check(),
        }
    }

    fn steps(&mut self) {
        for _ in 0..self.random.within(0..40) {
            self.engine.step();
            self.detaching.retain(|_, detaching| self.engine.detach_step(detaching).is_none());
        }
    }

    fn attach_or_detach(&mut self, guest: &Mutex<Guest>) {
        let guest = pause(guest);
        let vm = guest.vm.id;
        if self.is_attached(vm) {
            self.detaching.extend(self.engine.begin_detach(vm).map(|detaching| (vm, detaching)));
        } else if guest.is_in_place() {
            let domain = self.random.choice(&["test", "test", "other"]);
            guest.vm.attach(&mut self.engine, domain, DedupMode::On);
        }
    }

    /// Has another VM be in the place of one that ends.
    fn replace(&mut self, guest: &Mutex<Guest>) {
        let mut guest = pause(guest);
        guest.check_all();
        let vm = guest.vm.id;
        self.detaching.remove(&vm);
        self.engine.begin_detach_and_discard(vm);
        *guest = Guest::new(vm.0, &mut self.random);
        guest.vm.attach(&mut self.engine, "test", DedupMode::On);
    }

    fn discard(&mut self, guest: &Mutex<Guest>) {
        let mut guest = pause(guest);
        let (first, page_count) = guest.range(&mut self.random);
        let Ok(report) = self.engine.discard(guest.vm.id, first, page_count) else { return };
        for number in (first.0 as usize..).take(page_count as usize) {
            // Some may be kept where mappings are short.
            if report.kept_pages == 0 || guest.read(number) == [0; PAGE_SIZE] {
                guest.contents[number] = 0;
            }
        }
    }

    fn relocate(&mut self, guest: &Mutex<Guest>) {
        let mut guest = pause(guest);
        let (first, page_count) = guest.range(&mut self.random);
        let memory = Arc::new(AnonymousMemory::new(page_count).unwrap());
        let moved = self.engine.relocate(guest.vm.id, first, page_count, memory.clone());
        if moved.is_ok() {
            for at in 0..page_count as usize {
                guest.places[first.0 as usize + at] = (Arc::clone(&memory), at);
            }
        }
    }

    /// Has a VM begin anew as a copy of another.
    fn clone_into(&mut self, guest: &Mutex<Guest>) {
        let parent = &self.guests[self.random.within(0..VMS as u32) as usize];
        if std::ptr::eq(parent, guest) {
            return;
        }
        // Writers lock one at a time.
        let (parent, mut guest) = (pause(parent), pause(guest));
        if !self.is_attached(parent.vm.id) {
            return;
        }
        let vm = guest.vm.id;
        self.detaching.remove(&vm);
        self.engine.begin_detach_and_discard(vm);
        let own = guest.own;
        *guest = Guest::empty(vm.0, parent.page_count());
        (guest.own, guest.contents) = (own, parent.contents.clone());
        let (memory, changes) = (guest.vm.memory.clone(), guest.vm.changes());
        let mut cloning = self.engine.begin_clone(parent.vm.id, vm, memory, changes).unwrap();
        while !self.engine.clone_step(&mut cloning).unwrap() {
            self.engine.step();
        }
        guest.check_all();
    }

    fn compact(&mut self) {
        let scope = self.random.choice(&[CompactScope::Gainful, CompactScope::All]);
        let mut compaction = self.engine.begin_compaction(scope);
        // Some are given up half way.
        for _ in 0..self.random.within(1..400) {
            if self.engine.compact_step(&mut compaction).is_some() {
                break;
            }
            if self.random.once_in(4) {
                self.engine.step();
            }
        }
    }

    fn move_slot(&mut self, guest: &Mutex<Guest>) {
        let (vm, (first, _)) = {
            let guest = pause(guest);
            (guest.vm.id, guest.range(&mut self.random))
        };
        let found = self.engine.find(vm, u64::from(first.0) * PAGE_SIZE as u64);
        if let Some(PageState::Shared(slot)) = found.map(|found| found.state) {
            // Refused while pages join it.
            _ = self.engine.move_slot("test", slot);
        }
    }

    fn turn_knobs(&mut self) {
        let Self { engine, random, .. } = self;
        let knobs = Knobs {
            pages_to_scan: random.choice(&[1, 50, 16_384]),
            smart_scan: random.once_in(2),
            use_zero_pages: random.once_in(2),
            stable_node_chains_prune_millisecs: random.choice(&[0, 2000]),
            ..engine.knobs()
        };
        engine.set_knobs(knobs).unwrap();
        let max_page_sharing = random.choice(&[2, 3, 16, 256]);
        // Refused while anything is shared.
        _ = engine.set_knobs(Knobs { max_page_sharing, ..engine.knobs() });
    }

    /// That all is right while writers are paused.
    fn check(&mut self) {
        let guests = self.guests.each_ref().map(pause);
        for guest in &guests {
            guest.check_all();
        }
        self.engine.check_breaks().unwrap();
    }
}

/// Counts memory while folding goes on.
fn count_memory(folder: &mut Folder<'_>, mut count: MemoryCount) -> MemoryCount {
    thread::scope(|scope| {
        let counting = scope.spawn(|| count.run());
        folder.steps();
        counting.join().unwrap();
    });
    let stats = folder.engine.stats_with(&mut count, &BTreeMap::new());
    assert!(stats.is_none_or(|stats| stats.events.errors == 0));
    count
}

fn race(seed: u64) {
    let mut random = Random::new(seed);
    let limit = random.choice(&[1, 2, 3, 10, 40, 100, 200, 400]);
    let max_page_sharing = random.choice(&[2, 3, 16, 256]);
    let knobs = Knobs { max_page_sharing, ..Knobs::default() };
    let config = EngineConfig { max_mappings: Some(limit), knobs, ..config() };
    let mut engine = Engine::new(config).unwrap();
    let guests: Guests = std::array::from_fn(|id| {
        let guest = Guest::new(id as u32, &mut random);
        guest.vm.attach(&mut engine, "test", DedupMode::On);
        Mutex::new(guest)
    });
    let stop = AtomicBool::new(false);
    let mut folder = Folder { engine, guests: &guests, detaching: BTreeMap::new(), random };
    thread::scope(|scope| {
        let (guests, stop) = (&guests, &stop);
        let writers = [0; WRITERS as usize].map(|_| {
            let mut random = Random::new(u64::from(folder.random.number()));
            scope.spawn(move || write(guests, &mut random, stop))
        });
        let (since, mut count) = (Instant::now(), MemoryCount::default());
        for _ in 0..ACTIONS {
            folder.act();
            folder.steps();
            if folder.random.once_in(8) {
                count = count_memory(&mut folder, count);
            }
            if since.elapsed() > MOST_TIME
                || writers.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    folder.check();
    let Folder { mut engine, detaching, .. } = folder;
    drop(detaching);
    for vm in engine.vms().collect::<Vec<_>>() {
        engine.set_mode(vm, DedupMode::On).unwrap();
    }
    engine.set_knobs(Knobs { run: Run::Fold, ..engine.knobs() }).unwrap();
    settle(&mut engine);
    check_counters(&engine);
    for guest in &guests {
        pause(guest).check_all();
    }
    assert_eq!(engine.stats().events.errors, 0, "{:?}", engine.stats());
    engine.set_knobs(Knobs { run: Run::Unmerge, ..engine.knobs() }).unwrap();
    settle(&mut engine);
    assert_eq!(engine.stats().pages_shared, 0);
    for guest in &guests {
        pause(guest).check_all();
    }
}

#[test]
fn no_byte_is_lost_while_writers_race_all_that_is_done_where_mappings_are_short() {
    (0..4).for_each(race);
}
