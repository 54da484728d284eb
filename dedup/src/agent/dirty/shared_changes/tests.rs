use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::WrittenPages;
use crate::page_range::PageRange;

const PAGES: u32 = 300;

/// Written pages that are named a few at a time, and not at all at times; it forgets what it has named.
struct Fickle {
    written: WrittenPages,
    part: u32,
    failures: Arc<Mutex<u32>>,
    watched: Arc<Mutex<Vec<bool>>>,
}

impl ChangeSource for Fickle {
    fn collect(&mut self, changed: &mut PageSet) -> io::Result<()> {
        self.written.collect(changed)
    }

    fn collect_part(
        &mut self,
        within: Range<LinearIndex>,
        changed: &mut PageSet,
    ) -> io::Result<LinearIndex> {
        let within = within.first(self.part);
        self.written.collect_part(within.clone(), changed)?;
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(io::Error::other("named, and failed"));
        }
        Ok(within.end)
    }

    fn watch(&mut self, is_watched: bool) -> io::Result<()> {
        self.watched.lock().unwrap().push(is_watched);
        Ok(())
    }
}

struct World {
    written: WrittenPages,
    failures: Arc<Mutex<u32>>,
    watched: Arc<Mutex<Vec<bool>>>,
    shared: SharedChanges,
}

fn world(part: u32) -> World {
    let written = WrittenPages::new(PAGES);
    let (failures, watched) = (Arc::default(), Arc::<Mutex<Vec<bool>>>::default());
    let source = Fickle {
        written: written.clone(),
        part,
        failures: Arc::clone(&failures),
        watched: Arc::clone(&watched),
    };
    let shared = SharedChanges::new(Box::new(source), PAGES, false);
    World { written, failures, watched, shared }
}

fn read(consumer: &mut ChangeConsumer) -> BTreeSet<LinearIndex> {
    let mut changed = PageSet::new(PAGES);
    consumer.collect(&mut changed).unwrap();
    changed.iter().collect()
}

fn pages<const COUNT: usize>(numbers: [u32; COUNT]) -> BTreeSet<LinearIndex> {
    numbers.map(LinearIndex).into()
}

#[test]
fn neither_of_two_consumers_misses_a_page_that_the_other_took() {
    let world = world(PAGES);
    let (mut one, mut other) = (world.shared.consumer().unwrap(), world.shared.consumer().unwrap());
    world.written.insert(LinearIndex(7));
    assert_eq!(read(&mut one), pages([7]));
    world.written.insert(LinearIndex(299));
    assert_eq!(read(&mut other), pages([7, 299]));
    assert_eq!((read(&mut one), read(&mut other)), (pages([299]), pages([])));
}

#[test]
fn the_source_is_watched_while_anybody_watches() {
    let world = world(PAGES);
    let watched = || world.watched.lock().unwrap().clone();
    let (mut one, other) = (world.shared.consumer().unwrap(), world.shared.consumer().unwrap());
    assert_eq!(watched(), [true]);
    one.watch(false).unwrap();
    world.written.insert(LinearIndex(1));
    assert_eq!(watched(), [true], "nobody switches it off for another");
    drop(other);
    assert_eq!(watched(), [true, false]);
    one.watch(true).unwrap();
    assert_eq!(watched(), [true, false, true]);
    drop(one);
    assert_eq!(watched(), [true, false, true, false]);
}

#[derive(Debug, Clone)]
enum Action {
    Write(LinearIndex),
    /// This consumer reads from a page on, so many at most.
    Read(usize, LinearIndex, u32),
    /// So many of the next reads fail.
    Fail(u32),
    Watch(usize, bool),
    /// Another consumer takes the place of this one.
    Renew(usize),
}

fn page() -> impl Strategy<Value = LinearIndex> {
    (0..PAGES).prop_map(LinearIndex)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => page().prop_map(Action::Write),
        4 => (0..3_usize, page(), 1..=PAGES).prop_map(|(n, at, len)| Action::Read(n, at, len)),
        1 => (1..3_u32).prop_map(Action::Fail),
        1 => (0..3_usize, any::<bool>()).prop_map(|(n, is_on)| Action::Watch(n, is_on)),
        1 => (0..3_usize).prop_map(Action::Renew),
    ]
}

proptest! {
    #[test]
    fn every_consumer_that_watches_reads_all_that_is_written(
        part in 1..=PAGES,
        actions in prop::collection::vec(action(), 0..200),
    ) {
        let world = world(part);
        let mut consumers: Vec<(ChangeConsumer, bool, BTreeSet<LinearIndex>)> = (0..3)
            .map(|_| (world.shared.consumer().unwrap(), true, BTreeSet::new()))
            .collect();
        for action in actions {
            match action {
                Action::Write(page) => {
                    world.written.insert(page);
                    for (_, _, expected) in consumers.iter_mut().filter(|one| one.1) {
                        expected.insert(page);
                    }
                }
                Action::Read(number, at, len) => {
                    let (consumer, is_watching, expected) = &mut consumers[number];
                    if !*is_watching {
                        continue;
                    }
                    let mut changed = PageSet::new(PAGES);
                    let within = (at..changed.end()).first(len);
                    let result = consumer.collect_part(within.clone(), &mut changed);
                    let named: BTreeSet<LinearIndex> = changed.iter().collect();
                    if let Ok(next) = result {
                        prop_assert!(next > at && next <= within.end);
                        let due: BTreeSet<LinearIndex> = expected.range(at..next).copied().collect();
                        prop_assert!(due.is_subset(&named), "{due:?}, and {named:?}");
                    }
                    expected.retain(|page| !named.contains(page));
                }
                Action::Fail(count) => *world.failures.lock().unwrap() = count,
                Action::Watch(number, is_on) => {
                    consumers[number].0.watch(is_on).unwrap();
                    consumers[number].1 = is_on;
                    consumers[number].2.clear();
                }
                Action::Renew(number) => {
                    consumers[number] = (world.shared.consumer().unwrap(), true, BTreeSet::new());
                }
            }
        }
        *world.failures.lock().unwrap() = 0;
        for (consumer, is_watching, expected) in &mut consumers {
            prop_assert!(!*is_watching || expected.is_subset(&read(consumer)));
        }
    }
}
