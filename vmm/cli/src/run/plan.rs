//! A run as its command line has it, checked as far as that can be done without launching anything.

use std::path::PathBuf;
use std::time::Duration;

use pagefold::BuildError;
use pagefold::config::{BuiltinGuest, Guest, LinuxGuest, PcDevices, VmConfig};
use pagefold::limits::room::VmShape;
use pagefold::loader::{BuiltinError, LinuxError};
use pagefold_dedup::{DedupMode, Knobs, Run};

use super::Args;
use crate::demand::Demand;
use crate::failure::Failure;
use crate::knobs::knobs_with;

/// A run that makes sense.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) count: u32,
    pub(super) memory_bytes: u64,
    guest: Guest,
    vcpus: u32,
    pub(super) duration: Option<Duration>,
    pub(super) settle: bool,
    pub(super) api_socket: Option<PathBuf>,
    pub(super) dedup: DedupMode,
    pub(super) knobs: Knobs,
    pub(super) overcommit: bool,
    pub(super) json: bool,
}

impl Plan {
    /// Checks a command line.
    pub(super) fn new(args: &Args) -> Result<Self, Failure> {
        let memory_bytes = args.memory.0;
        let guest = guest(args);
        let vm = VmConfig {
            memory_bytes,
            vcpus: args.cpus,
            guest: guest.clone(),
            dedup: args.dedup,
            name: None,
        };
        if let Some(disk) = args.disks.iter().find(|disk| args.count > 1 && !disk.readonly) {
            return Err(Failure::usage(
                format!("the disk {} cannot be written by {} VMs", disk.path.display(), args.count),
                "share it with readonly=on, or run one VM (-n 1)",
            ));
        }
        vm.check().map_err(|error| refused(args, &error))?;
        if args.duration == Some(Duration::ZERO) {
            return Err(Failure::usage("--for 0s leaves no time to run", "give at least --for 1s"));
        }
        let knobs = knobs_with(&args.knobs)?;
        if args.settle && knobs.run != Run::Fold {
            return Err(Failure::usage(
                "--settle would wait for ever: nothing is folded while run is not 1",
                "leave out --settle, or --knob run",
            ));
        }
        Ok(Self {
            count: args.count,
            memory_bytes,
            guest,
            vcpus: args.cpus,
            duration: args.duration,
            settle: args.settle,
            api_socket: args.api_socket.clone(),
            dedup: args.dedup,
            knobs,
            overcommit: args.overcommit,
            json: args.json,
        })
    }

    /// What it takes.
    pub(super) fn demand(&self) -> Demand {
        let Self { count, vcpus, memory_bytes, dedup, .. } = *self;
        let shape = VmShape {
            vcpus,
            event_descriptors: self.guest.event_descriptors(),
            disks: self.guest.disks(),
        };
        Demand { count, shape, memory_bytes, dedup }
    }

    /// What VM `vm_number` is to be.
    pub(super) fn vm(&self, vm_number: u32) -> VmConfig {
        let guest = match &self.guest {
            Guest::Builtin(builtin) => Guest::Builtin(BuiltinGuest { vm_number, ..*builtin }),
            other => other.clone(),
        };
        let Self { memory_bytes, vcpus, dedup, .. } = *self;
        VmConfig { memory_bytes, vcpus, guest, dedup, name: None }
    }

    /// Whether the guests report what they do, and can be commanded to end.
    pub(super) fn is_builtin(&self) -> bool {
        matches!(self.guest, Guest::Builtin(_))
    }
}

/// What is to run in each VM; of the built-in guest, in the first.
fn guest(args: &Args) -> Guest {
    match &args.kernel {
        Some(kernel) => Guest::Linux(LinuxGuest {
            kernel: kernel.clone(),
            initrd: args.initrd.clone(),
            cmdline: args.cmdline.clone(),
            devices: PcDevices { rng: args.rng, disks: args.disks.clone() },
        }),
        None => Guest::Builtin(BuiltinGuest { preset: args.guest, vm_number: 0, seed: args.seed }),
    }
}

/// Why there can be no such VM, by the option that it comes from.
fn refused(args: &Args, error: &BuildError) -> Failure {
    match error {
        BuildError::Vcpus { .. }
        | BuildError::Builtin(BuiltinError::Vcpus { .. })
        | BuildError::Linux(LinuxError::Vcpus { .. }) => Failure::usage(
            format!("--cpus {} does not do: {error}", args.cpus),
            "leave it out for one vCPU",
        ),
        BuildError::VirtioDevices { .. } => {
            Failure::usage(error.to_string(), "give fewer --disk options")
        }
        BuildError::Disk(error) => {
            Failure::caused("cannot use a disk", error, "see --disk in `pagefold run --help`")
        }
        BuildError::Linux(error) => Failure::caused(
            "cannot boot this kernel",
            error,
            "see --kernel, --initrd, --cmdline and --memory in `pagefold run --help`",
        ),
        _ => Failure::usage(
            format!("--memory {} does not do: {error}", args.memory),
            "the default, 64M, suits every built-in guest",
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pagefold_guest::workload::Preset;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &[&str]) -> Result<Plan, String> {
        let line = [&["run"], line].concat();
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        Plan::new(&line.args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_bare_run_has_two_vms_of_64_mib_that_mix() {
        let plan = plan(&[]).expect("a plan");
        assert_eq!((plan.count, plan.demand().all_memory_bytes()), (2, 128 << 20));
        let guest = BuiltinGuest { preset: Preset::Mix, vm_number: 1, seed: 1 };
        assert_eq!(plan.vm(1), VmConfig::builtin(64 << 20, guest));
        assert_eq!(plan.duration, None);
    }

    #[test]
    fn everything_can_be_said() {
        let plan = plan(&[
            "-n",
            "8",
            "--memory",
            "1G",
            "--guest",
            "builtin:churn",
            "--for",
            "1m 30s",
            "--settle",
            "--seed",
            "7",
            "--api-socket",
            "/s",
            "--dedup",
            "zero",
            "--overcommit",
            "--knob",
            "max_page_sharing=64",
            "--knob",
            "sleep_millisecs=0",
            "--json",
        ])
        .expect("a plan");
        assert_eq!((plan.count, plan.memory_bytes), (8, 1 << 30));
        assert_eq!(plan.duration, Some(Duration::from_secs(90)));
        assert_eq!(plan.vm(3).dedup, DedupMode::Zero);
        assert!(plan.settle && plan.overcommit);
        assert_eq!((plan.knobs.max_page_sharing, plan.knobs.sleep_millisecs), (64, 0));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_what_does() {
        for (line, part) in [
            (&["-n", "0"][..], "1..=4096"),
            (&["--memory", "64MB"], "64M, 1G or 1024K"),
            (&["--memory", "4K"], "--memory 4K does not do"),
            (&["--memory", "4G"], "at most 3072 MiB of memory, and 4096 MiB"),
            (&["--guest", "linux"], "builtin:mix"),
            (&["--for", "20"], "time unit needed"),
            (&["--for", "0s"], "at least --for 1s"),
            (&["--dedup", "maybe"], "off, zero, on"),
            (&["--seed", "x"], "invalid"),
            (&["--knob", "run"], "KEY=VALUE"),
            (&["--knob", "max_page_sharing=1"], "from 2 to"),
            (&["--knob", "pages_to_skip=1"], "pages_to_scan"),
            (&["--knob", "run=0", "--settle"], "leave out --settle"),
            (&["--cpus", "2"], "runs on one vCPU, and 2 were"),
            (&["--cpus", "0"], "1 to 255 vCPUs"),
            (&["--initrd", "/x"], "--kernel"),
            (&["--kernel", "/x", "--guest", "builtin:mix"], "cannot be used with"),
            (&["--disk", "path=/x"], "--kernel"),
            (&["--kernel", "/x", "--disk", "/x"], "path=FILE"),
            (&["--kernel", "/x", "--disk", "path=/x"], "cannot be written by 2 VMs"),
            (
                &["-n1", "--kernel", "/x", "--disk", "path=/nowhere"],
                "cannot open the disk /nowhere",
            ),
            (&["--kernel", "/x", "--disk", "path=/,readonly=on"], "the disk / is a directory"),
            (
                &[&["--kernel", "/x"][..], &["--disk=path=/x,readonly=on"; 20]].concat(),
                "at most 19",
            ),
            (&["--kernel", "/nowhere"], "cannot read the kernel /nowhere"),
            (&["--kernel", "/"], "the kernel / is not a regular file"),
        ] {
            let error = plan(line).expect_err("no plan");
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }
}
