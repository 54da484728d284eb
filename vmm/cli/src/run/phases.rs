//! The phases of a run.

use std::time::{Duration, Instant};

use pagefold::dedup_host::SettleError;
use pagefold::status::VmState;
use pagefold::{VmHandle, WaitError};
use pagefold_dedup::PAGE_SIZE;
use pagefold_guest::ports::Control;

use super::events::{Events, Why};
use super::launched::Launched;
use super::plan::Plan;
use super::progress::{Display, Progress};
use super::report::{Memory, Report, Settling, VmReport, saveable_bytes};
use crate::failure::Failure;
use crate::process;

/// How long all guests together may take to be ready: many seconds for many VMs on few processors.
const READY_LIMIT: Duration = Duration::from_mins(2);

/// How long all guests together may take to rest.
const REST_LIMIT: Duration = Duration::from_secs(15);

/// How often a guest that is waited for is looked at.
const STATE_INTERVAL: Duration = Duration::from_millis(500);

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
    display: &mut Display,
) -> Result<Report, Failure> {
    let mut progress = Progress::new(launched, display);
    events.watch(launched.vms.clone())?;
    let mut settling = if plan.settle { Settling::CutShort } else { Settling::NotAsked };
    let was_launching = events.is_interrupted();
    // Others than the built-in guest need not report anything.
    if !plan.is_builtin() || ready(launched, events, &mut progress)? {
        let why = events.wait(plan.duration, || progress.show("running"));
        log::info!("the guests' work is over: {why:?}");
        if plan.settle && why != Why::AllEnded {
            // A signal meanwhile ends the run: it is not waited for what is left to fold.
            if rest(launched, events, &mut progress)? {
                settling = settle(launched, events, &mut progress)?;
            }
        }
        if events.is_interrupted() {
            log::warn!("interrupted; ending {} VMs", count_alive(launched));
        }
    } else {
        log::warn!("interrupted; ending {} VMs", count_alive(launched));
        if was_launching {
            stop_all(launched, events, &mut progress)?;
        }
    }
    let mut report = measure(launched, settling);

    let finished = if plan.is_builtin() {
        finish(launched, events, &mut progress)?
    } else {
        stop_all(launched, events, &mut progress)?;
        vec![true; launched.vms.len()]
    };
    progress.clear();
    report.vms = launched
        .vms
        .iter()
        .zip(finished)
        .map(|(vm, finished)| VmReport { status: vm.status(), finished })
        .collect();
    Ok(report)
}

/// Waits until every guest is ready, has had its time, or is paused. False if a signal comes first.
fn ready(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<bool, Failure> {
    let vms = launched.vms.clone();
    let unready = move || {
        let end = Instant::now() + READY_LIMIT;
        let wait = |vm| wait_unless_paused(vm, end, READY_LIMIT, VmHandle::wait_ready).err();
        vms.iter().filter_map(wait).collect::<Vec<_>>()
    };
    let Some(errors) = events.wait_for(unready, || progress.show("starting"))? else {
        return Ok(false);
    };
    for error in errors {
        log::warn!("{error}");
    }
    Ok(true)
}

/// Stops the VMs of a launch that was interrupted, before any numbers are taken: hundreds of guests that go on
/// filling their memory would hold up every request to folding, the ends of VMs among it, for minutes.
fn stop_all(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let host = launched.host.clone();
    events.wait_for(move || host.stop_all(), || progress.show("ending")).map(drop)
}

/// Commands VMs to stop whose guests are not ready, and does not wait: what a guest has not filled it cannot
/// verify.
fn stop_unready(vms: &[VmHandle]) {
    let unready = |vm: &&VmHandle| vm.wait_ready(Duration::ZERO).is_err();
    vms.iter().filter(unready).for_each(VmHandle::request_stop);
}

fn count_alive(launched: &Launched) -> usize {
    launched.vms.iter().filter(|vm| vm.state() != VmState::Stopped).count()
}

/// Makes the guests stop writing. False if a signal comes first.
fn rest(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<bool, Failure> {
    let vms = launched.vms.clone();
    command(&vms, Control::Rest);
    let restless = move || {
        let end = Instant::now() + REST_LIMIT;
        let wait = |vm| wait_unless_paused(vm, end, REST_LIMIT, wait_resting).err();
        vms.iter().filter_map(wait).collect::<Vec<_>>()
    };
    let Some(errors) = events.wait_for(restless, || progress.show("resting"))? else {
        return Ok(false);
    };
    for error in errors {
        log::warn!("{error}");
    }
    Ok(true)
}

/// Waits until a guest rests or its VM has ended: how one has ended that does not rest is in the report.
fn wait_resting(vm: &VmHandle, limit: Duration) -> Result<(), WaitError> {
    match vm.wait_resting(limit) {
        Err(WaitError::Stopped { .. }) => Ok(()),
        result => result,
    }
}

/// Waits for a guest until `end`, which is `limit` after it was begun to wait for all; returns why in vain, at
/// once if its VM is paused.
fn wait_unless_paused<T>(
    vm: &VmHandle,
    end: Instant,
    limit: Duration,
    wait: impl Fn(&VmHandle, Duration) -> Result<T, WaitError>,
) -> Result<T, String> {
    loop {
        let is_paused = vm.state() == VmState::Paused;
        let left = end.saturating_duration_since(Instant::now());
        let interval = if is_paused { Duration::ZERO } else { left.min(STATE_INTERVAL) };
        match wait(vm, interval) {
            Err(WaitError::TimedOut { vm, awaited, .. }) if is_paused => {
                return Err(format!(
                    "VM {vm} is paused: that its guest is {awaited} is not waited for"
                ));
            }
            Err(WaitError::TimedOut { .. }) if left > STATE_INTERVAL => {}
            Err(WaitError::TimedOut { vm, awaited, .. }) => {
                return Err(WaitError::TimedOut { vm, awaited, timeout: limit }.to_string());
            }
            result => return result.map_err(|error| error.to_string()),
        }
    }
}

/// Folds until nothing is left to do.
fn settle(
    launched: &Launched,
    events: &mut Events,
    progress: &mut Progress<'_>,
) -> Result<Settling, Failure> {
    let dedup = launched.host.dedup().clone();
    let settled =
        events.wait_for(move || dedup.settle(SETTLE_LIMIT), || progress.show("settling"))?;
    match settled {
        Some(Ok(report)) => Ok(Settling::Ended(report)),
        Some(Err(SettleError::TimedOut(report))) => {
            log::warn!("folding has not settled within {} s", SETTLE_LIMIT.as_secs());
            Ok(Settling::Ended(report))
        }
        // Somebody stopped it through the control socket, or it has ended.
        Some(Err(error)) => {
            log::error!("{error}");
            Ok(Settling::Stopped)
        }
        None => Ok(Settling::CutShort),
    }
}

/// Takes the numbers.
fn measure(launched: &Launched, settling: Settling) -> Report {
    let dedup = launched.host.dedup().stats().inspect_err(|gone| log::error!("{gone}")).ok();
    // Those that have ended hold nothing, and nothing of theirs could be saved.
    let alive: Vec<_> = launched.vms.iter().filter(|vm| vm.state() != VmState::Stopped).collect();
    // What was held for the last VM is unknown by now; it was not 0.
    let held = dedup.as_ref().filter(|_| !alive.is_empty());
    let saved_bytes = held.map(|dedup| dedup.saved_bytes);
    let workload_saved_bytes = workload_saved_bytes(&alive);
    Report {
        vms: Vec::new(),
        memory: Memory {
            guest_bytes: (!alive.is_empty())
                .then(|| alive.iter().map(|vm| vm.config().memory_bytes).sum()),
            resident_bytes: held.and_then(|dedup| dedup.resident_bytes),
            saved_bytes,
            ideal_saved_bytes: workload_saved_bytes
                .map(|workload| saveable_bytes(saved_bytes.unwrap_or(0), workload)),
            workload_saved_bytes,
            process_pss_bytes: process::pss_bytes(),
        },
        dedup,
        settle: settling.report(),
        settling,
        elapsed_s: launched.started.elapsed().as_secs_f64(),
        cpu_s: process::cpu_time().map(|time| time.as_secs_f64()),
    }
}

/// What could be saved of VMs of one workload by its parameters; `None` of none.
fn workload_saved_bytes(vms: &[&VmHandle]) -> Option<u64> {
    let params = vms.first()?.params()?;
    Some(params.ideal_saved_pages(vms.len() as u64) * PAGE_SIZE as u64)
}

/// Lets the guests verify everything and end, and stops those that do not. Returns for each whether it
/// ended in its time, or as it was commanded to.
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
    if events.is_interrupted() {
        stop_unready(&vms);
    }
    command(&vms, Control::Finish);
    let limit = FINISH_LIMIT + Duration::from_secs(launched.memory_bytes() / FINISH_BYTES_PER_S);
    let wait = move || {
        let end = Instant::now() + limit;
        let wait = |vm: &VmHandle| vm.wait(end.saturating_duration_since(Instant::now()));
        vms.iter().map(|vm| wait(vm).is_some()).collect::<Vec<_>>()
    };
    let finished = events.wait_for(wait, || progress.show("verifying"))?;
    // Whoever sends a signal now has them stopped, which is no failure of theirs.
    let finished = finished.unwrap_or_else(|| {
        let count = count_alive(launched);
        log::warn!("interrupted; {count} VMs end before they have verified all their memory");
        vec![true; launched.vms.len()]
    });
    launched.host.stop_all();
    Ok(finished)
}

/// Commands all guests that are still there.
fn command(vms: &[VmHandle], control: Control) {
    for vm in vms.iter().filter(|vm| vm.state() != VmState::Stopped) {
        if let Err(error) = vm.set_control(control) {
            log::info!("{error}");
        }
    }
}
