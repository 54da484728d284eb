//! Stock Linux guests: a distribution's kernel, unmodified, booted to user space.
//!
//! They need hardware virtualization; `make host-tests` runs them, in an emulated host if need be, and names the
//! folder with what they boot from.

use std::env;
use std::path::PathBuf;

use pagefold_tests::harness::command::{Ended, Running};
use serde_json::{Value, json};

/// A guest to be booted once.
struct Boot {
    kernel: &'static str,
    cpus: u32,
    memory: &'static str,
    end: &'static str,
    /// Options of its devices.
    devices: &'static [&'static str],
}

impl Default for Boot {
    fn default() -> Self {
        Self { kernel: "vmlinux", cpus: 1, memory: "128M", end: "off", devices: &[] }
    }
}

impl Boot {
    /// Boots it, and waits for its end.
    fn run(&self) -> Ended {
        let file = |name: &str| folder().join(name).to_str().expect("UTF-8").to_owned();
        let cmdline = format!("console=ttyS0 panic=-1 end={}", self.end);
        let cpus = self.cpus.to_string();
        let (kernel, initrd) = (file(self.kernel), file("initrd"));
        let mut arguments = vec![
            "run",
            "--json",
            "-n",
            "1",
            "--memory",
            self.memory,
            "--cpus",
            &cpus,
            "--kernel",
            &kernel,
            "--initrd",
            &initrd,
            "--cmdline",
            &cmdline,
        ];
        arguments.extend(self.devices);
        Running::start(&arguments).end()
    }
}

/// Where what guests boot from is.
fn folder() -> PathBuf {
    env::var_os("PAGEFOLD_GUEST").expect("PAGEFOLD_GUEST, which `make host-tests` sets").into()
}

/// The one VM of a run that succeeded.
fn vm(ended: &Ended) -> Value {
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    ended.json()["vms"][0].clone()
}

/// The end of the guest's line that begins with `start`.
fn printed<'line>(ended: &'line Ended, start: &str) -> &'line str {
    let start = format!("VM 0 prints {start} ");
    let line = ended.stderr.iter().find_map(|line| line.split_once(&start));
    line.unwrap_or_else(|| panic!("no line with '{start}': {ended:#?}")).1.trim_end_matches("\\r")
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn a_bzimage_boots_on_two_vcpus_and_turns_itself_off() {
    let ended = Boot { kernel: "vmlinuz", cpus: 2, ..Boot::default() }.run();
    let vm = vm(&ended);
    assert_eq!(vm["stop_reason"], json!({ "kind": "powered_off" }));
    assert!(vm["ready_ms"].as_u64().is_some(), "{vm}");
    assert_eq!(vm["guest"], "linux:vmlinuz");
    assert_eq!(vm["corrupt"], Value::Null, "nobody counts that");
    assert_eq!((printed(&ended, "cpus"), printed(&ended, "clock")), ("2", "kvm-clock"));
    assert!(printed(&ended, "cmdline").ends_with("panic=-1 end=off"));
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn an_elf_image_boots_by_pvh_and_resets_itself() {
    let ended = Boot { end: "reset", ..Boot::default() }.run();
    let vm = vm(&ended);
    assert_eq!(vm["stop_reason"], json!({ "kind": "reset" }));
    assert_eq!(vm["guest"], "linux:vmlinux");
    assert_eq!(printed(&ended, "cpus"), "1");
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn a_guest_that_panics_resets_itself() {
    let ended = Boot { end: "panic", ..Boot::default() }.run();
    assert_eq!(vm(&ended)["stop_reason"], json!({ "kind": "reset" }));
    let panics = |line: &String| line.contains("Kernel panic - not syncing: sysrq triggered crash");
    assert!(ended.stderr.iter().any(panics), "{ended:#?}");
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn an_entropy_source_serves_what_the_guest_reads() {
    let ended = Boot { devices: &["--rng"], ..Boot::default() }.run();
    assert_eq!(vm(&ended)["stop_reason"], json!({ "kind": "powered_off" }));
    assert_eq!(printed(&ended, "hwrng"), "virtio_rng.0 4096");
}
