//! Folding images by ksmd.

use std::time::{Duration, Instant};

use super::others::{OtherUser, find_other, own_pages};
use super::{Counters, Knobs, KsmError, Ksmd};
use crate::fold::{Cost, load};
use crate::images::Image;
use crate::interrupt::Interrupt;
use crate::sys::mark_mergeable;

/// Scans from end to end without a page found after which everything counts as folded.
const QUIET_SCANS: u64 = 2;

/// How often the counters are looked at: how exact the times are.
const LOOK: Duration = Duration::from_millis(2);

/// How long ksmd may take.
const LIMIT: Duration = Duration::from_mins(10);

/// How ksmd did.
#[derive(Debug, Clone, Copy)]
pub struct Fold {
    /// From its start to the last page that it saved, with the time of its thread.
    pub converged: Cost,
    /// The same to the end of the second scan without another.
    pub settled: Cost,
    /// The same to the end of its first scan, which saves next to nothing: it takes the checksums by
    /// which the second knows the pages that are unchanged.
    pub first_scan: Cost,
    /// Scans to the last page saved, that one included.
    pub converged_scans: u64,
    /// KSM's error.
    pub counters: Counters,
}

impl Fold {
    /// Pages saved by sharing and by being zero.
    pub fn saved_pages(&self) -> u64 {
        self.counters.saved_pages()
    }
}

/// Has ksmd fold the images on fresh memory, flat out, until two full scans save nothing more.
/// Loading is not part of the cost. Everything is unmerged again afterwards.
///
/// # Errors
///
/// When it cannot be done, does not come to an end, or others' pages came into it.
pub fn fold(
    images: &[Image],
    knobs: &Knobs,
    ksmd: &Ksmd,
    interrupt: &Interrupt,
) -> Result<Fold, KsmError> {
    let memories = load(images).map_err(KsmError::Load)?;
    knobs.unmerge()?;
    if let Some(other) = find_other(&Counters::read()?) {
        return Err(KsmError::InUse(other));
    }
    knobs.set_flat_out(images.iter().map(|image| u64::from(image.page_count())).sum())?;
    for memory in &memories {
        mark_mergeable(memory).map_err(KsmError::Mark)?;
    }
    let result = run(knobs, ksmd, interrupt).and_then(|fold| {
        let Counters { pages_shared, pages_sharing, zero_pages, .. } = fold.counters;
        match own_pages() {
            Some(own) if own != (pages_shared + pages_sharing, zero_pages) => {
                Err(KsmError::InUse(OtherUser::Pages(fold.counters)))
            }
            _ => Ok(fold),
        }
    });
    // Memory first, so that there is little left to copy.
    drop(memories);
    knobs.unmerge()?;
    result
}

fn run(knobs: &Knobs, ksmd: &Ksmd, interrupt: &Interrupt) -> Result<Fold, KsmError> {
    let scans_before = Counters::read()?.full_scans;
    let cpu_before = ksmd.cpu_time()?;
    let started = Instant::now();
    knobs.start()?;
    let (mut converged, mut converged_scans, mut saved) = (Cost::default(), 1, 0);
    let (mut first_scan, mut scans_before_look) = (None, 0);
    loop {
        std::thread::sleep(LOOK);
        interrupt.check()?;
        let counters = Counters::read()?;
        let scans = counters.full_scans - scans_before;
        let cpu = ksmd.cpu_time()?.saturating_sub(cpu_before);
        let now = Cost { elapsed: started.elapsed(), cpu };
        if scans > 0 {
            first_scan.get_or_insert(now);
        }
        if counters.saved_pages() != saved {
            // Where a scan ended since the last look, that one found them: it may have been the
            // next, but then ksmd is held for a moment too short rather than for a scan too long.
            (converged, converged_scans) = (now, scans_before_look + 1);
            saved = counters.saved_pages();
        } else if scans >= converged_scans + QUIET_SCANS
            && let Some(first_scan) = first_scan
        {
            return Ok(Fold { converged, settled: now, first_scan, converged_scans, counters });
        } else if now.elapsed > LIMIT {
            return Err(KsmError::Timeout(LIMIT.as_secs()));
        }
        scans_before_look = scans;
    }
}
