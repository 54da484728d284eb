//! What runs cost in mappings, and which of them are worth it.
//!
//! The runs that save most for each mapping come first. What a page costs that is to create a slot is
//! what all sides need: its own mappings, and those of the twins that it is merged for, which are
//! pledged. So a page is not merged for a twin that the budget then defers, and what all VMs have is not
//! shared by two of them only because there are more such pages.

use std::cmp::Reverse;

use super::Demand;
use super::mappings::more_vmas_with;
use crate::Slot;
use crate::agent::Agent;
use crate::agent::merge::runs::{Run, declined, deferred, deferred_for_retry};
use crate::agent::merge::terms::Terms;
use crate::extents::ExtentMap;
use crate::id_set::IdSet;
use crate::protocol::Outcome;

/// Mappings that one more run takes, at most: it parts one into three.
const VMAS_PER_RUN: u64 = 2;

impl Agent {
    /// Drops the runs that the mapping budget cannot pay for, and adds that to `outcomes`.
    /// O((runs + extents under them) · log).
    pub(in crate::agent) fn within_budget(
        &mut self,
        runs: &mut Vec<Run>,
        terms: &Terms,
        outcomes: &mut Vec<Outcome>,
    ) {
        terms.part_awaited(runs);
        // What the mappings would be, around the runs, if every run came off.
        let mapped = runs.iter().filter(|run| run.is_mapped());
        let mut planned = self.extents.within(mapped.map(Run::with_neighbours));
        let mut more_vmas = 0_i64;
        let mut order: Vec<usize> = (0..runs.len()).filter(|&at| runs[at].is_mapped()).collect();
        // Nothing is deferred before everything that saves more has been paid for.
        order.sort_by_cached_key(|&at| {
            let run = &runs[at];
            (terms.awaits(run), Reverse((run.page_count, terms.partner_count(run))))
        });
        let mut kept = vec![true; runs.len()];
        // Slots that stay empty: nothing is planned, or pledged, for those that were to join them.
        let mut empty = IdSet::default();
        // Runs that are deferred, and what was planned before each.
        let mut deferrals: Vec<(Run, i64)> = Vec::new();
        for at in order {
            let mut slots = runs[at].shares().map(|(_, slot)| slot);
            let is_vain = slots.next().is_some_and(|slot| empty.contains(&slot));
            if is_vain && slots.all(|slot| empty.contains(&slot)) {
                deferrals.push((runs[at], more_vmas));
                outcomes.extend(runs[at].shares().map(declined));
                kept[at] = false;
                continue;
            }
            if let Some(rest) = self.cut_to_room(&mut runs[at], terms, more_vmas) {
                deferrals.push((rest, more_vmas));
                let outcome =
                    if self.has_room_later(more_vmas) { deferred_for_retry } else { deferred };
                outcomes.extend(rest.shares().map(outcome));
                empty.extend(terms.slots_of(&rest));
            }
            let run = runs[at];
            if run.page_count == 0 {
                kept[at] = false;
                continue;
            }
            let held = self.vmas.saturating_add_signed(more_vmas);
            let pledge = pledge(terms, &run, self.room_beside(more_vmas));
            let awaited = terms.awaits(&run);
            if awaited {
                self.budget.redeem(VMAS_PER_RUN);
            }
            let more = more_vmas_with(&self.space, &mut planned, &run);
            let demand = Demand { held, planned: more_vmas, more, pledge };
            let cost = pledge.saturating_add_signed(more);
            let is_paid = if terms.is_worth_it || awaited && pledge == 0 {
                self.budget.allows_at_all(&demand)
            } else {
                cost == 0
                    || self.budget.allows(worth(&run, terms.partner_count(&run), cost), &demand)
            };
            if is_paid {
                more_vmas += more;
                self.budget.pledge(pledge);
            } else {
                undo(&mut planned, &self.extents, &run);
                deferrals.push((run, more_vmas));
                outcomes.extend(run.shares().map(deferred));
                empty.extend(terms.slots_of(&run));
                kept[at] = false;
            }
        }
        let mut kept = kept.into_iter();
        runs.retain(|_| kept.next().unwrap_or(true));
        // Those that were paid for before the pages that were to fill their slots were deferred.
        let in_vain = take_out(runs, &empty);
        // What they would have added is no room that others may find later.
        let mut unused = 0;
        if !in_vain.is_empty() {
            let kept_vmas = self.more_vmas(runs);
            unused = (more_vmas - kept_vmas).max(0);
            outcomes.extend(in_vain.iter().flat_map(Run::shares).map(declined));
            deferrals.extend(in_vain.into_iter().map(|run| (run, more_vmas)));
        }
        for (run, planned) in deferrals {
            self.defer(&run, planned - unused);
        }
    }

    /// What runs add to the mappings. O((runs + extents under them) · log).
    fn more_vmas(&self, runs: &[Run]) -> i64 {
        let mapped = || runs.iter().filter(|run| run.is_mapped());
        let mut planned = self.extents.within(mapped().map(Run::with_neighbours));
        mapped().map(|run| more_vmas_with(&self.space, &mut planned, run)).sum()
    }

    /// Mappings that there are for single pages beside `planned` ones, but while others lack some, no more than the
    /// VM lacks of its share.
    fn room_beside(&self, planned: i64) -> u64 {
        let held = self.vmas.saturating_add_signed(planned);
        let room = self.budget.room(held, 1).saturating_add_signed(-planned);
        room.min(self.budget.room_within_share(held))
    }

    /// Whether the VM may take what comes back of mappings that are pledged: it is not kept to its share, nor to
    /// half of it while another has less.
    fn has_room_later(&self, planned: i64) -> bool {
        let held = self.vmas.saturating_add_signed(planned);
        !self.budget.is_to_leave_the_rest(held)
            && self.budget.room_within_share(held) > self.budget.room(held, 1)
    }

    /// Shortens a run whose partners lie in more runs than there are mappings for, or than its VM is entitled to
    /// while others lack some, and returns the rest: a part of it can be paid for. That is all of it if there are
    /// none, but some are pledged: what comes back of them is there for the whole run, and a page by itself would
    /// take a mapping more.
    fn cut_to_room(&self, run: &mut Run, terms: &Terms, planned: i64) -> Option<Run> {
        let run_count = (self.room_beside(planned) / VMAS_PER_RUN).saturating_sub(1);
        let mut begun = 0;
        let mut over = terms.partner_runs(run).filter(|&(linear, runs)| {
            begun += u64::from(runs);
            begun > run_count && runs > 0 && linear > run.linear
        });
        let mut page_count = over.next()?.0.0 - run.linear.0;
        drop(over);
        if page_count == 1 && run_count == 0 && self.budget.has_pledged() {
            page_count = 0;
        }
        let rest = run.part(page_count, run.page_count - page_count);
        *run = run.part(0, page_count);
        Some(rest)
    }
}

/// Mappings that the partners of a run's creators need: of all, or of as many as there is `room` for beside the run's
/// own, but of one for each at least.
fn pledge(terms: &Terms, run: &Run, room: u64) -> u64 {
    let begun = terms.partner_runs(run).filter(|&(_, runs)| runs > 0);
    let (least, all) =
        begun.fold((0, 0), |(least, all), (_, runs)| (least + 1, all + u64::from(runs)));
    VMAS_PER_RUN * (room / VMAS_PER_RUN).saturating_sub(1).clamp(least, all)
}

/// The pages that a run shares for each mapping on each side, of its own and its `partners`', when all cost so much.
fn worth(run: &Run, partners: u64, cost: u64) -> u32 {
    let pages = u64::from(run.page_count);
    let sides = 1 + partners.div_ceil(pages);
    let worth = (pages + partners) * VMAS_PER_RUN / cost.max(sides * VMAS_PER_RUN);
    u32::try_from(worth.max(1)).unwrap_or(u32::MAX)
}

/// Takes the pages that were to join slots that stay empty out of runs, and returns them. O(pages).
fn take_out(runs: &mut Vec<Run>, empty: &IdSet<Slot>) -> Vec<Run> {
    if empty.is_empty() {
        return Vec::new();
    }
    let parts = std::mem::take(runs).into_iter().flat_map(|run| run.parts_over(empty));
    let mut in_vain = Vec::new();
    for (part, stays_empty) in parts {
        if stays_empty { &mut in_vain } else { &mut *runs }.push(part);
    }
    in_vain
}

/// Makes extents what they are in `original` for the pages of a run.
fn undo(planned: &mut ExtentMap, original: &ExtentMap, run: &Run) {
    planned.remove(run.linear, run.page_count, |_| {});
    for extent in original.overlapping(run.linear, run.end()) {
        planned.insert(extent, |_| {});
    }
}
