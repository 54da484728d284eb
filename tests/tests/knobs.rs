//! Folding changed while real VMs run, through the control socket and the command: knobs, modes,
//! ranges, compaction, and the explanation of a page.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use pagefold_dedup::knobs::KNOB_NAMES;
use pagefold_tests::harness::PATIENCE;
use pagefold_tests::harness::command::{Running, describe, output, stdout_json};
use pagefold_tests::harness::http::{Answer, get, request};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A run whose guests are ready, and its socket.
struct Served {
    running: Running,
    directory: TempDir,
}

impl Served {
    fn new(count: u32, args: &[&str]) -> Self {
        let directory = TempDir::new().expect("a folder");
        let running = Running::with_ready_guests(count, args, &directory.path().join("api"));
        Self { running, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("api")
    }

    /// Runs a command that asks the socket.
    fn command(&self, args: &[&str]) -> Output {
        let socket = self.socket();
        let path = socket.to_str().expect("UTF-8");
        output(&[&args[..1], &["--api-socket", path], &args[1..]].concat())
    }

    /// What such a command prints when it succeeds.
    fn says(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", describe(&output));
        assert!(output.stderr.is_empty(), "{args:?}: {}", describe(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Ends the run, and asserts that no guest has found a wrong byte.
    fn end(self) {
        self.running.signal("TERM");
        let ended = self.running.end();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        for vm in ended.json()["vms"].as_array().expect("an array") {
            assert_eq!((&vm["corrupt"], &vm["clean"]), (&0.into(), &true.into()), "{vm}");
        }
    }
}

const IDLE: [&str; 4] = ["--memory", "16M", "--guest", "builtin:idle"];

#[test]
fn every_knob_is_read_and_written_under_the_name_that_ksm_has_for_it() {
    let served = Served::new(1, &IDLE);
    let socket = &served.socket();
    let before = knobs(socket);
    assert_eq!(before.as_object().map(serde_json::Map::len), Some(KNOB_NAMES.len()));
    // Two of them cannot be changed while anything is shared.
    unmerge(socket);
    let unmerged = knobs(socket);
    for name in KNOB_NAMES {
        let other = match name {
            "advisor_mode" => json!("scan-time"),
            "run" | "merge_across_nodes" | "smart_scan" | "use_zero_pages" => json!(0),
            "advisor_min_pages_to_scan" | "advisor_max_pages_to_scan" => json!(777),
            _ => json!(77),
        };
        let changed = granted(&patch(socket, "/v1/dedup", &json!({ name: other })));
        let mut expected = unmerged.clone();
        expected[name] = other;
        assert_eq!((&changed, &knobs(socket)), (&expected, &expected));
        let back = patch(socket, "/v1/dedup", &json!({ name: unmerged[name] }));
        assert_eq!(granted(&back), unmerged);
    }
    let restored = patch(socket, "/v1/dedup", &json!({ "run": 1 }));
    assert_eq!(granted(&restored), before);
    served.end();
}

#[test]
fn bad_values_are_refused_with_what_is_allowed_and_nothing_is_changed() {
    let served = Served::new(1, &IDLE);
    let socket = &served.socket();
    let before = knobs(socket);
    for (key, value, part) in [
        ("run", json!(3), "0 (stop), 1 (fold) or 2"),
        ("pages_to_scan", json!(0), "from 1 to 4294967295"),
        ("pages_to_scan", json!(1e300), "from 1 to 4294967295"),
        ("sleep_millisecs", json!(-1), "from 0 to 86400000"),
        ("max_page_sharing", json!(1), "from 2 to 1048576"),
        ("smart_scan", json!("perhaps"), "0 or 1"),
        ("advisor_mode", json!("magic"), "none or scan-time"),
        ("advisor_max_cpu", json!(101), "from 1 to 100"),
        ("pages_to_skip", json!(1), "pages_to_scan"),
        ("run", json!(null), "number"),
    ] {
        // One that is good, besides: all of them, or none.
        let body = json!({ "advisor_target_scan_time": 7, key: value });
        let answer = patch(socket, "/v1/dedup", &body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let error = answer.json();
        assert!(text(&error["error"]).contains(part), "{body}: {error}");
        assert!(!text(&error["hint"]).is_empty(), "{body}: {error}");
        assert_eq!(knobs(socket), before, "{body}");
    }
    served.end();
}

#[test]
fn unmerging_everything_lets_others_be_answered_and_frees_knobs_that_were_busy() {
    // In small steps, so that there are many of them.
    let small = ["--memory", "64M", "--guest", "builtin:idle", "--knob", "pages_to_scan=32"];
    let served = Served::new(2, &small);
    let socket = &served.socket();
    settle(socket);
    let folded = get(socket, "/v1/dedup");
    assert!(number(&folded, "pages_sharing") > 5000, "{folded}");

    let busy = patch(socket, "/v1/dedup", &json!({ "max_page_sharing": 4 }));
    assert_eq!(busy.status, 409, "{busy:?}");
    assert!(text(&busy.json()["error"]).contains("run=2"), "{busy:?}");
    assert_eq!(knobs(socket)["max_page_sharing"], 256);

    granted(&patch(socket, "/v1/dedup", &json!({ "run": 2 })));
    // Each look that finds less than all, and more than nothing, was answered in between.
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let unmerged = loop {
        let stats = get(socket, "/v1/dedup");
        let merging = sum(&stats, "merging_pages");
        if sum(&stats, "merging_pages") + sum(&stats, "zero_pages") == 0 {
            break stats;
        }
        seen.push(merging);
        assert!(Instant::now() < deadline, "{stats}");
        let late = request(socket, "POST", "/v1/dedup/settle", "");
        assert_eq!(late.status, 409, "{late:?}");
        assert!(text(&late.json()["hint"]).contains("run"), "{late:?}");
    };
    seen.dedup();
    assert!(seen.len() > 2, "the unmerging was not looked at while it went on: {seen:?}");
    assert!(seen.is_sorted_by(|earlier, later| earlier >= later), "{seen:?}");
    assert_eq!(number(&unmerged, "pages_shared"), 0, "{unmerged}");
    assert_eq!(number(&unmerged, "saved_bytes"), 0, "{unmerged}");
    assert!(number(&unmerged, "unmerges") >= sum(&folded, "merging_pages"), "{unmerged}");

    let set = json!({ "max_page_sharing": 4, "pages_to_scan": 16384 });
    assert_eq!(granted(&patch(socket, "/v1/dedup", &set))["max_page_sharing"], 4);
    granted(&patch(socket, "/v1/dedup", &json!({ "run": 1 })));
    settle(socket);
    let again = get(socket, "/v1/dedup");
    let (before, after) = (number(&folded, "pages_sharing"), number(&again, "pages_sharing"));
    assert!(after * 100 >= before * 99, "{before}: {again}");
    assert!(number(&again, "stable_node_chains") <= number(&again, "stable_node_dups"));
    served.end();
}

#[test]
fn a_vm_that_is_switched_off_has_its_own_memory_again_and_merges_when_it_is_on() {
    let served = Served::new(3, &["--memory", "16M", "--guest", "builtin:churn"]);
    let socket = &served.socket();
    let before = wait_until(socket, |stats| (0..3).all(|vm| merging(stats, vm) > 500));
    let answer = granted(&patch(socket, "/v1/vms/1", &json!({ "dedup": "off" })));
    assert_eq!(answer["dedup"], "off");
    let off = wait_until(socket, |stats| merging(stats, 1) == 0);
    assert_eq!(vm(&off, 1)["mode"], "off");
    assert_eq!(
        (&vm(&off, 1)["zero_pages"], &vm(&off, 1)["unshared_pages"]),
        (&0.into(), &0.into())
    );
    assert!(merging(&off, 0) * 2 > merging(&before, 0), "the others share on: {off}");
    assert_eq!(get(socket, "/v1/vms/1")["dedup"], "off");

    let answer = granted(&patch(socket, "/v1/vms/1", &json!({ "dedup": "zero" })));
    assert_eq!(answer["dedup"], "zero");
    let zero = wait_until(socket, |stats| number(vm(stats, 1), "zero_pages") > 100);
    assert_eq!((merging(&zero, 1), &vm(&zero, 1)["mode"]), (0, &"zero".into()), "{zero}");

    assert!(served.says(&["set", "--vm", "1", "dedup=on"]).contains("VM 1: dedup=on"));
    wait_until(socket, |stats| merging(stats, 1) > 500);
    assert_eq!(get(socket, "/v1/vms/1")["dedup"], "on");
    assert_eq!(patch(socket, "/v1/vms/9", &json!({ "dedup": "off" })).status, 404);
    served.end();
}

#[test]
fn vms_that_were_launched_unfolded_can_be_folded_while_they_run() {
    let off = ["--memory", "16M", "--guest", "builtin:churn", "--dedup", "off"];
    let served = Served::new(2, &off);
    let socket = &served.socket();
    let modes = || {
        let stats = get(socket, "/v1/dedup");
        assert_eq!(stats["domains"], json!([]), "nobody looks at them");
        [0, 1].map(|vm| stats["vms"][vm]["mode"].clone())
    };
    assert_eq!(modes(), ["off", "off"]);
    let off = json!({ "kind": "mode", "detail": "off" });
    let page = get(socket, "/v1/dedup/rmap?vm=0&gpa=0x3000");
    assert_eq!((&page["reason"], &page["linear"]), (&off, &json!(3)), "{page}");
    let words = served.says(&["explain", "--vm", "0", "--gpa", "0x3000"]);
    assert!(words.contains("its VM's mode is off") && words.contains("--vm 0 dedup=on"), "{words}");
    let nothing = request(socket, "GET", "/v1/dedup/rmap?vm=0&gpa=0x1000000", "");
    assert_eq!(nothing.status, 404, "{nothing:?}");
    let refused = patch(socket, "/v1/vms/0", &json!({ "dedup": "off", "gpa": 0, "bytes": 4096 }));
    assert_eq!(refused.status, 409, "{refused:?}");
    // Off as it is already.
    granted(&patch(socket, "/v1/vms/0", &json!({ "dedup": "off" })));
    assert_eq!(modes(), ["off", "off"]);

    for vm in 0..2 {
        let answer = granted(&patch(socket, &format!("/v1/vms/{vm}"), &json!({ "dedup": "on" })));
        assert_eq!(answer["dedup"], "on");
    }
    wait_until(socket, |stats| {
        (0..2).all(|vm| merging(stats, vm) > 500) && number(stats, "breaks") > 100
    });
    assert_ne!(get(socket, "/v1/dedup/rmap?vm=0&gpa=0x3000")["reason"], off);
    granted(&patch(socket, "/v1/vms/1", &json!({ "dedup": "off" })));
    wait_until(socket, |stats| merging(stats, 1) == 0);
    let switched = get(socket, "/v1/dedup/rmap?vm=1&gpa=0x3000");
    assert_eq!(switched["reason"], off, "{switched}");
    let stopped = request(socket, "PUT", "/v1/vms/1/stop", "");
    assert_eq!(stopped.status, 200, "{stopped:?}");
    let gone = request(socket, "GET", "/v1/dedup/rmap?vm=1&gpa=0x3000", "");
    assert_eq!(gone.status, 409, "{gone:?}");
    assert_eq!(patch(socket, "/v1/vms/1", &json!({ "dedup": "off" })).status, 409);
    served.running.signal("TERM");
    let ended = served.running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.json()["vms"][0]["corrupt"], 0);
}

#[test]
fn the_places_of_a_shared_page_name_each_other_and_a_range_that_is_opted_out_is_private() {
    let served = Served::new(3, &IDLE);
    let socket = &served.socket();
    settle(socket);
    let rmap = |vm: u64, gpa: u64| get(socket, &format!("/v1/dedup/rmap?vm={vm}&gpa={gpa:#x}"));
    let shared = (0..4096).map(|page| rmap(0, page * 4096)).find(|page| {
        page["reason"]["kind"] == "shared"
            && page["mappings"].as_array().is_some_and(|all| all.len() >= 3)
    });
    let shared = shared.expect("three guests have equal pages");
    let gpa = number(&shared, "gpa");
    let places = shared["mappings"].as_array().expect("an array");
    for place in places {
        let other = rmap(number(place, "vm"), number(place, "gpa"));
        assert_eq!((&other["state"], &other["reason"]), (&shared["state"], &shared["reason"]));
        assert_eq!(other["mappings"].as_array().map(Vec::len), Some(places.len()), "{other}");
    }
    let words = served.says(&["explain", "--vm", "0", "--gpa", &format!("{gpa:#x}")]);
    let other = places.iter().find(|place| place["vm"] != 0).expect("another VM");
    let at = format!("VM {} page {}", other["vm"], other["linear"]);
    assert!(words.contains("It shares slot") && words.contains(&at), "{at}: {words}");
    let json = served.says(&["explain", "--vm", "0", "--gpa", &gpa.to_string(), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON")["mappings"], shared["mappings"]);

    let range = json!({ "dedup": "off", "gpa": gpa, "bytes": 4096 });
    assert_eq!(granted(&patch(socket, "/v1/vms/0", &range))["dedup"], "on");
    settle(socket);
    let private = rmap(0, gpa);
    assert_eq!(
        (&private["reason"]["kind"], &private["mappings"]),
        (&"opted_out".into(), &json!([]))
    );
    let (address, size) = (format!("{gpa:#x}"), "4K");
    let args = ["set", "--vm", "0", "--gpa", &address, "--bytes", size, "dedup=on"];
    assert!(served.says(&args).starts_with(&format!("4K at {gpa:#x} of VM 0: dedup=on")));
    settle(socket);
    assert_eq!(rmap(0, gpa)["reason"]["kind"], "shared");

    for (target, status) in [
        ("vm=3&gpa=0", 404),
        ("vm=0&gpa=0x1000000", 404),
        ("vm=0&gpa=18446744073709551615", 404),
        ("vm=0", 400),
        ("vm=x&gpa=0", 400),
        ("vm=0&gpa=-4096", 400),
        ("vm=0&gpa=0&slot=1", 400),
    ] {
        let answer = request(socket, "GET", &format!("/v1/dedup/rmap?{target}"), "");
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(!text(&answer.json()["hint"]).is_empty(), "{target}: {answer:?}");
    }
    served.end();
}

#[test]
fn stores_are_compacted_under_running_guests() {
    let served = Served::new(2, &["--memory", "16M", "--guest", "builtin:churn"]);
    let socket = &served.socket();
    wait_until(socket, |stats| (0..2).all(|vm| merging(stats, vm) > 500));
    let answer = request(socket, "POST", "/v1/dedup/compact", "{\"all\": true}");
    let report = granted(&answer);
    assert!(number(&report, "moved_slots") > 100, "{report}");
    assert!(number(&report, "moved_pages") >= number(&report, "moved_slots"), "{report}");
    let gainful = granted(&request(socket, "POST", "/v1/dedup/compact", ""));
    assert!(gainful["extents_after"].is_u64(), "{gainful}");
    for args in [&["compact"][..], &["compact", "--all"]] {
        let words = served.says(args);
        assert!(words.starts_with("moved ") && words.contains("extents "), "{words}");
    }
    let json = served.says(&["compact", "--json"]);
    assert!(serde_json::from_str::<Value>(&json).expect("JSON")["vmas_after"].is_u64());
    let stats = get(socket, "/v1/dedup");
    assert!(number(&stats, "moves") >= number(&report, "moved_pages"), "{stats}");
    served.end();
}

#[test]
fn the_command_sets_knobs_and_says_what_has_changed() {
    let knob = ["--knob", "max_page_sharing=64", "--knob", "sleep_millisecs=0"];
    let served = Served::new(2, &[&IDLE[..], &knob].concat());
    let socket = &served.socket();
    assert_eq!(knobs(socket)["max_page_sharing"], 64);
    assert!(served.says(&["stats"]).contains("sleep_millisecs=0 max_page_sharing=64"));
    let words = served.says(&["set", "pages_to_scan=100", "smart_scan=0", "sleep_millisecs=0"]);
    assert_eq!(words, "pages_to_scan  16384 → 100\nsmart_scan     1 → 0\n");
    assert_eq!(served.says(&["set", "pages_to_scan=100"]), "nothing has changed\n");
    assert_eq!(
        (&knobs(socket)["pages_to_scan"], &knobs(socket)["smart_scan"]),
        (&100.into(), &0.into())
    );

    settle(socket);
    let before = knobs(socket);
    for (args, code, part) in [
        (&["set"][..], 2, "KEY=VALUE"),
        (&["set", "run"], 2, "KEY=VALUE"),
        (&["set", "run=3"], 2, "0 (stop), 1 (fold) or 2"),
        (&["set", "pages_to_scan=7", "pages_to_scan=8"], 2, "twice"),
        (&["set", "pages_to_scan=7", "pages_to_skip=8"], 2, "there is no knob 'pages_to_skip'"),
        (&["set", "pages_to_scan=7", "max_page_sharing=8"], 1, "run=2"),
        (&["set", "dedup=off"], 2, "there is no knob 'dedup'"),
        (&["set", "--vm", "0", "run=1"], 2, "dedup=off"),
        (&["set", "--vm", "0", "dedup=maybe"], 2, "off, zero, on"),
        (&["set", "--vm", "9", "dedup=off"], 1, "there is no VM 9"),
        (&["set", "--vm", "0", "--gpa", "0", "dedup=off"], 2, "--bytes"),
        (&["set", "--vm", "0", "--gpa", "0", "--bytes", "4K", "dedup=zero"], 2, "dedup=on"),
        (&["set", "--vm", "0", "--gpa", "1", "--bytes", "4K", "dedup=off"], 1, "whole pages"),
        (&["explain", "--vm", "0"], 2, "--gpa"),
        (&["explain", "--vm", "0", "--gpa", "here"], 2, "0x100000"),
        (&["explain", "--vm", "0", "--gpa", "1G"], 1, "no memory at 0x40000000"),
        (&["explain", "--vm", "0", "--gpa", "1GB"], 2, "0x100000"),
        (&["explain", "--vm", "0", "--gpa", "0x40000000"], 1, "no memory at 0x40000000"),
        (&["explain", "--vm", "9", "--gpa", "0"], 1, "there is no VM 9"),
    ] {
        let output = served.command(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", describe(&output));
        assert!(output.stdout.is_empty(), "{args:?}: {}", describe(&output));
        assert!(error.starts_with("error: ") && error.contains(part), "{args:?}: {error}");
        assert!(error.contains("\nhelp: ") || error.contains("--help"), "{args:?}: {error}");
    }
    assert_eq!(knobs(socket), before, "nothing of that was done");
    let stats = stdout_json(&served.command(&["stats", "--json"]));
    assert_eq!(stats["knobs"], before);
    served.end();
}

fn patch(socket: &Path, target: &str, body: &Value) -> Answer {
    request(socket, "PATCH", target, &body.to_string())
}

/// The JSON of a successful answer.
fn granted(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn knobs(socket: &Path) -> Value {
    get(socket, "/v1/dedup")["knobs"].clone()
}

fn settle(socket: &Path) {
    granted(&request(socket, "POST", "/v1/dedup/settle", ""));
}

/// Takes everything apart, and returns when nothing is shared.
fn unmerge(socket: &Path) {
    granted(&patch(socket, "/v1/dedup", &json!({ "run": 2 })));
    wait_until(socket, |stats| number(stats, "pages_shared") == 0);
}

/// Looks at the counters until they are as they should be.
fn wait_until(socket: &Path, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = get(socket, "/v1/dedup");
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats}");
    }
}

fn vm(stats: &Value, id: u32) -> &Value {
    let vms = stats["vms"].as_array().expect("an array");
    vms.iter().find(|vm| vm["id"] == id).unwrap_or_else(|| panic!("no VM {id}: {stats}"))
}

fn merging(stats: &Value, id: u32) -> u64 {
    number(vm(stats, id), "merging_pages")
}

fn sum(stats: &Value, field: &str) -> u64 {
    stats["vms"].as_array().expect("an array").iter().map(|vm| number(vm, field)).sum()
}

fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_else(|| panic!("{field}: {object}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
