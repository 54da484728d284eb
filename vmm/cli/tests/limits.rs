//! The command under limits that leave too little: it reports so, and what to do, before it begins.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/control_group/mod.rs"]
mod control_group;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use control_group::Group;
use tempfile::TempDir;

const PAGE_BYTES: usize = 4096;

fn pagefold(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagefold"));
    command.args(args);
    command
}

fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).env_remove("RUST_LOG").output().unwrap()
}

/// The command after a shell has set a limit.
fn under_ulimit(limit: &str, args: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    shell.arg(env!("CARGO_BIN_EXE_pagefold")).args(args);
    output(shell)
}

/// An image of so many pages, all different.
fn image(directory: &TempDir, page_count: usize) -> String {
    let path = directory.path().join("image");
    let bytes: Vec<u8> =
        (1..=page_count).flat_map(|page| page.to_le_bytes().repeat(PAGE_BYTES / 8)).collect();
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// That it ended by itself, in one error that names `part` and has help.
fn assert_refused(output: &Output, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.starts_with("error: ") && text.contains("\nhelp: "), "{text}");
    assert!(text.contains(part), "'{part}' is not in: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// That the doctor found what is missing, named it, and printed how to fix it.
fn assert_diagnosed(output: &Output, part: &str) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("MISSING") && text.contains("to fix: "), "{text}");
    assert!(text.contains(part), "'{part}' is not in: {text}");
}

const RUN: [&str; 7] = ["run", "-n", "2", "--memory", "64M", "--for", "1s"];

#[test]
fn each_ulimit_that_leaves_too_little_is_named_by_run_analyze_and_doctor() {
    let directory = TempDir::new().unwrap();
    let image = image(&directory, 16);
    for (limit, part) in
        [("-n 8", "ulimit -n"), ("-f 1000", "ulimit -f"), ("-v 700000", "ulimit -v")]
    {
        assert_refused(&under_ulimit(limit, &RUN), part);
        assert_refused(&under_ulimit(limit, &["analyze", "--fold", &image]), part);
        assert_diagnosed(&under_ulimit(limit, &["doctor"]), part);
    }
    // The census alone takes little of anything.
    for limit in ["-f 1000", "-v 1000000"] {
        let output = under_ulimit(limit, &["analyze", &image]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

/// A run under as few open files as it may have, with its log, ended when this is dropped.
struct Served {
    run: Child,
    directory: TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 36 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pagefold")]);
        shell.args(["run", "-n", "2", "--memory", "16M", "--api-socket", "api"]);
        shell.current_dir(directory.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let run = shell.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let (mut served, begun) = (Self { run, directory }, Instant::now());
        while served.stats().status.code() != Some(0) {
            thread::sleep(Duration::from_millis(20));
            assert!(begun.elapsed() < Duration::from_mins(1), "{}", served.log());
        }
        served
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("api")).unwrap()
    }

    fn stats(&self) -> Output {
        let socket = self.directory.path().join("api");
        output(pagefold(&["stats", "--api-socket", socket.to_str().unwrap()]))
    }

    /// What it has written, and whether it has ended.
    fn log(&mut self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        format!("{log}\nended: {:?}", self.run.try_wait())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.run.kill();
        let _ = self.run.wait();
    }
}

#[test]
fn idle_connections_that_take_all_descriptors_make_room_for_others() {
    let mut served = Served::start();
    let idle: Vec<_> = (0..60).map(|_| served.connect()).collect();
    for _ in 0..3 {
        let started = Instant::now();
        let stats = served.stats();
        assert_eq!(stats.status.code(), Some(0), "{stats:?}, {}", served.log());
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    drop(idle);
    // Refused as often as that, and reported for each power of two.
    let log = served.log();
    assert!((1..=9).contains(&log.matches("could not be accepted").count()), "{log}");
}

#[test]
fn more_images_than_may_be_open_are_refused_with_the_number_that_it_takes() {
    let directory = TempDir::new().unwrap();
    let image = image(&directory, 2);
    for more in [&[][..], &["--fold"]] {
        let args = [&["analyze"], &[image.as_str(); 40][..], more].concat();
        for limit in [20, 51] {
            assert_refused(&under_ulimit(&format!("-n {limit}"), &args), "ulimit -n 52");
        }
        let output = under_ulimit("-n 52", &args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn memory_that_cannot_be_mapped_for_a_vm_names_the_limit_that_was_hit() {
    let refused = under_ulimit("-d 30000", &["run", "-n", "1", "--memory", "64M", "--for", "1s"]);
    assert_refused(&refused, "ulimit -d, now 29 MiB");
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(text.matches("(os error 12)").count(), 1, "{text}");
}

#[test]
fn the_address_space_that_the_doctor_asks_for_is_enough() {
    let doctor = |kib: u64| under_ulimit(&format!("-v {kib}"), &["doctor"]);
    let refused = doctor(100_000);
    assert_diagnosed(&refused, "or at least ulimit -v ");
    let text = String::from_utf8(refused.stdout).unwrap();
    let (_, least) = text.split_once("or at least ulimit -v ").unwrap();
    let least: u64 = least.lines().next().unwrap().parse().unwrap();
    // Nothing is reported of the few pages by which two starts of a program differ.
    let enough = doctor(least + 1024);
    assert_eq!(enough.status.code(), Some(0), "{enough:?}");
}

/// The command that the doctor suggests; `None` if it finds that something is missing.
fn suggested(doctor: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&doctor.stdout);
    let command = text.split_once("Try: pagefold ").map(|(_, command)| command.trim().to_owned());
    assert_eq!(doctor.status.code(), Some(i32::from(command.is_none())), "{doctor:?}");
    command
}

/// That what the doctor suggests runs where the doctor ran, and more VMs do not.
fn assert_suggestion_fits(command: &str, run: impl Fn(&[&str]) -> Output) {
    let args: Vec<_> = command.strip_suffix("20s").unwrap().split_whitespace().collect();
    let fits = run(&[&args[..], &["10ms"]].concat());
    assert_eq!(fits.status.code(), Some(0), "{command}: {fits:?}");
    let four = run(&["run", "-n", "4", "--for", "10ms"]);
    assert_eq!(four.status.code() == Some(0), command == "run -n 4 --for 20s", "{four:?}");
}

#[test]
fn what_the_doctor_suggests_fits_under_each_limit() {
    for (limit, part) in [
        ("-n 33", None),
        ("-n 34", Some("run -n 1 --for 20s")),
        ("-n 39", Some("run -n 3 --for 20s")),
        ("-n 40", Some("run -n 4 --for 20s")),
        ("-v 1400000", Some("run -n ")),
        ("-d 30000", None),
        ("-d 120000", Some("run -n 1 --for 20s")),
    ] {
        let doctor = under_ulimit(limit, &["doctor"]);
        let command = suggested(&doctor);
        assert_eq!(command.is_some(), part.is_some(), "{limit}: {doctor:?}");
        let (Some(command), Some(part)) = (command, part) else { continue };
        assert!(command.starts_with(part), "{limit}: {command}");
        assert_suggestion_fits(&command, |args| under_ulimit(limit, args));
        let text = String::from_utf8(doctor.stdout).unwrap();
        // What keeps the others out, and what to do about it.
        let is_all = command == "run -n 4 --for 20s";
        let is_named = text.contains("ask for less at once") || text.contains("or at least");
        assert_eq!(is_named, !is_all, "{text}");
    }
}

#[test]
fn what_the_doctor_suggests_fits_into_a_control_group_with_few_threads() {
    let Some(group) = Group::new("pids", "suggested") else { return };
    let run = |args: &[&str]| output(group.holding(&pagefold(args)));
    group.limit_threads(1);
    assert_eq!(suggested(&run(&["doctor"])), None);
    // Fewer processors want fewer threads: three VMs fit where four take as many as there are.
    let doctor = run(&["doctor"]);
    let text = String::from_utf8(doctor.stdout).unwrap();
    let (_, fix) = text.split_once("allow them (echo ").unwrap();
    let four: u32 = fix.split_once(' ').unwrap().0.parse().unwrap();
    for (max, command) in [(four, "run -n 4 --for 20s"), (four - 1, "run -n 3 --for 20s")] {
        group.limit_threads(max);
        assert_eq!(suggested(&run(&["doctor"])).as_deref(), Some(command));
        assert_suggestion_fits(command, run);
    }
}

#[test]
fn what_the_doctor_suggests_fits_into_the_memory_of_a_control_group() {
    let Some(group) = Group::new("memory", "suggested") else { return };
    let run = |args: &[&str]| output(group.holding(&pagefold(args)));
    for (mib, command) in [
        (12, None),
        (48, Some("run -n 1 --memory 16M --for 20s")),
        (100, Some("run -n 1 --for 20s")),
    ] {
        group.limit_memory(mib << 20);
        let doctor = run(&["doctor"]);
        assert_eq!(suggested(&doctor).as_deref(), command);
        let text = String::from_utf8_lossy(&doctor.stdout);
        assert!(text.contains(&format!("allow the control group {}", group.path())), "{text}");
        if let Some(command) = command {
            assert_suggestion_fits(command, run);
        }
    }
}

#[test]
fn a_run_that_may_not_start_a_thread_is_refused_for_its_limit() {
    let Some(group) = Group::new("pids", "single") else { return };
    group.limit_threads(1);
    let refused = output(group.holding(&pagefold(&RUN)));
    assert_refused(&refused, &format!("{}/pids.max", group.path()));
    assert_refused(&refused, "cannot run these VMs");
}

#[test]
fn a_result_longer_than_a_file_may_be_is_an_error_and_no_signal() {
    let directory = TempDir::new().unwrap();
    let result = directory.path().join("result");
    let result = result.to_str().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 0 && exec \"$1\" doctor > \"$2\"", "sh"]);
    shell.args([env!("CARGO_BIN_EXE_pagefold"), result]);
    assert_refused(&output(shell), "cannot write the result");
}

#[test]
fn a_control_group_with_too_little_memory_refuses_and_nobody_is_killed() {
    let Some(group) = Group::new("memory", "memory") else { return };
    group.limit_memory(48 << 20);
    let directory = TempDir::new().unwrap();
    let image = image(&directory, (64 << 20) / PAGE_BYTES);
    assert_refused(&output(group.holding(&pagefold(&RUN))), group.path());
    assert_refused(&output(group.holding(&pagefold(&["analyze", "--fold", &image]))), group.path());
    let doctor = output(group.holding(&pagefold(&["doctor"])));
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(text.contains(&format!("available in the control group {}", group.path())), "{text}");
    // What has been read is cache, which leaves as much room as before.
    let census = output(group.holding(&pagefold(&["analyze", &image])));
    assert_eq!(census.status.code(), Some(0), "{census:?}");
    let small = ["run", "-n", "1", "--memory", "16M", "--for", "1s"];
    let small = output(group.holding(&pagefold(&small)));
    assert_eq!(small.status.code(), Some(0), "{small:?}");
}

#[test]
fn a_control_group_as_large_as_is_asked_for_kills_nobody() {
    let Some(group) = Group::new("memory", "enough") else { return };
    // The least that is not refused: see what the VMs themselves could need.
    group.limit_memory((128 + 4 + 4 + 2) << 20);
    let args = [&RUN[..], &["--guest", "builtin:churn", "--dedup", "off"]].concat();
    let output = output(group.holding(&pagefold(&args)));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_control_group_with_too_few_threads_refuses_and_nothing_panics() {
    let Some(group) = Group::new("pids", "pids") else { return };
    group.limit_threads(2);
    let directory = TempDir::new().unwrap();
    let image = image(&directory, 16);
    let named = format!("{}/pids.max", group.path());
    for args in [&RUN[..], &["analyze", &image], &["analyze", "--fold", &image]] {
        assert_refused(&output(group.holding(&pagefold(args))), &named);
    }
    let doctor = output(group.holding(&pagefold(&["doctor"])));
    assert_diagnosed(&doctor, &named);
    // The kernel is not to blame, and no cause is printed twice.
    let text = String::from_utf8(doctor.stdout).unwrap();
    assert!(!text.contains("use Linux"), "{text}");
    assert!(!text.contains("(os error 11): "), "{text}");
}

#[test]
fn a_user_with_too_few_threads_is_told_of_the_limit() {
    // Nobody but the first user is limited, and nobody else may enter this directory.
    let directory = TempDir::new().unwrap();
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if !is_root
        || !["setpriv", "prlimit"].iter().all(|name| Path::new("/usr/bin").join(name).exists())
    {
        eprintln!("skipped: only root can become another user, by setpriv(1) and prlimit(1)");
        return;
    }
    let image = image(&directory, 16);
    let program = directory.path().join("pagefold");
    fs::copy(env!("CARGO_BIN_EXE_pagefold"), &program).unwrap();
    let mode = Command::new("chmod").args(["-R", "a+rX"]).arg(directory.path()).status().unwrap();
    assert!(mode.success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups", "prlimit", "--nproc=1"]);
    command.arg(&program).args(["analyze", &image]);
    command.current_dir("/");
    assert_refused(&output(command), "ulimit -u");
}

#[test]
fn holes_of_an_image_are_counted_and_neither_read_nor_folded() {
    let directory = TempDir::new().unwrap();
    let analyze = |pages: u64, more: &[&str]| {
        let path = image(&directory, 16);
        fs::File::options().write(true).open(&path).unwrap().set_len(pages * 4096).unwrap();
        let output = output(pagefold(&[&["analyze", "--json", &path], more].concat()));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    // A TiB could not be read in the time that a test has, nor fit into memory.
    let census = &analyze(1 << 28, &[])["census"];
    assert_eq!((&census["pages"], &census["distinct_pages"]), (&(1 << 28).into(), &16.into()));
    let holes = census["hole_pages"].as_u64().unwrap();
    assert_eq!((holes, &census["zero_pages"]), ((1 << 28) - 16, &holes.into()));
    assert_eq!(census["saveable_pages"], 0);
    // Folded, they take no memory: there is nothing to save.
    let fold = &analyze(1 << 16, &["--fold"])["fold"];
    assert_eq!((&fold["saved_pages"], &fold["verified"]), (&0.into(), &true.into()));
}
