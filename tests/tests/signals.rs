//! Signals end a run with its report, and leave nothing behind, whenever and however they come.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pagefold_tests::harness::command::{Running, describe, executable, pagefold, stdout_json};
use pagefold_tests::harness::http;
use serde_json::Value;
use tempfile::TempDir;

/// A little longer than signals count as one.
const LATER: Duration = Duration::from_millis(1100);

/// How long a run of hundreds of VMs may take to end: it takes two seconds or three on two processors, and
/// minutes where its VMs end one after the other while the rest run.
const END_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_run_that_is_signalled_ends_with_its_result_and_code_0() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    for name in ["INT", "TERM", "HUP"] {
        let args = ["--memory", "16M", "--guest", "builtin:churn"];
        let mut running = Running::with_ready_guests(2, &args, &socket);
        running.wait_for_line("prints BEAT");
        running.signal(name);
        let ended = running.end();
        assert_eq!(ended.status.code(), Some(0), "SIG{name}: {ended:?}");
        for vm in ended.json()["vms"].as_array().expect("an array") {
            assert_eq!((&vm["corrupt"], &vm["clean"]), (&0.into(), &true.into()), "{vm}");
            assert!(vm["verifications"].as_u64().is_some_and(|count| count > 0), "{vm}");
        }
        assert_empty(directory.path());
    }
}

#[test]
fn a_signal_before_the_guests_are_ready_ends_the_run_too() {
    let mut running = Running::start(&["run", "-n", "4", "--memory", "256M", "--json"]);
    running.wait_for_line("VMs are running");
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.json()["vms"].as_array().map(Vec::len), Some(4));
}

#[test]
fn a_signal_during_the_launch_is_heeded_between_vms() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    let args = ["run", "-n", "1000", "--memory", "8M", "--guest", "builtin:idle", "--json"];
    let path = socket.to_str().expect("UTF-8");
    let mut running =
        Running::start(&[&args[..], &["--overcommit", "--api-socket", path]].concat());
    running.wait_for_line("control socket at");
    running.signal("INT");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = ended.json();
    let vms = report["vms"].as_array().expect("an array");
    let count = vms.len();
    assert!(count < 1000, "all VMs were launched");
    // All have been stopped before the numbers were taken.
    assert_eq!(report["dedup"]["vms"].as_array().map(Vec::len), Some(0), "{report}");
    for words in ["of 1000 VMs were started", &format!("interrupted; ending {count} VMs")] {
        assert!(ended.stderr.iter().any(|line| line.contains(words)), "{:?}", ended.stderr);
    }
    assert_empty(directory.path());
}

#[test]
fn a_signal_while_many_vms_are_being_started_ends_them_all_at_once() {
    let mut running = Running::start(&["run", "-n", "300", "--memory", "4M", "--json"]);
    // Some run at full load by then, and others have not been started.
    for _ in 0..40 {
        running.wait_for_line("prints READY");
    }
    running.signal("INT");
    let signalled = Instant::now();
    let ended = running.end();
    let took = signalled.elapsed();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(took < END_LIMIT, "it took {took:?}");
    let report = ended.json();
    let vms = report["vms"].as_array().expect("an array");
    assert_eq!(vms.len(), 300, "those that were not started are stopped, and reported, too");
    assert!(vms.iter().all(|vm| vm["clean"] == true && vm["corrupt"] != 1), "{report}");
    let words = "interrupted; ending 300 VMs";
    assert!(ended.stderr.iter().any(|line| line.contains(words)), "{:?}", ended.stderr);
}

#[test]
fn a_signal_while_the_guests_verify_their_memory_is_no_failure() {
    let args = ["run", "-n", "4", "--memory", "256M", "--guest", "builtin:idle", "--for", "1s"];
    let mut running = Running::start(&[&args[..], &["--json"]].concat());
    running.wait_for_line("work is over");
    running.signal("INT");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.json()["vms"].as_array().expect("VMs").iter().all(|vm| vm["clean"] == true));
}

#[test]
fn a_signal_while_the_guests_come_to_rest_is_not_lost_and_nothing_is_settled() {
    let mut running = Running::start(&[
        "-v", "run", "-n", "4", "--memory", "128M", "--for", "1s", "--settle", "--json",
    ]);
    running.wait_for_line("work is over");
    running.signal("TERM");
    let ended = running.end();
    // As for settling that a signal has cut short.
    assert!(ended.status.code().is_some_and(|code| code == 0 || code == 5), "{ended:?}");
    assert!(ended.json()["settle"].is_null(), "{ended:?}");
}

#[test]
fn signals_within_a_second_are_one() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    for names in [["TERM", "TERM"], ["INT", "HUP"]] {
        let args = ["--memory", "8M", "--guest", "builtin:idle"];
        let running = Running::with_ready_guests(1, &args, &socket);
        // The shell's own `kill` sends them within microseconds of each other, so that some are
        // delivered together and some one by one.
        let pid = running.pid();
        let script = format!("kill -{} {pid}; kill -{} {pid};", names[0], names[1]).repeat(20);
        assert!(Command::new("sh").args(["-c", &script]).status().expect("a shell").success());
        let ended = running.end();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(ended.json()["vms"][0]["clean"], true);
        assert_empty(directory.path());
    }
}

#[test]
fn a_run_under_timeout_reports() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    for _ in 0..4 {
        let mut child = under("timeout", &["100"], &socket);
        wait_for_line(&mut BufReader::new(child.stderr.take().expect("a pipe")), "are running");
        // As when its time is over, it signals the run, and at once its group.
        signal(&child, "TERM");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
        assert_eq!(stdout_json(&output)["vms"][0]["clean"], true);
        assert_empty(directory.path());
    }
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_leaves_nothing() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    for (name, number) in [("TERM", 15), ("HUP", 1)] {
        let (mut child, mut stderr, _full) = with_full_stdout(&socket);
        signal(&child, "TERM");
        // The report is being written from here on, for ever.
        wait_for_line(&mut stderr, "has stopped");
        assert!(socket.exists());
        thread::sleep(LATER);
        signal(&child, name);
        let status = child.wait().expect("it ends");
        assert_eq!((status.code(), status.signal()), (Some(128 + number), None));
        let mut said = String::new();
        stderr.read_to_string(&mut said).expect("read");
        assert!(said.contains(&format!("pagefold: SIG{name} came while")), "{said}");
        assert_empty(directory.path());
    }
}

#[test]
fn a_second_signal_is_heeded_though_nobody_reads_stderr() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    let (mut child, mut stderr, _full) = with_full_stdout(&socket);
    signal(&child, "TERM");
    wait_for_line(&mut stderr, "has stopped");
    // Its stderr is as full as its stdout from now on.
    let own = File::options().write(true).open(format!("/proc/{}/fd/2", child.id()));
    let _filler = Filler::new(own.expect("its stderr"));
    thread::sleep(LATER);
    signal(&child, "TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(143));
    assert_empty(directory.path());
}

#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    // As nohup does.
    let mut child = under("sh", &["-c", "trap '' HUP; exec \"$0\" \"$@\""], &socket);
    wait_for_line(&mut BufReader::new(child.stderr.take().expect("a pipe")), "are running");
    signal(&child, "HUP");
    // It would be pending, or heeded, by the time that it answers.
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let mask = |field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a mask");
        u64::from_str_radix(line.trim(), 16).expect("hexadecimal") & 1
    };
    assert_eq!((mask("SigIgn:"), mask("SigCgt:"), mask("ShdPnd:")), (1, 0, 0), "{status}");
    assert_eq!(http::get(&socket, "/v1/vms")[0]["state"], "running");
    signal(&child, "TERM");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let report: Value = stdout_json(&output);
    assert_eq!(report["vms"][0]["clean"], true);
}

/// A run with a socket, of one VM, that another command starts.
fn under(command: &str, args: &[&str], socket: &Path) -> Child {
    Command::new(command)
        .args(args)
        .arg(executable())
        .args(["run", "-n", "1", "--memory", "8M", "--json", "--api-socket"])
        .arg(socket)
        .env("RUST_LOG", "pagefold=info")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// A run with a socket whose report cannot be written: its stdout is full. With it come its stderr,
/// and what keeps it so.
fn with_full_stdout(socket: &Path) -> (Child, BufReader<ChildStderr>, (Filler, PipeReader)) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let filler = Filler::new(writer.try_clone().expect("a descriptor"));
    let mut child = pagefold(&["run", "-n", "1", "--memory", "8M", "--json", "--api-socket"])
        .arg(socket)
        .env("RUST_LOG", "pagefold=info,pagefold::console=debug")
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .expect("pagefold starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    wait_for_line(&mut stderr, "prints READY");
    (child, stderr, (filler, reader))
}

/// Keeps a pipe full for as long as it is there.
struct Filler(Child);

impl Filler {
    fn new(pipe: impl Into<Stdio>) -> Self {
        let cat = Command::new("cat").arg("/dev/zero").stdout(pipe).spawn().expect("cat runs");
        // It never sleeps but for room in the pipe.
        while process_state(&cat) != "S" {
            thread::yield_now();
        }
        Self(cat)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // Both fail after its end, as they should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process_state(process: &Child) -> String {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it is there");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    fields.split_whitespace().next().expect("a state").to_owned()
}

fn wait_for_line(stderr: &mut impl BufRead, part: &str) {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("read"), 0, "no line with '{part}'");
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
    assert!(sent.success(), "cannot send SIG{name}");
}

fn assert_empty(directory: &Path) {
    let left: Vec<_> = fs::read_dir(directory).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}
