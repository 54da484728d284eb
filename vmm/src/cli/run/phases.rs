//! The phases of a run.

use std::time::{Duration, Instant};

use pagefold::VmHandle;
use pagefold::dedup_host::SettleError;
use pagefold::status::VmState;
use pagefold_dedup::{PAGE_SIZE, SettleReport};
use pagefold_guest::ports::Control;

use super::events::{Events, Why};
use super::launch::Launched;
use super::plan::Plan;
use super::progress::Progress;
use super::report::{Memory, Report, VmReport};
use crate::cli::failure::Failure;
use crate::cli::process;

/// How long all guests together may take to be ready: many seconds for many VMs on few processors.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How long all guests together may take to rest.
const REST_LIMIT: Duration = Duration::from_secs(15);

/// How long folding may take to settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// How long all guests together may take to finish, beside the time that their memory takes.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

/// Memory that guests verify in a second at least.
const FINISH_BYTES_PER_S: u64 = 64 << 20;

/// Goes through all phases, and leaves no VM running.
pub(super) fn all(
    plan: &Plan,
    launched: &Launched,
    events: &mut Events,
) -> Result<Report, Failure> {
    let mut progress = Progress::new(launched);
    events.watch(launched.vms.clone())?;
    let mut settle_report = None;
    if ready(launched, events, &mut progress)? {
        let why = events.wait(plan.duration, || progress.show("running"));
        log::info!("the guests' work is over: {why:?}");
        if plan.settle && why != Why::AllEnded {
            rest(launched, events, &mut progress)?;
            settle_report = settle(launched, events, &mut progress)?;
        }
    }
    let mut report = measure(plan, launched, settle_report);

    let finished = finish(launched, events, &mut progress)?;
    progress.clear();
    report.vms = launched
        .vms
        .iter()
        .zip(finished)
        .map(|(vm, finished)| VmReport { status: vm.status(), finished })
        .collect();
    Ok(report)
}

/// Waits until every guest is ready, or has had its time. False if a signal comes first.
fn ready(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<bool, Failure> {
    let vms = launched.vms.clone();
    let unready = move || {
        let end = Instant::now() + READY_LIMIT;
        let wait = |vm: &VmHandle| vm.wait_ready(end.saturating_duration_since(Instant::now()));
        vms.iter().filter_map(|vm| wait(vm).err()).collect::<Vec<_>>()
    };
    let Some(errors) = events.wait_for(unready, || progress.show("starting"))? else {
        return Ok(false);
    };
    for error in errors {
        log::warn!("{error}");
    }
    Ok(true)
}

/// Makes the guests stop writing.
fn rest(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let vms = launched.vms.clone();
    tell(&vms, Control::Rest);
    let restless = move || {
        let end = Instant::now() + REST_LIMIT;
        let wait = |vm: &VmHandle| vm.wait_resting(end.saturating_duration_since(Instant::now()));
        vms.iter().filter_map(|vm| wait(vm).err()).collect::<Vec<_>>()
    };
    for error in events.wait_for(restless, || progress.show("resting"))?.unwrap_or_default() {
        log::warn!("{error}");
    }
    Ok(())
}

/// Folds until nothing is left to do. `None` if that was cut short, or nothing is folded.
fn settle(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<Option<SettleReport>, Failure> {
    let dedup = launched.host.dedup().clone();
    let settled =
        events.wait_for(move || dedup.settle(SETTLE_LIMIT), || progress.show("settling"))?;
    match settled {
        Some(Ok(report)) => Ok(Some(report)),
        Some(Err(SettleError::TimedOut(report))) => {
            log::warn!("folding has not settled within {} s", SETTLE_LIMIT.as_secs());
            Ok(Some(report))
        }
        // Somebody stopped it through the control socket, or it has ended.
        Some(Err(error)) => {
            log::error!("{error}");
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Takes the numbers.
fn measure(plan: &Plan, launched: &Launched, settle: Option<SettleReport>) -> Report {
    let dedup = launched.host.dedup().stats().inspect_err(|gone| log::error!("{gone}")).ok();
    let ideal_saved_pages = launched.vms.first().and_then(|vm| vm.params());
    let ideal_saved_pages =
        ideal_saved_pages.map(|params| params.ideal_saved_pages(launched.vms.len() as u64));
    // Guests that folding knows nothing of are in no figure of its own; those that have ended hold
    // nothing.
    let alive = launched.vms.iter().filter(|vm| vm.state() != VmState::Stopped).count();
    let resident_bytes = dedup
        .as_ref()
        .filter(|dedup| dedup.vms.len() >= alive)
        .and_then(|dedup| dedup.resident_bytes);
    Report {
        vms: Vec::new(),
        memory: Memory {
            guest_bytes: launched.memory_bytes(),
            resident_bytes,
            saved_bytes: dedup.as_ref().map(|dedup| dedup.saved_bytes),
            ideal_saved_bytes: ideal_saved_pages.map(|pages| pages * PAGE_SIZE as u64),
            process_pss_bytes: process::pss_bytes(),
        },
        dedup,
        settle,
        asked_to_settle: plan.settle,
        elapsed_s: launched.started.elapsed().as_secs_f64(),
        cpu_s: process::cpu_time().map(|time| time.as_secs_f64()),
    }
}

/// Lets the guests verify everything and end, and stops those that do not. Says for each whether it
/// ended without being stopped.
fn finish(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<Vec<bool>, Failure> {
    let vms = launched.vms.clone();
    // One that was paused through the control socket would never get there.
    for vm in &vms {
        let _ended = vm.resume();
    }
    tell(&vms, Control::Finish);
    let limit = FINISH_LIMIT + Duration::from_secs(launched.memory_bytes() / FINISH_BYTES_PER_S);
    let wait = move || {
        let end = Instant::now() + limit;
        let wait = |vm: &VmHandle| vm.wait(end.saturating_duration_since(Instant::now()));
        vms.iter().map(|vm| wait(vm).is_some()).collect::<Vec<_>>()
    };
    let finished = events.wait_for(wait, || progress.show("verifying"))?;
    let finished = finished.unwrap_or_else(|| {
        launched.vms.iter().map(|vm| vm.wait(Duration::ZERO).is_some()).collect()
    });
    launched.host.stop_all();
    Ok(finished)
}

/// Tells all guests that are still there.
fn tell(vms: &[VmHandle], control: Control) {
    for vm in vms {
        if let Err(error) = vm.set_control(control) {
            log::info!("{error}");
        }
    }
}
