//! Stock Linux guests: a distribution's kernel, unmodified, booted to user space.
//!
//! They need hardware virtualization; `make host-tests` runs them, in an emulated host if need be, and names the
//! folder with what they boot from.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pagefold_tests::harness::command::{Ended, Running};
use serde_json::{Value, json};

/// A guest to be booted once.
struct Boot {
    kernel: &'static str,
    cpus: u32,
    memory: &'static str,
    end: &'static str,
    /// Words of its command line besides.
    words: &'static str,
    /// How many of them.
    count: &'static str,
    /// Options of their devices, and of the run.
    devices: &'static [&'static str],
    disks: Vec<String>,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            kernel: "vmlinux",
            cpus: 1,
            memory: "128M",
            end: "off",
            words: "",
            count: "1",
            devices: &[],
            disks: Vec::new(),
        }
    }
}

impl Boot {
    /// Boots it, and waits for its end.
    fn run(&self) -> Ended {
        self.start().end()
    }

    /// Boots it.
    fn start(&self) -> Running {
        let file = |name: &str| folder().join(name).to_str().expect("UTF-8").to_owned();
        let cmdline = format!("console=ttyS0 panic=-1{} end={}", self.words, self.end);
        let cpus = self.cpus.to_string();
        let (kernel, initrd) = (file(self.kernel), file("initrd"));
        let mut arguments = vec![
            "run",
            "--json",
            "-n",
            self.count,
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
        arguments.extend(self.disks.iter().flat_map(|disk| ["--disk", disk]));
        Running::start(&arguments)
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
    printed_by(ended, 0, start)
}

/// The end of the line of guest `vm` that begins with `start`.
fn printed_by<'line>(ended: &'line Ended, vm: u32, start: &str) -> &'line str {
    let start = format!("VM {vm} prints {start} ");
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
    let bytes = device(&ended, "rng")["bytes"].as_u64();
    assert!(bytes >= Some(4096), "{ended:#?}");
}

/// What the first VM's status has of a device.
fn device(ended: &Ended, name: &str) -> Value {
    let vm = vm(ended);
    let devices = vm["devices"].as_array().expect("devices");
    devices.iter().find(|device| device["name"] == name).expect("the device").clone()
}

/// Verifies that a device has counted some of each of these.
fn has_counted(device: &Value, names: &[&str]) {
    for name in names {
        assert!(device[name].as_u64() > Some(0), "{name}: {device}");
    }
}

/// A file of so many MiB, of which no page is like another.
fn disk(folder: &Path, name: &str, mib: usize) -> PathBuf {
    let mut seed = 1_u64;
    let words = std::iter::repeat_with(|| {
        // Numerical Recipes' generator.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed
    });
    let bytes: Vec<u8> = words.take(mib << 17).flat_map(u64::to_le_bytes).collect();
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a disk");
    path
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn guests_that_are_folded_read_what_is_on_their_disk() {
    let scratch = tempfile::tempdir().expect("a folder");
    let disk = disk(scratch.path(), "disk", 8);
    let hash = Command::new("sha256sum").arg(&disk).output().expect("sha256sum runs").stdout;
    let hash = String::from_utf8(hash).expect("text");
    let hash = hash.split_whitespace().next().expect("a hash");
    let ended = Boot {
        count: "2",
        words: " disk=hash",
        devices: &["--knob", "sleep_millisecs=20", "--knob", "pages_to_scan=100000"],
        disks: vec![format!("path={},readonly=on", disk.display())],
        ..Boot::default()
    }
    .run();
    vm(&ended);
    for (number, time) in [(0, "first"), (1, "first"), (0, "second"), (1, "second")] {
        assert_eq!(printed_by(&ended, number, time), format!("{hash}  -"), "{ended:#?}");
    }
    // What both had cached was shared, and the disk was read over it.
    let report = ended.json();
    let events = &report["dedup"];
    for event in ["merges", "breaks"] {
        assert!(events[event].as_u64() > Some(1024), "{event}: {events}");
    }
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn what_a_guest_writes_and_discards_is_in_the_file_and_a_disk_to_be_read_only_is_not_written() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (written, other) = (disk(scratch.path(), "written", 8), disk(scratch.path(), "other", 1));
    let before = [&written, &other].map(|path| fs::read(path).expect("a disk"));
    let blocks = written.metadata().expect("a disk").blocks();
    let ended = Boot {
        words: " disk=write",
        disks: vec![
            format!("path={}", written.display()),
            format!("path={},readonly=on", other.display()),
        ],
        ..Boot::default()
    }
    .run();
    vm(&ended);
    assert_eq!(printed(&ended, "written"), "16384");
    assert_eq!(printed(&ended, "discarded"), "1048576");
    assert_eq!(printed(&ended, "readonly"), "0 1 other");
    assert_eq!(printed(&ended, "refused"), "a write");
    let mut numbers = Vec::new();
    (1..=50_000).for_each(|number| writeln!(numbers, "{number}").expect("there is memory"));
    let after = fs::read(&written).expect("a disk");
    assert!(after.starts_with(&numbers), "{ended:#?}");
    assert_eq!(after.len(), before[0].len());
    assert!(after[4 << 20..5 << 20].iter().all(|&byte| byte == 0));
    // Where a page ends, what the guest did not write begins.
    assert!(after[1 << 20..4 << 20] == before[0][1 << 20..4 << 20]);
    assert!(after[7 << 20..] == before[0][7 << 20..]);
    assert!(written.metadata().expect("a disk").blocks() < blocks);
    let counted = device(&ended, "disk0");
    has_counted(&counted, &["reads", "writes", "flushes", "discards", "written_bytes"]);
    has_counted(&counted["transport"], &["notifications", "interrupts", "resets"]);
    assert_eq!(device(&ended, "disk1")["writes"], 0);
    assert!(fs::read(&other).expect("a disk") == before[1]);
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn an_error_of_the_host_reaches_the_guest_as_one() {
    let scratch = tempfile::tempdir().expect("a folder");
    let disk = disk(scratch.path(), "disk", 4);
    let path = format!("path={}", disk.display());
    let mut running = Boot { words: " disk=broken", disks: vec![path], ..Boot::default() }.start();
    // Before its driver is loaded: the guest boots for seconds.
    running.wait_for_line("VMs are running");
    fs::File::options()
        .write(true)
        .open(&disk)
        .expect("a disk")
        .set_len(2 << 20)
        .expect("cut short");
    let ended = running.end();
    vm(&ended);
    assert_eq!(printed(&ended, "read"), "the beginning");
    assert_eq!(printed(&ended, "failed"), "to read the rest");
    has_counted(&device(&ended, "disk0"), &["failed_requests"]);
    assert!(ended.stderr.iter().any(|line| line.contains("I/O error, dev vda")), "{ended:#?}");
}

#[test]
#[ignore = "needs hardware virtualization: see `make host-tests`"]
fn as_many_disks_as_there_is_room_for_are_read() {
    let scratch = tempfile::tempdir().expect("a folder");
    let disk = disk(scratch.path(), "disk", 1);
    let disks = vec![format!("path={},readonly=on", disk.display()); 19];
    let ended = Boot { cpus: 2, words: " disk=all", disks, ..Boot::default() }.run();
    vm(&ended);
    assert_eq!(printed(&ended, "disks"), format!("{} 19", 19 << 20));
}
