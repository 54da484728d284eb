//! The regions against a plain vector of them.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// Small numbers, so that regions overlap and begin at the same page.
const PAGES: u32 = 24;
const GUEST_PAGES: u64 = 96;

#[derive(Debug, Clone)]
enum Step {
    Insert { linear: u32, count_pages: u32, guest_page: u64 },
    Remove { which: usize },
    Split { which: usize, count_pages: u32 },
    Move { which: usize, guest_page: u64 },
    Relocate { linear: u32, count_pages: u32, host_page: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..PAGES, 0_u32..8, 0..GUEST_PAGES).prop_map(|(linear, count_pages, guest_page)| {
            Step::Insert { linear, count_pages, guest_page }
        }),
        1 => any::<usize>().prop_map(|which| Step::Remove { which }),
        2 => (any::<usize>(), 0_u32..8)
            .prop_map(|(which, count_pages)| Step::Split { which, count_pages }),
        2 => (any::<usize>(), 0..GUEST_PAGES)
            .prop_map(|(which, guest_page)| Step::Move { which, guest_page }),
        2 => (0..PAGES + 4, 0_u32..8, 0_usize..1 << 20).prop_map(
            |(linear, count_pages, host_page)| Step::Relocate { linear, count_pages, host_page }
        ),
    ];
    prop::collection::vec(step, 0..120)
}

fn region(linear: u32, count_pages: u32, guest_page: u64) -> Region {
    let guest_phys = guest_page * PAGE_SIZE as u64;
    let host_addr = (1 << 30) + usize::try_from(guest_phys).unwrap();
    Region { linear: LinearIndex(linear), count_pages, guest_phys, host_addr }
}

/// The pages from `start` up to `end` of a region.
fn part(one: &Region, start: u32, end: u32) -> Region {
    let skip = start as usize * PAGE_SIZE;
    Region {
        linear: one.linear.offset(start),
        count_pages: end - start,
        guest_phys: one.guest_phys + skip as u64,
        host_addr: one.host_addr + skip,
    }
}

/// All regions in a vector, each searched for from the first to the last.
#[derive(Default)]
struct Model(Vec<Region>);

impl Model {
    fn fits(&self, one: &Region) -> bool {
        let end = |region: &Region| region.guest_phys + region.len_bytes() as u64;
        one.count_pages > 0
            && self
                .0
                .iter()
                .all(|other| end(one) <= other.guest_phys || end(other) <= one.guest_phys)
    }

    fn insert(&mut self, one: Region) -> bool {
        let fits = self.fits(&one);
        if fits {
            self.0.push(one);
        }
        fits
    }

    /// Some region that is there, or one that is not.
    fn pick(&self, which: usize) -> Region {
        let absent = region(0, 1, GUEST_PAGES * 2);
        self.0.get(which % (self.0.len() + 1)).copied().unwrap_or(absent)
    }

    fn take(&mut self, one: &Region) -> bool {
        let position = self.0.iter().position(|other| other == one);
        position.map(|position| self.0.swap_remove(position)).is_some()
    }

    fn apply(&mut self, map: &mut Regions, step: &Step) -> (bool, bool) {
        match *step {
            Step::Insert { linear, count_pages, guest_page } => {
                let one = region(linear, count_pages, guest_page);
                (map.insert(one).is_ok(), self.insert(one))
            }
            Step::Remove { which } => {
                let one = self.pick(which);
                (map.remove(one.guest_phys) == Ok(one), self.take(&one))
            }
            Step::Split { which, count_pages } => {
                let one = self.pick(which);
                let done = map.split(one.guest_phys, count_pages).is_ok();
                let expected = (1..one.count_pages).contains(&count_pages) && self.take(&one);
                if expected {
                    let parts = [(0, count_pages), (count_pages, one.count_pages)];
                    self.0.extend(parts.map(|(start, end)| part(&one, start, end)));
                }
                (done, expected)
            }
            Step::Relocate { linear, count_pages, host_page } => {
                let host_addr = host_page * PAGE_SIZE;
                let found = map.relocate(LinearIndex(linear), count_pages, host_addr);
                let mut count = 0;
                for one in std::mem::take(&mut self.0) {
                    // The pages of the range, as numbers within the region.
                    let within = |page: u32| page.saturating_sub(one.linear.0).min(one.count_pages);
                    let (start, end) = (within(linear), within(linear + count_pages));
                    if start == end {
                        self.0.push(one);
                        continue;
                    }
                    count += 1;
                    let inside = part(&one, start, end);
                    let skip = (inside.linear.0 - linear) as usize * PAGE_SIZE;
                    let moved = Region { host_addr: host_addr + skip, ..inside };
                    let parts = [part(&one, 0, start), moved, part(&one, end, one.count_pages)];
                    self.0.extend(parts.iter().filter(|part| part.count_pages > 0));
                }
                (found == Ok(count), true)
            }
            Step::Move { which, guest_page } => {
                let one = self.pick(which);
                let to = region(one.linear.0, one.count_pages, guest_page);
                let done = map.move_to(one.guest_phys, to.guest_phys, to.host_addr).is_ok();
                let taken = self.take(&one);
                let expected = taken && self.insert(to);
                if taken && !expected {
                    self.0.push(one);
                }
                (done, expected)
            }
        }
    }

    /// The regions that have a page, as the tree orders them.
    fn with_page(&self, linear: LinearIndex) -> Vec<Region> {
        let has = |region: &&Region| region.linear <= linear && linear < region.end();
        let mut found: Vec<Region> = self.0.iter().filter(has).copied().collect();
        found.sort_unstable_by_key(tree::key);
        found
    }
}

fn stab(map: &Regions, linear: LinearIndex, limit: usize) -> (Vec<Region>, Visits) {
    let mut found = Vec::new();
    let visits = map.stab(linear, |region| {
        found.push(*region);
        if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (found, visits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_a_vector_of_regions(steps in steps()) {
        let (mut map, mut model) = (Regions::default(), Model::default());
        for step in &steps {
            let (done, expected) = model.apply(&mut map, step);
            prop_assert_eq!(done, expected, "{:?}", step);
            map.check().unwrap();
            prop_assert_eq!(map.len(), model.0.len());

            for page in 0..PAGES + 8 {
                let linear = LinearIndex(page);
                let expected = model.with_page(linear);
                let (found, visits) = stab(&map, linear, usize::MAX);
                prop_assert_eq!(visits.intervals, expected.len() as u64);
                prop_assert_eq!(&found, &expected);
                let (found, visits) = stab(&map, linear, 1);
                prop_assert_eq!(found.first(), expected.first());
                prop_assert_eq!(visits.stopped, !expected.is_empty());
                prop_assert_eq!(visits.intervals, u64::from(!expected.is_empty()));
            }
            for page in 0..GUEST_PAGES + 8 {
                let guest_phys = page * PAGE_SIZE as u64;
                let has = |region: &&Region| {
                    (region.guest_phys..region.guest_phys + region.len_bytes() as u64)
                        .contains(&guest_phys)
                };
                let expected = model.0.iter().find(has);
                prop_assert_eq!(map.at_guest(guest_phys + 5).map(|(region, _)| region), expected);
                if let Some((region, linear)) = map.at_guest(guest_phys) {
                    let skip = u64::from(linear.0 - region.linear.0) * PAGE_SIZE as u64;
                    prop_assert_eq!(region.guest_phys + skip, guest_phys);
                }
            }
            let mut all = Vec::new();
            let visits = map.all(|region| { all.push(*region); ControlFlow::Continue(()) });
            prop_assert_eq!(visits.intervals, model.0.len() as u64);
            let mut expected = model.0.clone();
            expected.sort_unstable_by_key(tree::key);
            prop_assert_eq!(all, expected);
        }
    }
}

#[test]
fn one_interval_is_visited_among_many_disjoint_ones() {
    const COUNT: u32 = 20_000;
    let regions: Vec<Region> =
        (0..COUNT).map(|number| region(number * 3, 3, u64::from(number) * 8)).collect();
    let map = Regions::of(&regions).unwrap();
    map.check().unwrap();
    for page in 0..COUNT * 3 {
        let (found, visits) = stab(&map, LinearIndex(page), usize::MAX);
        assert_eq!(found, [regions[page as usize / 3]]);
        assert_eq!(visits.intervals, 1);
        // Balance keeps 20,000 nodes within 20 levels; at each, one child is looked at in vain.
        assert!(visits.nodes <= 2 * 20, "{visits:?}");
    }
    assert!(map.heap_bytes() <= 2 * 64 * COUNT as usize);
}

#[test]
fn a_page_at_two_guest_addresses_is_found_at_both() {
    let mut map = Regions::of(&[region(0, 100, 0)]).unwrap();
    let alias = Region { host_addr: region(40, 2, 40).host_addr, ..region(40, 2, 500) };
    map.insert(alias).unwrap();
    let (found, visits) = stab(&map, LinearIndex(41), usize::MAX);
    assert_eq!(found, [region(0, 100, 0), alias]);
    assert_eq!(visits.intervals, 2);
}

#[test]
fn a_moved_region_is_found_where_it_is_now() {
    // What an index derived from the current address would miss (docs/decisions/0007-linear-index.md).
    let mut map = Regions::of(&[region(0, 16, 0), region(16, 16, 16)]).unwrap();
    map.split(region(16, 16, 16).guest_phys, 8).unwrap();
    let moved = region(24, 8, 64);
    map.move_to(region(24, 8, 24).guest_phys, moved.guest_phys, moved.host_addr).unwrap();
    map.check().unwrap();
    assert_eq!(stab(&map, LinearIndex(30), usize::MAX).0, [moved]);
    assert_eq!(map.at_guest(region(30, 1, 30).guest_phys), None);
}

#[test]
fn what_cannot_be_a_region_is_refused() {
    let mut map = Regions::default();
    let unaligned = Region { guest_phys: 1, ..region(0, 1, 0) };
    assert_eq!(map.insert(unaligned), Err(LayoutError::Unaligned(unaligned)));
    let beyond = region(u32::MAX, 1, 0);
    assert_eq!(map.insert(beyond), Err(LayoutError::OutOfRange(beyond)));
    let wraps = Region { guest_phys: u64::MAX - 4095, ..region(0, 1, 0) };
    assert_eq!(map.insert(wraps), Err(LayoutError::OutOfRange(wraps)));
    map.insert(region(0, 4, 0)).unwrap();
    let (region, other) = (region(9, 1, 3), region(0, 4, 0));
    assert_eq!(map.insert(region), Err(LayoutError::GuestOverlap { region, other }));
    map.check().unwrap();
}
