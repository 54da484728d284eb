//! The regions against a plain vector of them.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// Small numbers, so that regions overlap and begin at the same page.
const PAGES: u32 = 24;
const GUEST_PAGES: u64 = 96;

#[derive(Debug, Clone)]
enum Step {
    Insert { linear: u32, page_count: u32, guest_page: u64 },
    Remove { which: usize },
    Split { which: usize, page_count: u32 },
    Move { which: usize, guest_page: u64 },
    Relocate { linear: u32, page_count: u32, host_page: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..PAGES, 0_u32..8, 0..GUEST_PAGES).prop_map(|(linear, page_count, guest_page)| {
            Step::Insert { linear, page_count, guest_page }
        }),
        1 => any::<usize>().prop_map(|which| Step::Remove { which }),
        2 => (any::<usize>(), 0_u32..8)
            .prop_map(|(which, page_count)| Step::Split { which, page_count }),
        2 => (any::<usize>(), 0..GUEST_PAGES)
            .prop_map(|(which, guest_page)| Step::Move { which, guest_page }),
        2 => (0..PAGES + 4, 0_u32..8, 0_usize..1 << 20).prop_map(
            |(linear, page_count, host_page)| Step::Relocate { linear, page_count, host_page }
        ),
    ];
    prop::collection::vec(step, 0..120)
}

fn region(linear: u32, page_count: u32, guest_page: u64) -> Region {
    let gpa = guest_page * PAGE_SIZE as u64;
    let host_addr = (1 << 30) + usize::try_from(gpa).unwrap();
    Region { linear: LinearIndex(linear), page_count, gpa, host_addr }
}

/// The pages from `start` up to `end` of a region.
fn part(one: &Region, start: u32, end: u32) -> Region {
    let skip = start as usize * PAGE_SIZE;
    Region {
        linear: one.linear.offset(start),
        page_count: end - start,
        gpa: one.gpa + skip as u64,
        host_addr: one.host_addr + skip,
    }
}

/// All regions in a vector, each searched for from the first to the last.
#[derive(Default)]
struct Model(Vec<Region>);

impl Model {
    fn fits(&self, one: &Region) -> bool {
        let end = |region: &Region| region.gpa + region.len_bytes() as u64;
        one.page_count > 0
            && self.0.iter().all(|other| end(one) <= other.gpa || end(other) <= one.gpa)
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
            Step::Insert { linear, page_count, guest_page } => {
                let one = region(linear, page_count, guest_page);
                (map.insert(one).is_ok(), self.insert(one))
            }
            Step::Remove { which } => {
                let one = self.pick(which);
                (map.remove(one.gpa) == Ok(one), self.take(&one))
            }
            Step::Split { which, page_count } => {
                let one = self.pick(which);
                let done = map.split(one.gpa, page_count).is_ok();
                let expected = (1..one.page_count).contains(&page_count) && self.take(&one);
                if expected {
                    let parts = [(0, page_count), (page_count, one.page_count)];
                    self.0.extend(parts.map(|(start, end)| part(&one, start, end)));
                }
                (done, expected)
            }
            Step::Relocate { linear, page_count, host_page } => {
                let host_addr = host_page * PAGE_SIZE;
                let found = map.relocate(LinearIndex(linear), page_count, host_addr);
                let mut count = 0;
                for one in std::mem::take(&mut self.0) {
                    // The pages of the range, as numbers within the region.
                    let within = |page: u32| page.saturating_sub(one.linear.0).min(one.page_count);
                    let (start, end) = (within(linear), within(linear + page_count));
                    if start == end {
                        self.0.push(one);
                        continue;
                    }
                    count += 1;
                    let inside = part(&one, start, end);
                    let skip = (inside.linear.0 - linear) as usize * PAGE_SIZE;
                    let moved = Region { host_addr: host_addr + skip, ..inside };
                    let parts = [part(&one, 0, start), moved, part(&one, end, one.page_count)];
                    self.0.extend(parts.iter().filter(|part| part.page_count > 0));
                }
                (found == Ok(count), true)
            }
            Step::Move { which, guest_page } => {
                let one = self.pick(which);
                let to = region(one.linear.0, one.page_count, guest_page);
                let done = map.move_to(one.gpa, to.gpa, to.host_addr).is_ok();
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
                let gpa = page * PAGE_SIZE as u64;
                let has = |region: &&Region| {
                    (region.gpa..region.gpa + region.len_bytes() as u64)
                        .contains(&gpa)
                };
                let expected = model.0.iter().find(has);
                prop_assert_eq!(map.at_guest(gpa + 5).map(|(region, _)| region), expected);
                if let Some((region, linear)) = map.at_guest(gpa) {
                    let skip = u64::from(linear.0 - region.linear.0) * PAGE_SIZE as u64;
                    prop_assert_eq!(region.gpa + skip, gpa);
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
    map.split(region(16, 16, 16).gpa, 8).unwrap();
    let moved = region(24, 8, 64);
    map.move_to(region(24, 8, 24).gpa, moved.gpa, moved.host_addr).unwrap();
    map.check().unwrap();
    assert_eq!(stab(&map, LinearIndex(30), usize::MAX).0, [moved]);
    assert_eq!(map.at_guest(region(30, 1, 30).gpa), None);
}

#[test]
fn what_cannot_be_a_region_is_refused() {
    let mut map = Regions::default();
    let unaligned = Region { gpa: 1, ..region(0, 1, 0) };
    assert_eq!(map.insert(unaligned), Err(LayoutError::Unaligned(unaligned)));
    let beyond = region(u32::MAX, 1, 0);
    assert_eq!(map.insert(beyond), Err(LayoutError::OutOfRange(beyond)));
    let wraps = Region { gpa: u64::MAX - 4095, ..region(0, 1, 0) };
    assert_eq!(map.insert(wraps), Err(LayoutError::OutOfRange(wraps)));
    map.insert(region(0, 4, 0)).unwrap();
    let (region, other) = (region(9, 1, 3), region(0, 4, 0));
    assert_eq!(map.insert(region), Err(LayoutError::GuestOverlap { region, other }));
    map.check().unwrap();
}
