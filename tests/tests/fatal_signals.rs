//! A run that a signal ends which nobody sends to have a report: it ends as by default, and leaves nothing
//! behind.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use pagefold_tests::harness::command::{Running, executable};
use tempfile::TempDir;

#[test]
fn a_signal_that_ends_processes_ends_a_run_and_leaves_nothing() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    for (name, number) in [
        ("QUIT", 3),
        ("USR1", 10),
        ("USR2", 12),
        ("ALRM", 14),
        ("XCPU", 24),
        ("VTALRM", 26),
        ("PROF", 27),
        ("IO", 29),
        ("PWR", 30),
        ("RTMIN", 34),
        ("64", 64),
    ] {
        let args = ["--memory", "8M", "--guest", "builtin:idle"];
        let running = Running::with_ready_guests(1, &args, &socket);
        assert!(socket.exists());
        running.signal(name);
        let ended = running.end();
        let by = ended.status.signal().or(ended.status.code().map(|code| code - 128));
        assert_eq!(by, Some(number), "SIG{name}: {ended:?}");
        let left: Vec<_> = fs::read_dir(directory.path()).expect("a folder").collect();
        assert!(left.is_empty(), "SIG{name} leaves {left:?}");
        let said = |line: &String| line.contains("ends the run at once, and without a report");
        assert!(ended.stderr.iter().any(said), "SIG{name}: {:?}", ended.stderr);
    }
}

#[test]
fn whoever_waits_for_a_run_sees_by_which_signal_it_ended() {
    let directory = TempDir::new().expect("a folder");
    let args = ["--memory", "8M", "--guest", "builtin:idle"];
    let running = Running::with_ready_guests(1, &args, &directory.path().join("api"));
    running.signal("USR1");
    assert_eq!(running.end().status.signal(), Some(10));
}

#[test]
fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
    // As SIGQUIT is in the background of a script.
    let script = "trap '' QUIT USR1 RTMIN; \"$0\" run -n 1 --memory 8M --for 1s --json & \
                  pid=$!; \
                  until grep -qs pagefold-signal /proc/$pid/task/*/comm || ! [ -e /proc/$pid/exe ]; \
                  do :; done; \
                  kill -QUIT $pid; kill -USR1 $pid; kill -RTMIN $pid; wait $pid";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(executable())
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
