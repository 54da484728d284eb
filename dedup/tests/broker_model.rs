//! The broker against a naive model: agents without memory, whose pages are a content each, and
//! which answer as late, as wrongly and as reluctantly as real ones may.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "page counts are small, and a failure is a panic"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::page;
use pagefold_dedup::errors::MoveError;
use pagefold_dedup::internals::{
    Broker, CompactCursor, Decision, Directive, Extent, IdentityOffer, LocalBroker, Offer, Outcome,
};
use pagefold_dedup::{CompactScope, LinearIndex, Slot, VmId};
use proptest::prelude::*;

const VMS: usize = 3;
const PAGES: usize = 12;
const CONTENTS: u32 = 5;

#[derive(Debug, Clone)]
enum Step {
    /// A guest writes; its agent notices at its next pass.
    Write { vm: usize, page: usize, content: u32 },
    /// An agent's pass. Pages of `skip` are not offered, those of `decline` are not merged although
    /// they could be. If there are any of these, pages that were deferred are tried again.
    Pass { vm: usize, skip: u16, decline: u16 },
    /// An agent executes its directives, `limit` pages' at most. Those of `change` are written before
    /// their bytes are handed over, for those of `keep` no bytes are, odd ones being deferred if the agent is
    /// not late, and those of `decline` are not merged although they could be. A late agent reports the
    /// outcomes when it next sends a request.
    Execute { vm: usize, limit: usize, change: u16, keep: u16, decline: u16, late: bool },
    /// A VM ends, and another begins in its place.
    Restart { vm: usize },
    /// The sharers of what a page shares are to move to another slot.
    Move { vm: usize, page: usize },
    /// The same, and they do at once, but for those of `decline`.
    MoveNow { vm: usize, page: usize, decline: u16 },
    /// Moves that were declined are asked for again.
    Resume,
    /// The visits of a pass are over.
    EndVisits,
    /// What is left of moves that were asked for again is given up.
    GiveUp,
    /// The memory of what a page shares has failed.
    Lose { vm: usize, page: usize },
    /// A copy of what a page shares, whose memory has failed, was found. The pages of `refuse` cannot
    /// be mapped there.
    Recover { vm: usize, page: usize, refuse: u16 },
    /// Pages that could not be mapped to such copies are tried again.
    ResumeRecoveries { refuse: u16 },
    /// Small dups are joined.
    JoinDups,
    /// The slots of a VM's pages are brought side by side.
    Compact { vm: usize, all: bool },
    /// An agent asks which pages to pass over.
    Age { vm: usize, pages: u16 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rarely = || prop_oneof![3 => Just(0), 1 => any::<u16>()];
    let step = prop_oneof![
        6 => (0..VMS, 0..PAGES, 0..CONTENTS)
            .prop_map(|(vm, page, content)| Step::Write { vm, page, content }),
        6 => (0..VMS, rarely(), rarely())
            .prop_map(|(vm, skip, decline)| Step::Pass { vm, skip, decline }),
        9 => (0..VMS, 1..=PAGES, rarely(), rarely(), rarely(), any::<bool>()).prop_map(
            |(vm, limit, change, keep, decline, late)| {
                Step::Execute { vm, limit, change, keep, decline, late }
            }),
        1 => (0..VMS).prop_map(|vm| Step::Restart { vm }),
        2 => (0..VMS, 0..PAGES).prop_map(|(vm, page)| Step::Move { vm, page }),
        1 => (0..VMS, 0..PAGES, any::<u16>())
            .prop_map(|(vm, page, decline)| Step::MoveNow { vm, page, decline }),
        1 => Just(Step::Resume),
        1 => Just(Step::EndVisits),
        1 => Just(Step::GiveUp),
        1 => (0..VMS, 0..PAGES).prop_map(|(vm, page)| Step::Lose { vm, page }),
        1 => (0..VMS, 0..PAGES, rarely())
            .prop_map(|(vm, page, refuse)| Step::Recover { vm, page, refuse }),
        1 => rarely().prop_map(|refuse| Step::ResumeRecoveries { refuse }),
        1 => Just(Step::JoinDups),
        1 => (0..VMS, any::<bool>()).prop_map(|(vm, all)| Step::Compact { vm, all }),
        1 => (0..VMS, any::<u16>()).prop_map(|(vm, pages)| Step::Age { vm, pages }),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Loose,
    Waiting,
    /// Its twin may be in the trees, and it is not to fill a slot for it.
    Deferred,
    Shared(Slot),
}

#[derive(Debug, Clone, Copy)]
struct Page {
    content: u32,
    /// What it held when it was offered.
    offered: u32,
    state: State,
    /// Written since it was last reported to the broker.
    changed: bool,
}

struct World {
    broker: LocalBroker,
    vms: Vec<(VmId, Vec<Page>)>,
    slots: BTreeMap<Slot, u32>,
    /// Slots whose memory has failed: nobody may be directed to them.
    lost: BTreeSet<Slot>,
    /// What VMs were directed to and have not reported the outcome of, and what they will decline of it.
    late: BTreeMap<usize, (Vec<(usize, Slot)>, u16)>,
    next_vm: u32,
    max_page_sharing: u32,
}

impl World {
    fn new(max_page_sharing: u32) -> Self {
        let broker = LocalBroker::new(1 << 20, max_page_sharing).unwrap();
        let mut world = Self {
            broker,
            vms: Vec::new(),
            slots: BTreeMap::new(),
            lost: BTreeSet::new(),
            late: BTreeMap::new(),
            next_vm: 0,
            max_page_sharing,
        };
        for _ in 0..VMS {
            let vm = world.new_vm();
            world.vms.push(vm);
        }
        world
    }

    fn new_vm(&mut self) -> (VmId, Vec<Page>) {
        let id = VmId(self.next_vm);
        self.next_vm += 1;
        self.broker.register(id, PAGES as u32).unwrap();
        let content = |number| number as u32 % CONTENTS;
        let page = |number| Page {
            content: content(number),
            offered: 0,
            state: State::Loose,
            changed: false,
        };
        (id, (0..PAGES).map(page).collect())
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Write { vm, page, content } => {
                self.vms[vm].1[page].content = content;
                self.vms[vm].1[page].changed = true;
            }
            Step::Pass { vm, skip, decline } => self.pass(vm, skip, decline),
            Step::Execute { vm, limit, change, keep, decline, late } => {
                self.follow(vm, limit, [change, keep, decline], late);
            }
            Step::Restart { vm } => {
                self.late.remove(&vm);
                self.broker.unregister(self.vms[vm].0).unwrap();
                self.vms[vm] = self.new_vm();
            }
            Step::Move { vm, page } => {
                let State::Shared(slot) = self.vms[vm].1[page].state else { return };
                match self.broker.begin_move(slot) {
                    Ok(to) => {
                        assert!(self.broker.move_count() > 0);
                        self.slots.insert(to, self.slots[&slot]);
                    }
                    Err(error) => self.assert_unmovable(slot, &error),
                }
            }
            Step::MoveNow { vm, page, decline } => self.move_now(vm, page, decline),
            Step::Resume => self.broker.enqueue_moves(),
            Step::EndVisits => self.end_visits(),
            Step::GiveUp => {
                self.broker.give_up_moves();
            }
            Step::Lose { vm, page } => {
                let State::Shared(slot) = self.vms[vm].1[page].state else { return };
                match self.broker.mark_lost(slot) {
                    Ok(()) => assert!(self.broker.identity(slot).is_some()),
                    Err(error) => {
                        assert!(matches!(error, MoveError::Busy(_)), "{error}");
                        assert!(!self.late.is_empty(), "everybody has answered");
                        return;
                    }
                }
                self.lost.insert(slot);
            }
            Step::Recover { vm, page, refuse } => self.recover(vm, page, refuse),
            Step::ResumeRecoveries { refuse } => self.resume_recoveries(refuse),
            Step::JoinDups => {
                self.broker.join_dups();
            }
            Step::Compact { vm, all } => {
                let scope = if all { CompactScope::All } else { CompactScope::Gainful };
                let mut cursor = CompactCursor::default();
                let vm = self.vms[vm].0;
                while self.broker.compact(vm, &mut cursor, scope, |_, _| false).unwrap().is_some() {
                    self.broker.check().unwrap();
                }
            }
            Step::Age { vm, pages } => {
                let pages: Vec<LinearIndex> = (0..PAGES as u32)
                    .filter(|page| pages >> page & 1 == 1)
                    .map(LinearIndex)
                    .collect();
                let mut skip = Vec::new();
                self.broker.age(self.vms[vm].0, &pages, &mut skip).unwrap();
                for (page, skip) in pages.iter().zip(skip) {
                    let state = self.vms[vm].1[page.0 as usize].state;
                    assert!(!skip || state == State::Loose, "a page in a tree has no age");
                }
            }
        }
        self.broker.check().unwrap();
        self.check_contents();
    }

    /// Every page that is shared, as far as the broker can know, reads as its slot does.
    fn check_contents(&self) {
        for (vm, pages) in &self.vms {
            for (number, page) in pages.iter().enumerate().filter(|(_, page)| !page.changed) {
                if let State::Shared(slot) = page.state {
                    assert_eq!(self.slots[&slot], page.content, "page {number} of VM {vm}");
                    assert!(self.broker.identity(slot).is_some(), "{slot:?} is in use");
                }
            }
        }
    }

    fn assert_unmovable(&self, slot: Slot, error: &MoveError) {
        let expected = match error {
            MoveError::Busy(_) => !self.lost.contains(&slot),
            MoveError::Damaged(_) => self.lost.contains(&slot),
            _ => false,
        };
        assert!(expected, "{error}");
    }

    /// Has an agent report the outcomes of its directives.
    fn catch_up(&mut self, vm: usize) {
        if let Some((targets, decline)) = self.late.remove(&vm) {
            self.merge(vm, &targets, decline);
        }
    }

    fn move_now(&mut self, vm: usize, page: usize, decline: u16) {
        let State::Shared(slot) = self.vms[vm].1[page].state else { return };
        let to = match self.broker.begin_move(slot) {
            Ok(to) => to,
            Err(error) => return self.assert_unmovable(slot, &error),
        };
        self.slots.insert(to, self.slots[&slot]);
        for vm in 0..VMS {
            self.catch_up(vm);
            let pages: Vec<LinearIndex> = (0..PAGES as u32)
                .map(LinearIndex)
                .filter(|page| self.vms[vm].1[page.0 as usize].state == State::Shared(slot))
                .collect();
            let mut directives = Vec::new();
            self.broker.move_directives(self.vms[vm].0, &pages, &mut directives).unwrap();
            let moves =
                pages.iter().map(|&linear| Directive::Merge { linear, slot: to, awaited: false });
            assert!(directives.iter().copied().eq(moves), "{directives:?}");
            let targets: Vec<(usize, Slot)> =
                pages.iter().map(|page| (page.0 as usize, to)).collect();
            self.merge(vm, &targets, decline);
        }
        let has_moved = self.states().any(|state| state == State::Shared(to));
        let has_left = self.states().all(|state| state != State::Shared(slot));
        assert_eq!(self.broker.give_up_move(slot), !has_moved && !has_left);
        assert_eq!(self.broker.identity(to).is_some(), has_moved);
    }

    fn states(&self) -> impl Iterator<Item = State> + '_ {
        self.vms.iter().flat_map(|(_, pages)| pages).map(|page| page.state)
    }

    fn recover(&mut self, vm: usize, number: usize, refuse: u16) {
        let State::Shared(slot) = self.vms[vm].1[number].state else { return };
        let content = self.slots[&slot];
        match self.broker.begin_recovery(slot, &page(content)) {
            Ok(to) => {
                self.lost.insert(slot);
                self.replace(slot, to, refuse);
            }
            Err(error) => {
                assert!(matches!(error, MoveError::Busy(_)), "{error}");
                assert!(!self.late.is_empty(), "everybody has answered");
            }
        }
    }

    fn resume_recoveries(&mut self, refuse: u16) {
        for (slot, to) in self.broker.recoveries() {
            self.replace(slot, to, refuse);
        }
    }

    /// Maps all pages that show a slot to another, but for those of `refuse`.
    fn replace(&mut self, slot: Slot, to: Slot, refuse: u16) {
        let content = self.slots[&slot];
        assert_eq!(*self.slots.entry(to).or_insert(content), content, "other bytes");
        assert!(!self.lost.contains(&to), "recovered to a slot that is lost");
        for vm in 0..VMS {
            self.catch_up(vm);
            let (id, pages) = &mut self.vms[vm];
            for (number, page) in pages.iter_mut().enumerate() {
                if page.state == State::Shared(slot) && !page.changed && refuse >> number & 1 == 0 {
                    page.state = State::Shared(to);
                    let linear = LinearIndex(number as u32);
                    let run = Extent { linear, slot: to, page_count: 1 };
                    self.broker.report(*id, &[Outcome::Merged(run)]).unwrap();
                }
            }
        }
    }

    fn pass(&mut self, vm: usize, skip: u16, decline: u16) {
        self.catch_up(vm);
        if decline != 0 {
            self.retry_deferred(vm);
        }
        let id = self.vms[vm].0;
        let mut outcomes = Vec::new();
        for (number, page) in self.vms[vm].1.iter_mut().enumerate().filter(|(_, page)| page.changed)
        {
            page.changed = false;
            let linear = LinearIndex(number as u32);
            match std::mem::replace(&mut page.state, State::Loose) {
                State::Loose => {}
                State::Waiting | State::Deferred => outcomes.push(Outcome::Left { linear }),
                // Its mappings were given to others.
                State::Shared(_) if number.is_multiple_of(2) => {
                    outcomes.push(Outcome::Yielded { linear });
                }
                State::Shared(_) => outcomes.push(Outcome::Broken { linear }),
            }
        }
        self.broker.report(id, &outcomes).unwrap();

        let offered: Vec<usize> = (0..PAGES)
            .filter(|&number| {
                self.vms[vm].1[number].state == State::Loose && skip >> number & 1 == 0
            })
            .collect();
        let offers: Vec<Offer> = offered
            .iter()
            .map(|&number| Offer {
                linear: LinearIndex(number as u32),
                fingerprint: self
                    .broker
                    .secret()
                    .fingerprint(&page(self.vms[vm].1[number].content)),
            })
            .collect();
        let mut decisions = Vec::new();
        self.broker.offer(id, &offers, &mut decisions).unwrap();
        for (&number, decision) in offered.iter().zip(&mut decisions) {
            if *decision == Decision::Identify {
                let bytes = page(self.vms[vm].1[number].content);
                let identity = self.broker.secret().identity(&bytes);
                let offer = IdentityOffer { linear: LinearIndex(number as u32), identity };
                let mut named = Vec::new();
                self.broker.offer_by_identity(id, &[offer], &mut named).unwrap();
                *decision = named[0];
            }
        }
        self.broker.check().unwrap();

        let mut targets = Vec::new();
        for (&number, decision) in offered.iter().zip(decisions) {
            let model = &mut self.vms[vm].1[number];
            model.offered = model.content;
            match decision {
                Decision::Wait => model.state = State::Waiting,
                Decision::Identify => unreachable!("it was named"),
                Decision::Keep => unreachable!("the store is large"),
                Decision::Join(slot) => {
                    assert!(!self.lost.contains(&slot), "directed to join a slot that is lost");
                    targets.push((number, slot));
                }
            }
        }
        self.merge(vm, &targets, decline);
    }

    /// Has pages be offered again that were deferred.
    fn retry_deferred(&mut self, vm: usize) {
        let (id, pages) = &mut self.vms[vm];
        for (number, page) in pages.iter_mut().enumerate() {
            if page.state == State::Deferred {
                page.state = State::Loose;
                let linear = LinearIndex(number as u32);
                self.broker.report(*id, &[Outcome::Retried { linear }]).unwrap();
            }
        }
    }

    /// Ends the visits of a pass. What was to be offered again and was not, is in no tree any more.
    fn end_visits(&mut self) {
        while self.broker.end_visits() > 0 {}
    }

    fn follow(&mut self, vm: usize, limit: usize, masks: [u16; 3], late: bool) -> bool {
        let [change, keep, decline] = masks;
        self.catch_up(vm);
        let id = self.vms[vm].0;
        let mut directives = Vec::new();
        self.broker.directives(id, limit, &mut directives).unwrap();
        assert!(directives.len() <= limit);
        self.broker.check().unwrap();
        let mut targets = Vec::new();
        for directive in &directives {
            let number = directive.linear().0 as usize;
            let model = &mut self.vms[vm].1[number];
            if let State::Shared(slot) = model.state {
                assert!(!self.lost.contains(&slot), "directed to look at what is lost");
            }
            if model.state == State::Deferred {
                model.state = State::Waiting;
            }
            match *directive {
                Directive::Create { slot, .. } => {
                    assert_eq!(model.state, State::Waiting);
                    if keep >> number & 1 == 1 && number % 2 == 1 && !late {
                        model.state = State::Deferred;
                        let linear = directive.linear();
                        self.broker.report(id, &[Outcome::Deferred { linear, slot }]).unwrap();
                        continue;
                    }
                    targets.push((number, slot));
                    if keep >> number & 1 == 1 {
                        continue;
                    }
                    if change >> number & 1 == 1 {
                        model.content = (model.content + 1) % CONTENTS;
                        model.changed = true;
                    }
                    let mut accepted = Vec::new();
                    self.broker.fill(id, slot, &page(model.content), &mut accepted).unwrap();
                    assert!(!accepted[0] || model.offered == model.content);
                    if accepted[0] {
                        self.slots.insert(slot, model.content);
                    }
                }
                Directive::Merge { slot, .. } => {
                    assert_ne!(model.state, State::Loose);
                    assert!(!self.lost.contains(&slot), "directed to join a slot that is lost");
                    targets.push((number, slot));
                }
                Directive::Offer { .. } => {
                    if model.state == State::Waiting {
                        model.state = State::Loose;
                    }
                }
                Directive::Unshare { linear } => {
                    model.state = State::Loose;
                    self.broker.report(id, &[Outcome::Left { linear }]).unwrap();
                }
            }
        }
        if late {
            self.late.insert(vm, (targets, decline));
        } else {
            self.merge(vm, &targets, decline);
        }
        !directives.is_empty()
    }

    fn merge(&mut self, vm: usize, targets: &[(usize, Slot)], decline: u16) {
        let (id, pages) = &mut self.vms[vm];
        for &(number, slot) in targets {
            let linear = LinearIndex(number as u32);
            let page = &mut pages[number];
            let node_is_there = self.broker.identity(slot).is_some();
            // A slot that pages were moved to holds what the one that they come from does.
            let from = match page.state {
                State::Shared(from) => self.slots.get(&from).copied(),
                State::Loose | State::Waiting | State::Deferred => None,
            };
            if let Some(content) = from {
                assert!(
                    node_is_there,
                    "{slot:?} was freed, and page {number} is about to go there"
                );
                let known = *self.slots.entry(slot).or_insert(content);
                assert_eq!(known, content, "moved to a slot with other bytes");
            }
            let equal = node_is_there && self.slots.get(&slot) == Some(&page.content);
            let outcome = if equal && decline >> number & 1 == 0 {
                page.state = State::Shared(slot);
                Outcome::Merged(Extent { linear, slot, page_count: 1 })
            } else {
                // A page that was to move keeps what it has.
                if page.state == State::Waiting {
                    page.state = State::Loose;
                }
                if equal || !node_is_there {
                    Outcome::Declined { linear, slot }
                } else {
                    Outcome::Differs { linear, slot }
                }
            };
            self.broker.report(*id, &[outcome]).unwrap();
        }
    }

    /// Lets every agent do its work until nothing is left, then compares with what must be shared.
    fn settle_and_compare(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            self.broker.enqueue_moves();
            self.resume_recoveries(0);
            for vm in 0..VMS {
                self.retry_deferred(vm);
                self.pass(vm, 0, 0);
            }
            self.end_visits();
            for vm in 0..VMS {
                busy |= self.follow(vm, PAGES, [0; 3], false);
            }
            busy |= self.broker.awaits_retries();
            self.broker.check().unwrap();
        }
        assert_eq!(self.broker.move_count(), 0, "a move did not end");
        // For each content the sharers of each of its slots, and the pages that wait.
        let mut contents = BTreeMap::<u32, (BTreeMap<Slot, u32>, u32)>::new();
        for page in self.vms.iter().flat_map(|(_, pages)| pages) {
            let (slots, waiting) = contents.entry(page.content).or_default();
            match page.state {
                State::Shared(slot) => {
                    assert_eq!(self.slots[&slot], page.content);
                    *slots.entry(slot).or_default() += 1;
                }
                State::Waiting => *waiting += 1,
                State::Loose | State::Deferred => panic!("{page:?} was forgotten"),
            }
        }
        // A lone page may still share a slot with nobody, after its partners have left it.
        let (mut shared, mut sharers, mut unshared) = (0, 0, 0);
        let (mut chains, mut dups) = (0, 0);
        for (content, (slots, waiting)) in &contents {
            let limit = self.max_page_sharing;
            assert!(slots.values().all(|&sharers| sharers <= limit), "{content}: {slots:?}");
            let full = |(slot, &sharers)| self.lost.contains(slot) || sharers == limit;
            let full = slots.iter().all(full);
            assert!(*waiting == 0 || *waiting == 1 && full, "{content}: {waiting} wait, {slots:?}");
            shared += slots.len() as u64;
            sharers += slots.values().map(|&sharers| u64::from(sharers)).sum::<u64>();
            unshared += u64::from(*waiting);
            if slots.len() > 1 {
                chains += 1;
                dups += slots.len() as u64;
            }
        }
        let stats = self.broker.stats("test");
        assert_eq!((stats.pages_shared, stats.pages_sharing), (shared, sharers - shared));
        assert_eq!(stats.pages_unshared, unshared);
        assert_eq!((stats.stable_node_chains, stats.stable_node_dups), (chains, dups));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2700, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_forgotten_or_shared_wrongly(steps in steps(), limit in 2_u32..8) {
        let mut world = World::new(limit);
        for step in &steps {
            world.apply(step);
        }
        world.settle_and_compare();
    }
}

#[test]
fn messages_about_what_was_not_proposed_are_refused_and_change_nothing() {
    let mut broker = LocalBroker::new(1 << 10, 256).unwrap();
    let (vm, stranger) = (VmId(0), VmId(1));
    broker.register(vm, 4).unwrap();
    broker.register(stranger, 4).unwrap();
    assert!(broker.register(vm, 4).is_err(), "registered twice");
    let offer = |linear| Offer {
        linear: LinearIndex(linear),
        fingerprint: pagefold_dedup::internals::Fingerprint(7),
    };
    let mut decisions = Vec::new();
    assert!(broker.offer(VmId(9), &[offer(0)], &mut decisions).is_err(), "an unknown VM");
    assert!(broker.offer(vm, &[offer(0), offer(4)], &mut decisions).is_err(), "no such page");
    broker.offer(vm, &[offer(0), offer(1)], &mut decisions).unwrap();
    assert_eq!(decisions, [Decision::Wait, Decision::Wait]);
    let mut directives = Vec::new();
    broker.directives(vm, 9, &mut directives).unwrap();
    let [Directive::Create { slot, .. }, Directive::Merge { .. }] = directives[..] else {
        panic!("{directives:?}")
    };
    let mut accepted = Vec::new();
    assert!(broker.fill(stranger, slot, &page(0), &mut accepted).is_err(), "another VM's slot");
    assert!(broker.fill(vm, slot, &[0; 100], &mut accepted).is_err(), "not a page");
    assert!(broker.fill(vm, Slot(999), &page(0), &mut accepted).is_err(), "no such slot");
    assert!(accepted.is_empty());
    let merged =
        |linear, slot| Outcome::Merged(Extent { linear: LinearIndex(linear), slot, page_count: 1 });
    assert!(broker.report(vm, &[merged(1, slot)]).is_err(), "merged with an empty slot");
    assert!(broker.report(vm, &[merged(3, slot)]).is_err(), "merged without being asked");
    assert!(broker.report(stranger, &[merged(1, slot)]).is_err(), "somebody else's merge");
    let unbacked = Outcome::Unbacked { linear: LinearIndex(2), page_count: u32::MAX };
    assert!(broker.report(vm, &[unbacked]).is_err(), "more pages than there are");
    broker.check().unwrap();
    // The wrong bytes for the fingerprint: the node is no more.
    broker.fill(vm, slot, &page(0), &mut accepted).unwrap();
    assert_eq!(accepted, [false]);
    assert!(broker.report(vm, &[merged(1, slot)]).is_err(), "merged with a node that is gone");
    assert_eq!(broker.stats("test").pages_shared, 0);
    broker.check().unwrap();
}
