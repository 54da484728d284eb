//! `pagefold run`: launch VMs, fold them, and report what that saved.
//!
//! A run goes through these phases; SIGINT, SIGTERM or SIGHUP ends whichever it is in early, the launch
//! before them too:
//!
//! 1. the guests fill their memory and report that they are ready;
//! 2. they work, for the time of `--for`;
//! 3. with `--settle` they are put to rest: they stop writing, and go on verifying;
//! 4. with `--settle` folding goes on until a pass finds nothing more to do;
//! 5. the numbers are taken;
//! 6. the guests verify every page once more and end.

mod events;
mod launch;
mod launched;
mod phases;
mod plan;
mod progress;
mod report;
mod signals;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use pagefold::config::DiskConfig;
use pagefold_dedup::DedupMode;
use pagefold_guest::workload::Preset;

use super::failure::{Advise, Failure};
use super::knobs::Setting;
use super::number::{large, small, vm_count};
use super::size::Size;
use super::{Outcome, print};
use events::Events;
use plan::Plan;
use progress::Display;

/// What a kernel prints goes to the log, and when it panics its VM ends.
const DEFAULT_CMDLINE: &str = "console=ttyS0 panic=-1";

/// What `pagefold run` takes.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// How many VMs
    #[arg(short = 'n', value_name = "N", default_value_t = 2, value_parser = vm_count)]
    count: u32,
    /// Memory of each VM, as in 64M or 1.5G; K, M and G are binary. The built-in guest takes 4M to 3G
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    memory: Size,
    /// What the guests do: builtin:idle, builtin:mix or builtin:churn
    #[arg(long, value_name = "builtin:NAME", default_value_t = Preset::Mix)]
    guest: Preset,
    /// Boot this Linux kernel, an ELF image (vmlinux) or a bzImage, instead of the built-in guest
    #[arg(long, value_name = "PATH", conflicts_with_all = ["guest", "seed", "settle"])]
    kernel: Option<PathBuf>,
    /// The kernel's first file system
    #[arg(long, value_name = "PATH", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = DEFAULT_CMDLINE)]
    cmdline: String,
    /// Give the guest an entropy source (/dev/hwrng to Linux)
    #[arg(long, requires = "kernel")]
    rng: bool,
    /// Give the guest a disk (/dev/vda to Linux): a raw image or a block device. With readonly=on VMs can share it;
    /// once for each disk
    #[arg(long = "disk", value_name = "path=FILE[,readonly=on]", requires = "kernel")]
    disks: Vec<DiskConfig>,
    /// vCPUs of each VM; the built-in guest has one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = small)]
    cpus: u32,
    /// How long the guests work once all are ready, as in 20s or "1m 30s"; without it, until SIGINT,
    /// SIGTERM or SIGHUP
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Before the numbers are taken, let the guests rest and fold until nothing is left to do
    #[arg(long)]
    settle: bool,
    /// Guests of the same seed have the same common pages
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = large)]
    seed: u64,
    /// Serve the control socket there, for `pagefold stats` or curl --unix-socket
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Fold all (on), give back zero pages only (zero), or nothing (off)
    #[arg(long, value_name = "MODE", default_value_t = DedupMode::On)]
    dedup: DedupMode,
    /// A knob of KSM's and its value to begin with, as in `--knob max_page_sharing=64`; `pagefold
    /// set` changes them later
    #[arg(long = "knob", value_name = "KEY=VALUE")]
    knobs: Vec<Setting>,
    /// Launch even if the VMs together have more memory than is available
    #[arg(long)]
    overcommit: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// Launches, waits, and reports.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    let plan = Plan::new(args)?;
    // Before anything is made: what listens to signals is a thread already.
    launch::check_limits(&plan)?;
    // Before anything that would have to be cleaned up is there.
    let mut events = Events::new()?;
    let mut display = Display::new(plan.json);
    let launched = launch::launch(&plan, &events, &mut display)?;
    let report = phases::all(&plan, &launched, &mut events, &mut display)?;
    if args.json {
        let json = serde_json::to_string(&report)
            .advise("cannot write the report as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
    } else {
        print(&table::text(&report))?;
    }
    Ok(report.outcome())
}
