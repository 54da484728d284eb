//! Waiting until what is not to be folded any more has been given its own memory.

use std::thread;
use std::time::{Duration, Instant};

use pagefold_api::ApiClient;
use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{Run, VmId};

use super::failure::Failure;
use super::socket::no_answer;

/// How often the socket is polled.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long nothing may get less before the waiting is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until nothing is shared, or waits to be: the end of `run=2`.
pub(super) fn for_all(client: &ApiClient) -> Result<(), Failure> {
    until(client, |stats| {
        if stats.knobs.run != Run::Unmerge {
            let what = format!("run was set to {} meanwhile", u32::from(stats.knobs.run));
            let advice = "set run=2 again to unmerge everything";
            return Err(Failure::new(what, advice));
        }
        let unmerging: u64 = stats.vms.iter().map(|vm| vm.unmerging_pages).sum();
        Ok(unmerging + stats.pages_shared + stats.pages_unshared)
    })
}

/// Waits until all of a VM is as its mode and its ranges demand.
pub(super) fn for_vm(client: &ApiClient, vm: VmId) -> Result<(), Failure> {
    until(client, |stats| {
        let vm = stats.vms.iter().find(|one| one.id == vm.0);
        // One that has ended meanwhile has no memory any more.
        Ok(vm.map_or(0, |vm| vm.unmerging_pages))
    })
}

/// Waits until `left` returns 0.
fn until(
    client: &ApiClient,
    left: impl Fn(&DedupStats) -> Result<u64, Failure>,
) -> Result<(), Failure> {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let stats = client.dedup();
        let stats = stats.map_err(|error| {
            no_answer("it is set, but whether it is done cannot be said", &error)
        })?;
        let left = left(&stats)?;
        if left == 0 {
            return Ok(());
        }
        if left < least {
            (least, since) = (left, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(Failure::new(
                format!(
                    "it is set, but {left} pages have not got their own memory, and none has within \
                     {} s",
                    PATIENCE.as_secs()
                ),
                "see whether there is memory for them, and the log of the process that runs the VMs",
            ));
        }
        thread::sleep(INTERVAL);
    }
}
