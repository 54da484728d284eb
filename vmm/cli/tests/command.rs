//! The command itself: what it prints, what it ends with, and what it leaves behind.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use hyper::Method;
use pagefold_api::ApiClient;
use serde_json::Value;
use tempfile::TempDir;

fn pagefold(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagefold"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

fn output(args: &[&str]) -> Output {
    pagefold(args).output().unwrap()
}

fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A run without end whose VMs are running and whose control socket is there.
fn serving(socket: &Path) -> Child {
    let socket = socket.to_str().unwrap();
    let mut child = pagefold(&[
        "run",
        "--memory",
        "8M",
        "--guest",
        "builtin:idle",
        "--json",
        "--api-socket",
        socket,
    ])
    .env("RUST_LOG", "pagefold=info")
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("VMs are running"));
    assert!(line.is_some(), "{:?}", child.wait_with_output());
    child
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_run_settles_and_prints_one_json_object() {
    let output =
        output(&["run", "-n", "2", "--memory", "16M", "--for", "1s", "--settle", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), "");
    let report = stdout_json(&output);
    for vm in report["vms"].as_array().unwrap() {
        assert_eq!((&vm["corrupt"], &vm["finished"]), (&0.into(), &true.into()), "{vm}");
        assert!(vm["verifications"].as_u64().unwrap() > 0, "{vm}");
    }
    assert_eq!(report["vms"].as_array().unwrap().len(), 2);
    assert_eq!(report["settle"]["settled"], true);
    let memory = &report["memory"];
    assert_eq!(memory["guest_bytes"], 32 << 20);
    let bytes = |field: &str| memory[field].as_u64().unwrap();
    assert!(bytes("saved_bytes") * 100 >= bytes("ideal_saved_bytes") * 97, "{memory}");
    assert!(bytes("resident_bytes") < bytes("guest_bytes"), "{memory}");
}

#[test]
fn programs_read_of_no_more_saved_than_could_be() {
    // One VM of little memory: beyond its workload's pages, those of its program count.
    let output =
        output(&["run", "-n", "1", "--memory", "16M", "--for", "1s", "--settle", "--json"]);
    let memory = &stdout_json(&output)["memory"];
    let bytes = |field: &str| memory[field].as_u64().unwrap();
    assert!(bytes("saved_bytes") > 0, "{memory}");
    assert!(bytes("saved_bytes") <= bytes("ideal_saved_bytes"), "{memory}");
}

#[test]
fn nothing_is_folded_with_dedup_off_and_nothing_is_claimed() {
    let args = ["run", "-n", "1", "--memory", "8M", "--for", "1s", "--dedup", "off", "--json"];
    let output = output(&args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let memory = &stdout_json(&output)["memory"];
    assert_eq!(memory["saved_bytes"], 0);
    let resident = memory["resident_bytes"].as_u64().unwrap();
    assert!((1..=8 << 20).contains(&resident), "{memory}");
}

#[test]
fn a_signal_ends_a_run_that_still_reports_and_cleans_up() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    for name in ["-INT", "-TERM"] {
        let child = serving(&socket);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(stdout_json(&output)["vms"].as_array().unwrap().len(), 2);
        assert!(!socket.exists());
    }
}

#[test]
fn a_live_socket_is_refused_and_a_killed_runs_socket_is_replaced() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let path = socket.to_str().unwrap();
    let mut child = serving(&socket);
    let args = ["run", "-n", "1", "--memory", "8M", "--for", "1s", "--api-socket", path];
    let refused = output(&args);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(stderr(&refused).contains("another process listens"), "{refused:?}");

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(socket.exists());
    let replaced = output(&args);
    assert_eq!(replaced.status.code(), Some(0), "{replaced:?}");
    assert!(!socket.exists());
}

#[test]
fn the_socket_controls_real_vms() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let child = serving(&socket);
    let client = ApiClient::new(&socket).unwrap();
    let ask = |method: Method, target: &str| {
        let (status, body) = client.request(method, target, b"").unwrap();
        (status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    // Idle guests write nothing any more once they are ready.
    let (status, report) = ask(Method::POST, "/v1/dedup/settle");
    assert_eq!((status, &report["settled"]), (200, &true.into()), "{report}");
    for (verb, state) in [("pause", "paused"), ("resume", "running"), ("stop", "stopped")] {
        let (status, vm) = ask(Method::PUT, &format!("/v1/vms/1/{verb}"));
        assert_eq!((status, &vm["state"]), (200, &state.into()), "{vm}");
    }
    for verb in ["pause", "resume"] {
        let (status, error) = ask(Method::PUT, &format!("/v1/vms/1/{verb}"));
        assert_eq!(status, 409);
        assert!(error["error"].as_str().unwrap().contains("it has stopped"), "{error}");
    }
    assert_eq!(ask(Method::GET, "/v1/vms/0").1["state"], "running");
    assert_eq!(ask(Method::GET, "/v1/vms/2").0, 404);

    // One VM paused and one stopped from outside: the run ends well all the same.
    assert_eq!(ask(Method::PUT, "/v1/vms/0/pause").0, 200);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = stdout_json(&output);
    assert_eq!(report["vms"][0]["stop_reason"]["kind"], "exited");
    assert_eq!(report["vms"][1]["stop_reason"]["kind"], "requested");
}

#[test]
fn stats_shows_what_a_run_serves() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let path = socket.to_str().unwrap();
    let child = serving(&socket);
    let json = output(&["stats", "--api-socket", path, "--json"]);
    assert_eq!(json.status.code(), Some(0), "{json:?}");
    assert!(stdout_json(&json)["pages_sharing"].is_u64());
    let table = output(&["stats", "--api-socket", path]);
    assert!(String::from_utf8(table.stdout).unwrap().starts_with("saved "));
    assert!(ApiClient::new(&socket).unwrap().dedup().is_ok());

    signal(&child, "-INT");
    child.wait_with_output().unwrap();
    let nobody = output(&["stats", "--api-socket", path]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("help: "), "{nobody:?}");
}

/// What a command that asks `socket` prints when it ends with `code`.
fn ask(socket: &Path, code: i32, args: &[&str]) -> String {
    let path = socket.to_str().unwrap();
    let output = output(&[&args[..1], &["--api-socket", path], &args[1..]].concat());
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let text = if code == 1 { &output.stderr } else { &output.stdout };
    String::from_utf8(text.clone()).unwrap()
}

#[test]
fn a_watch_shows_rates_from_its_second_look_on() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let child = serving(&socket);
    let mut watch = pagefold(&["stats", "--watch", "--api-socket", socket.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first: Vec<String> =
        lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    assert!(!first.iter().any(|line| line.starts_with("a second ")), "{first:?}");
    let rates = lines.map(Result::unwrap).find(|line| line.starts_with("a second ")).unwrap();
    assert!(rates.contains(" pages scanned, ") && rates.contains(" passes, "), "{rates}");
    signal(&child, "-INT");
    child.wait_with_output().unwrap();
    watch.wait().unwrap();
}

#[test]
fn set_returns_when_everything_is_unmerged_and_its_errors_name_commands() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let child = serving(&socket);
    assert!(ask(&socket, 0, &["settle"]).starts_with("settled "));
    let stats = || ApiClient::new(&socket).unwrap().dedup().unwrap();
    assert!(stats().pages_shared > 100);
    let busy = ask(&socket, 1, &["set", "max_page_sharing=4"]);
    assert!(busy.contains("help: ") && busy.contains("pagefold set run=2"), "{busy}");
    for word in ["PATCH", "GET", "409", "/v1/"] {
        assert!(!busy.contains(word), "{busy}");
    }
    let checked = ask(&socket, 0, &["doctor"]);
    assert!(checked.contains("good     its mappings"), "{checked}");
    assert!(ask(&socket, 0, &["set", "run=2"]).contains("1 → 2"));
    assert_eq!((stats().pages_shared, stats().pages_zero), (0, 0));
    ask(&socket, 0, &["set", "max_page_sharing=4", "merge_across_nodes=false"]);

    ask(&socket, 0, &["set", "run=1"]);
    ask(&socket, 0, &["settle"]);
    ask(&socket, 0, &["set", "--vm", "1", "dedup=off"]);
    assert_eq!(stats().vms[1].merging_pages, 0);
    assert_eq!(ask(&socket, 0, &["set", "--no-wait", "run=2"]), "run  1 → 2\n");
    signal(&child, "-INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn vms_are_listed_held_and_ended_by_commands() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let child = serving(&socket);
    let states = || {
        let vms = ask(&socket, 0, &["vms", "--json"]);
        let vms: Value = serde_json::from_str(&vms).unwrap();
        let states = vms.as_array().unwrap().iter().map(|vm| vm["state"].clone());
        states.map(|state| state.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(), ["running", "running"]);
    assert_eq!(ask(&socket, 0, &["pause", "--vm", "1"]), "VM 1: paused\n");
    assert_eq!(states(), ["running", "paused"]);
    assert_eq!(ask(&socket, 0, &["resume", "--all"]), "VM 0: running\nVM 1: running\n");
    assert_eq!(ask(&socket, 0, &["stop", "--vm", "0x1"]), "VM 1: stopped\n");
    let words = ask(&socket, 1, &["pause", "--vm", "1"]);
    assert!(words.contains("it has stopped") && words.contains("pagefold vms"), "{words}");
    assert_eq!(words.matches("cannot pause VM 1").count(), 1, "{words}");
    let words = ask(&socket, 1, &["stop", "--vm", "7"]);
    assert!(words.contains("there is no VM 7") && words.contains("pagefold vms"), "{words}");
    let words = ask(&socket, 1, &["pause", "--vm", "1", "--vm", "0", "--vm", "7"]);
    for part in ["cannot pause VM 1: ", "cannot pause VM 7: "] {
        assert!(words.contains(part), "{words}");
    }
    assert_eq!(states(), ["paused", "stopped"], "each is tried");
    let table = ask(&socket, 0, &["vms"]);
    let first = table.lines().next().unwrap().split_whitespace().take(3).collect::<Vec<_>>();
    assert_eq!(first, ["vm", "state", "mode"], "{table}");
    let neither = output(&["pause", "--api-socket", "/s"]);
    assert_eq!(neither.status.code(), Some(2));
    assert!(stderr(&neither).contains("--all"), "{neither:?}");
    signal(&child, "-INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn settling_out_of_time_has_an_exit_code_of_its_own() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let child = serving(&socket);
    // One pass alone never shows that nothing is left to do.
    assert!(ask(&socket, 5, &["settle", "--timeout", "0s"]).starts_with("NOT settled "));
    let report = ask(&socket, 5, &["settle", "--timeout", "0s", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["settled"], false);
    ask(&socket, 0, &["set", "run=0"]);
    assert!(ask(&socket, 1, &["settle"]).contains("pagefold set run=1"));
    signal(&child, "-INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn analyze_counts_and_folds_what_the_census_says() {
    let directory = TempDir::new().unwrap();
    let image = |name: &str, pages: &[u8]| {
        let path = directory.path().join(name);
        let bytes: Vec<u8> = pages.iter().flat_map(|&fill| [fill; 4096]).collect();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (first, second) = (image("first", &[1, 2, 3, 0, 4]), image("second", &[1, 9, 2, 3, 0, 0]));
    let output = output(&["analyze", &first, &second, "--fold", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = stdout_json(&output);
    let census = &report["census"];
    for (field, want) in [
        ("pages", 11),
        ("zero_pages", 3),
        ("distinct_pages", 5),
        ("saveable_pages", 6),
        ("same_position_pages", 1),
        ("extents", 3),
    ] {
        assert_eq!(census[field], want, "{field}: {census}");
    }
    assert_eq!(report["fold"]["saved_pages"], 6);
    assert_eq!(report["fold"]["verified"], true);
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
}

#[test]
fn every_failure_says_why_and_what_to_do() {
    let directory = TempDir::new().unwrap();
    let odd = directory.path().join("odd");
    fs::write(&odd, [1; 4097]).unwrap();
    let odd = odd.to_str().unwrap();
    for (args, code, part) in [
        (&["run", "-n", "4096", "--memory", "3G"][..], 1, "not enough memory"),
        (&["run", "--memory", "8K"], 2, "--memory 8K"),
        (&["run", "--memory", "64MB"], 2, "64M, 1G or 1024K"),
        (&["run", "--guest", "linux"], 2, "builtin:churn"),
        (&["run", "--no-such"], 2, "--no-such"),
        (&["fold"], 2, "fold"),
        (&["analyze"], 2, "IMAGE"),
        (&["analyze", odd], 1, "4097 bytes"),
        (&["analyze", "/nonexistent/image"], 1, "/nonexistent/image"),
        (&["analyze", "/dev/null"], 1, "/dev/null"),
    ] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        let text = stderr(&output);
        assert!(text.starts_with("error: ") && text.contains(part), "{args:?}: {text}");
        assert!(text.contains("\nhelp: ") || text.contains("--help"), "{args:?}: {text}");
    }
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_for_that_and_not_for_want_of_a_run() {
    let path = "s".repeat(108);
    for command in [&["stats"][..], &["vms"], &["settle"], &["set", "run=1"], &["doctor"]] {
        let output = output(&[command, &["--api-socket", &path]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = stderr(&output);
        assert!(text.contains("108 bytes") && text.contains("at most 107 fit"), "{text}");
        assert!(text.contains("help: give a shorter path"), "{text}");
        assert!(!text.contains("pagefold run"), "{text}");
    }
}

#[test]
fn a_full_stdout_is_said_and_a_reader_who_leaves_is_no_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = pagefold(&["doctor"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot write the result"), "{output:?}");

    let mut child = pagefold(&["doctor"]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_version_has_what_was_built() {
    let text = String::from_utf8(output(&["--version"]).stdout).unwrap();
    for fact in ["commit ", "profile ", "target ", "rustc "] {
        assert!(text.contains(fact), "{fact}: {text}");
    }
    assert_eq!(String::from_utf8(output(&["-V"]).stdout).unwrap().lines().count(), 1);
}

#[test]
fn more_is_logged_on_request_and_to_a_file_if_there_is_one() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let path = log.to_str().unwrap();
    let run = ["run", "-n", "1", "--memory", "8M", "--for", "1s", "--json", "-v"];
    let logged = output(&run);
    assert!(stderr(&logged).contains("1 VMs are running"), "{logged:?}");
    let logged = output(&[&run[..], &["--log-file", path]].concat());
    assert_eq!(stderr(&logged), "");
    assert!(fs::read_to_string(&log).unwrap().contains("1 VMs are running"));
    let refused = output(&["doctor", "--log-file", "/nonexistent/log"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("/nonexistent/log"), "{refused:?}");
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, directory.path()] {
        let refused = output(&["doctor", "--log-file", path.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("it is not a regular file"), "{refused:?}");
    }
    assert!(!stderr(&output(&["doctor", "--log-file", "/dev/null"])).contains("/dev/null"));
}

#[test]
fn a_log_file_that_takes_nothing_is_reported_once_and_the_run_goes_on() {
    let run = ["run", "-n", "1", "--memory", "8M", "--for", "1s", "--json"];
    let output = output(&[&run[..], &["-vv", "--log-file", "/dev/full"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout_json(&output)["vms"][0]["corrupt"], 0);
    let text = stderr(&output);
    let what = "error: cannot write to the log file /dev/full: No space left on device";
    assert!(text.starts_with(what) && text.contains("\nhelp: "), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn progress_is_a_line_now_and_then_where_none_can_be_rewritten() {
    let mut child = pagefold(&["run", "-n", "1", "--memory", "8M", "--guest", "builtin:idle"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains(" running, 1 of 1 ready, saved ") && !line.contains('\x1b'), "{line}");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn vms_that_were_stopped_or_are_paused_are_not_waited_for_nor_counted() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let mut child = pagefold(&["run", "-n", "3", "--memory", "8M", "--guest", "builtin:mix"]);
    child.args(["--settle", "--json", "-v", "--api-socket", socket.to_str().unwrap()]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("VMs are running")));
    while ApiClient::new(&socket).unwrap().vms().unwrap().iter().any(|vm| vm.ready_ms.is_none()) {}
    ask(&socket, 0, &["stop", "--vm", "0"]);
    ask(&socket, 0, &["pause", "--vm", "1"]);
    signal(&child, "-INT");
    assert!(log.any(|line| line.unwrap().contains("VM 1 is paused")));
    let output = child.wait_with_output().unwrap();
    let report = stdout_json(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let memory = &report["memory"];
    assert_eq!(memory["guest_bytes"], 16 << 20);
    let bytes = |field: &str| memory[field].as_u64().unwrap();
    assert!(bytes("ideal_saved_bytes") < 16 << 20, "{memory}");
    assert_eq!(report["settle"]["settled"], true);
}

#[test]
fn a_run_whose_vms_have_all_been_stopped_has_nothing_to_settle_and_ends_well() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let mut child = pagefold(&["run", "-n", "2", "--memory", "8M", "--guest", "builtin:idle"]);
    child.args(["--settle", "--json", "-v", "--api-socket", socket.to_str().unwrap()]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("VMs are running")));
    ask(&socket, 0, &["stop", "--all"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout_json(&output)["settle"].is_null(), "{output:?}");
}

#[test]
fn a_vm_that_was_paused_before_it_was_ready_is_not_waited_for() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let mut child = pagefold(&["run", "-n", "2", "--memory", "128M", "--overcommit"]);
    child.args(["--guest", "builtin:idle", "--for", "1s", "--settle", "--json"]);
    child.args(["--api-socket", socket.to_str().unwrap(), "-v"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("VMs are running")));
    ask(&socket, 0, &["pause", "--vm", "0"]);
    let vm = ApiClient::new(&socket).unwrap().vms().unwrap().remove(0);
    assert_eq!(vm.ready_ms, None, "it has filled its memory within no time");
    let paused = "VM 0 is paused: that its guest is ready is not waited for";
    assert!(log.any(|line| line.unwrap().contains(paused)));
    assert!(log.any(|line| line.unwrap().contains("the guests' work is over")));
    let output = child.wait_with_output().unwrap();
    let report = stdout_json(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report["elapsed_s"].as_f64().unwrap() < 60.0, "{report}");
    assert_eq!(report["settle"]["settled"], true);
}

#[test]
fn the_doctor_finds_what_these_tests_need() {
    let output = output(&["doctor"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for name in ["/dev/kvm", "userfaultfd", "PAGEMAP_SCAN", "vm.max_map_count", "huge pages"] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn the_doctor_says_the_same_to_programs() {
    let output = output(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = stdout_json(&output);
    assert_eq!(report["ready"], true);
    for finding in report["findings"].as_array().unwrap() {
        let verdict = finding["verdict"].as_str().unwrap();
        assert!(["good", "poor"].contains(&verdict), "{finding}");
        assert!(finding["name"].is_string() && finding["meaning"].is_string(), "{finding}");
    }
}
