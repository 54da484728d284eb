//! Each contradiction between an agent's sets is found, and named.

use std::sync::Arc;

use super::*;
use crate::VmId;
use crate::agent::ProcessMemory;
use crate::agent::tests::World;

type SetOf = fn(&mut Agent) -> &mut PageSet;

/// The sets that hold the state of a page.
const STATES: [(&str, SetOf); 5] = [
    ("shared", |agent| &mut agent.shared),
    ("zero", |agent| &mut agent.zero),
    ("offered", |agent| &mut agent.offered),
    ("dirty", |agent| &mut agent.dirty),
    ("deferred", |agent| &mut agent.deferred),
];

/// What is found of an agent of which nothing has been looked at, after `change`.
fn found(change: impl FnOnce(&mut Agent)) -> String {
    let process = Arc::new(ProcessMemory::open(true).unwrap());
    let mut world = World::new(&process, 256, 0..0);
    let agent = &mut world.vms.get_mut(&VmId(0)).unwrap().agent;
    assert_eq!(agent.find_contradiction(), None);
    agent.dirty.remove_range(LinearIndex(0).run(8));
    assert_eq!(agent.find_contradiction(), None);
    change(agent);
    agent.find_contradiction().expect("nothing is found")
}

#[test]
fn a_page_that_is_in_two_states_is_found() {
    for (number, (one, set)) in STATES.iter().enumerate() {
        for (other, other_set) in &STATES[number + 1..] {
            let what = found(|agent| {
                set(agent).insert(LinearIndex(3));
                other_set(agent).insert(LinearIndex(3));
            });
            assert_eq!(what, format!("page 3 is {one} and {other}"));
        }
    }
}

#[test]
fn a_page_that_is_to_be_looked_at_and_is_not_dirty_is_found() {
    let what = found(|agent| {
        agent.visit.cursor = LinearIndex(0);
        agent.visit.scan_set.insert(LinearIndex(4));
    });
    assert_eq!(what, "page 4 is to be looked at, and is not dirty");
}

#[test]
fn an_excluded_page_that_is_looked_at_or_folded_is_found() {
    let excluded = |agent: &Agent| {
        let mut excluded = PageSet::new(agent.dirty.page_count());
        excluded.insert(LinearIndex(5));
        Some(excluded)
    };
    let what = found(|agent| {
        agent.excluded = excluded(agent);
        agent.dirty.insert(LinearIndex(5));
        agent.visit.scan_set.insert(LinearIndex(5));
    });
    assert_eq!(what, "page 5 is to be looked at, and is excluded");
    for (name, set) in &STATES[..3] {
        let what = found(|agent| {
            agent.excluded = excluded(agent);
            set(agent).insert(LinearIndex(5));
        });
        assert_eq!(what, format!("page 5 is {name} and excluded"));
    }
}

#[test]
fn a_page_that_is_folded_against_the_mode_is_found() {
    for (mode, name) in
        [(DedupMode::Off, "zero"), (DedupMode::Off, "shared"), (DedupMode::Zero, "offered")]
    {
        let what = found(|agent| {
            agent.mode = mode;
            let (_, set) = STATES.iter().find(|(other, _)| *other == name).unwrap();
            set(agent).insert(LinearIndex(6));
        });
        assert_eq!(what, format!("page 6 is {name} in a VM that is not to be folded so"));
    }
}

#[test]
fn a_set_of_another_number_of_pages_is_found() {
    for (name, set) in &STATES {
        let what = found(|agent| *set(agent) = PageSet::new(3));
        assert!(what.starts_with("a set of 3 of "), "{name}: {what}");
    }
}
