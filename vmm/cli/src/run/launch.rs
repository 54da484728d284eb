//! From a plan to running VMs and a control socket.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagefold::config::DedupConfig;
use pagefold::limits::RoomError;
use pagefold::memory::HostMemoryPool;
use pagefold::{BuildError, Host, HostConfig, OperationError, StopReason, VmHandle};
use pagefold_api::{ApiServer, BindError, SocketError};
use pagefold_dedup::EngineConfig;

use super::events::Events;
use super::launched::Launched;
use super::plan::Plan;
use super::progress::Display;
use crate::failure::{Advise, Failure};

/// How long the end of a VM may take whose thread has ended already.
const END_LIMIT: Duration = Duration::from_mins(1);

/// Launches all VMs or none, or, if a signal comes meanwhile, builds and starts no more: what there is
/// then is ended with the run.
pub(super) fn launch(
    plan: &Plan,
    events: &Events,
    display: &mut Display,
) -> Result<Launched, Failure> {
    let started = Instant::now();
    let host = host(plan)?;
    host.check_room_for(plan.demand().all_memory_bytes()).advise(
        "not enough memory",
        "lower -n or --memory, or add --overcommit and rely on folding",
    )?;
    let api = plan.api_socket.as_deref().map(|path| serve(path, &host)).transpose()?;
    let go_on = || !events.is_interrupted();
    let mut vms = Vec::new();
    for vm_number in (0..plan.count).take_while(|_| go_on()) {
        let vm = host.vm(plan.vm(vm_number)).build();
        let vm =
            vm.map_err(|error| Failure::caused("cannot build a VM", &error, advice(&error)))?;
        vms.push(vm);
        display.show_launch(vms.len(), plan.count, "built");
    }
    let mut started_count = 0;
    for vm in vms.iter().take_while(|_| go_on()) {
        display.show_launch(started_count, plan.count, "started");
        started_count += usize::from(start(vm)?);
    }
    if go_on() {
        log::info!("{} VMs are running", vms.len());
    } else {
        log::warn!("interrupted: {started_count} of {} VMs were started", plan.count);
    }
    Ok(Launched { started, vms, api, host })
}

/// Starts a VM; false if it has been stopped through the control socket, which is no failure of the run's.
fn start(vm: &VmHandle) -> Result<bool, Failure> {
    match vm.start() {
        Err(error @ OperationError::Stopped { .. }) if is_stopped_on_request(vm) => {
            log::info!("{error}");
            Ok(false)
        }
        result => result
            .map(|()| true)
            .advise("cannot start a VM", "see the log above, or RUST_LOG=debug for more"),
    }
}

/// Whether somebody has stopped a VM that has ended, or is ending.
fn is_stopped_on_request(vm: &VmHandle) -> bool {
    vm.wait(END_LIMIT) == Some(StopReason::Requested)
}

/// Refuses what would fail, or be ended by the kernel, half way.
pub(super) fn check_limits(plan: &Plan) -> Result<(), Failure> {
    let demand = plan.demand();
    let memory = HostMemoryPool::of_process(plan.overcommit);
    let lacks_memory = memory.check_room_for(demand.all_memory_bytes()).is_err();
    let is_reported = |error: &&RoomError| match error {
        // The kernel refuses too much of it before any guest runs, and how much it takes is known roughly.
        RoomError::PrivateMemory { .. } => false,
        // Want of memory is reported instead, when they are launched: fewer VMs need fewer mappings, too.
        RoomError::Mappings { .. } => !lacks_memory,
        _ => true,
    };
    match demand.lacking().iter().find(is_reported) {
        Some(error) => Err(Failure::limited("cannot run these VMs", error)),
        None => Ok(()),
    }
}

fn host(plan: &Plan) -> Result<Host, Failure> {
    let engine = EngineConfig { knobs: plan.knobs, ..EngineConfig::default() };
    let dedup = DedupConfig { engine, ..DedupConfig::default() };
    let config = HostConfig { overcommit: plan.overcommit, dedup };
    Host::new(config).advise("cannot run VMs here", "`pagefold doctor` checks all that is needed")
}

fn serve(path: &Path, host: &Host) -> Result<ApiServer, Failure> {
    ApiServer::bind(path, Arc::new(host.clone())).map_err(|error| {
        let advice = match &error {
            BindError::Socket(SocketError::InUse { .. }) => {
                "give another --api-socket, or end the process that has this one"
            }
            BindError::Socket(SocketError::NotASocket { .. }) => {
                "give another --api-socket; no other file is ever replaced"
            }
            BindError::Socket(SocketError::Busy { .. } | SocketError::NotALock { .. }) => {
                "give another --api-socket, or remove the lock if nobody uses it (fuser)"
            }
            BindError::Socket(_) => "give a short --api-socket in a directory you may write to",
            BindError::Thread(_) => "see the limits in `ulimit -a`",
        };
        Failure::caused("cannot serve the control socket", &error, advice)
    })
}

fn advice(error: &BuildError) -> &'static str {
    match error {
        BuildError::HostMemory(_) => "lower -n or --memory, or add --overcommit",
        BuildError::Dedup { .. } => "`pagefold doctor` says what folding lacks; or add --dedup off",
        _ => "`pagefold doctor` checks all that is needed; fewer VMs (-n) need less of it",
    }
}
