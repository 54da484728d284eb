//! The control socket of a real run, asked by a client that knows nothing of Pagefold.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::{fs, io, thread};

use pagefold_tests::harness::PATIENCE;
use pagefold_tests::harness::command::{Running, describe, output, pagefold};
use pagefold_tests::harness::guest_ram::{guest_mappings, store};
use pagefold_tests::harness::http::{begin, finish, get, raw, request};
use pagefold_tests::harness::prometheus;
use serde_json::Value;
use tempfile::TempDir;

/// A run whose guests are ready, and its socket.
struct Served {
    running: Running,
    directory: TempDir,
}

impl Served {
    fn new(count: u32, guest: &str) -> Self {
        let directory = TempDir::new().expect("a folder");
        let args = ["--memory", "16M", "--guest", guest];
        let running = Running::with_ready_guests(count, &args, &directory.path().join("api"));
        Self { running, directory }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("api")
    }

    /// Waits until a guest has written and verified more than it has now.
    fn wait_for_progress(&mut self, vm: u32) {
        let socket = self.socket();
        let (writes, verifications) = progress(&socket, vm);
        loop {
            self.running.wait_for_line(&format!("VM {vm} prints BEAT"));
            let now = progress(&socket, vm);
            if now.0 > writes && now.1 > verifications {
                return;
            }
        }
    }

    /// Ends the run, asserts that it ended well, and returns its report.
    fn end(self) -> Value {
        self.running.signal("TERM");
        let ended = self.running.end();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.json()
    }
}

#[test]
fn a_paused_guest_makes_no_progress_and_goes_on_when_it_is_resumed() {
    let mut served = Served::new(2, "builtin:churn");
    let socket = &served.socket();
    assert_eq!(put(socket, "/v1/vms/0/pause")["state"], "paused");
    assert_eq!(put(socket, "/v1/vms/0/pause")["state"], "paused", "once more does nothing");
    let paused = progress(socket, 0);
    // Three heartbeats of its neighbour, each later than the one before.
    for _ in 0..3 {
        served.wait_for_progress(1);
    }
    assert_eq!(progress(socket, 0), paused, "a paused guest went on");
    assert_eq!(put(socket, "/v1/vms/0/resume")["state"], "running");
    served.wait_for_progress(0);

    // One that is paused at the end is woken for it, and has missed nothing.
    assert_eq!(put(socket, "/v1/vms/1/pause")["state"], "paused");
    for vm in served.end()["vms"].as_array().expect("an array") {
        assert_eq!((&vm["corrupt"], &vm["clean"]), (&0.into(), &true.into()), "{vm}");
    }
}

#[test]
fn one_vm_of_three_is_stopped_and_the_figures_of_the_others_stay_exact() {
    let served = Served::new(3, "builtin:idle");
    let socket = &served.socket();
    settle(socket);
    let before = get(socket, "/v1/dedup");
    assert_exact(&served, &before, 3);
    assert_eq!(put(socket, "/v1/vms/1/stop")["state"], "stopped");
    assert_eq!(put(socket, "/v1/vms/1/stop")["state"], "stopped", "once more does nothing");
    for verb in ["pause", "resume"] {
        let answer = request(socket, "PUT", &format!("/v1/vms/1/{verb}"), "");
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(text(&answer.json()["error"]).contains("it has stopped"), "{answer:?}");
    }
    // Pages that only two of three had are their own again; those of two are shared on.
    settle(socket);
    let after = get(socket, "/v1/dedup");
    assert_exact(&served, &after, 2);
    let ids: Vec<_> =
        after["vms"].as_array().expect("an array").iter().map(|vm| &vm["id"]).collect();
    assert_eq!(ids, [0, 2]);
    let sharing = |stats: &Value| stats["pages_sharing"].as_u64().expect("a number");
    let per_vm = sharing(&before) / 2;
    assert!(sharing(&after).abs_diff(per_vm) * 100 <= per_vm, "{before} → {after}");
    assert_eq!(get(socket, "/v1/vms").as_array().map(Vec::len), Some(3), "it is not forgotten");

    let report = served.end();
    let kinds: Vec<_> = (0..3).map(|vm| &report["vms"][vm]["stop_reason"]["kind"]).collect();
    assert_eq!(kinds, ["exited", "requested", "exited"]);
    for vm in [0, 2] {
        assert_eq!(report["vms"][vm]["corrupt"], 0);
    }
}

#[test]
fn a_vm_that_is_stopped_during_the_launch_is_reported_and_the_others_are_started() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    let path = socket.to_str().expect("UTF-8");
    let args = ["run", "-n", "200", "--memory", "4M", "--guest", "builtin:idle", "--for", "1s"];
    let mut running = Running::start(&[&args[..], &["--json", "--api-socket", path]].concat());
    running.wait_for_line("control socket at");
    // The last is built some time after the first; none is started before it.
    while request(&socket, "PUT", "/v1/vms/5/stop", "").status == 404 {}
    assert_eq!(get(&socket, "/v1/vms/0")["state"], "created", "it was not stopped in time");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = ended.json();
    let vms = report["vms"].as_array().expect("an array");
    assert_eq!(vms.len(), 200);
    for vm in vms {
        let kind = if vm["id"] == 5 { "requested" } else { "exited" };
        assert_eq!(vm["stop_reason"]["kind"], kind, "{vm}");
        assert_eq!(vm["ready_ms"].is_u64(), vm["id"] != 5, "{vm}");
    }
}

#[test]
fn a_run_ends_with_its_report_when_all_its_vms_were_stopped_before_they_were_ready() {
    let directory = TempDir::new().expect("a folder");
    let socket = directory.path().join("api");
    let path = socket.to_str().expect("UTF-8");
    let args = ["run", "-n", "2", "--memory", "1G", "--json", "--api-socket", path];
    let mut running = Running::start(&args);
    running.wait_for_line("VMs are running");
    assert_eq!(put(&socket, "/v1/vms/0/stop")["state"], "stopped");
    // The run may have ended before it can answer.
    let _ = request(&socket, "PUT", "/v1/vms/1/stop", "");
    let ended = running.end();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report = ended.json();
    let ready: Vec<_> = (0..2).map(|vm| &report["vms"][vm]["ready_ms"]).collect();
    assert_eq!(ready, [&Value::Null; 2], "they were not stopped in time: {report}");
    for field in ["guest_bytes", "resident_bytes", "saved_bytes", "ideal_saved_bytes"] {
        assert_eq!(report["memory"][field], Value::Null, "{field} is not known any more: {report}");
    }
}

#[test]
fn settling_answers_when_all_is_folded_or_the_time_is_over() {
    let served = Served::new(2, "builtin:idle");
    let socket = &served.socket();
    for body in ["", "{}", "{\"timeout_ms\": 30000}"] {
        let answer = request(socket, "POST", "/v1/dedup/settle", body);
        assert_eq!((answer.status, &answer.json()["settled"]), (200, &true.into()), "{answer:?}");
    }
    let late = request(socket, "POST", "/v1/dedup/settle", "{\"timeout_ms\": 0}");
    assert_eq!(late.status, 504, "{late:?}");
    assert_eq!(late.json()["report"]["settled"], false);
    assert!(!text(&late.json()["hint"]).is_empty());
    served.end();
}

#[test]
fn the_metrics_are_prometheus_text_and_say_what_the_json_says() {
    let mut served = Served::new(2, "builtin:idle");
    let socket = &served.socket();
    // What guests have found is not known before they report it.
    for vm in 0..2 {
        drop(served.running.wait_for_line(&format!("VM {vm} prints BEAT")));
    }
    settle(socket);
    let answer = request(socket, "GET", "/metrics", "");
    let stats = get(socket, "/v1/dedup");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.contains("version=0.0.4")));
    let samples = prometheus::parse(&answer.body);
    let metric = |name, label| prometheus::value(&samples, name, label);
    for (name, field) in [
        ("pagefold_pages_shared", "pages_shared"),
        ("pagefold_pages_sharing", "pages_sharing"),
        ("pagefold_pages_zero", "pages_zero"),
        ("pagefold_saved_bytes", "saved_bytes"),
        ("pagefold_vmas_used", "vmas_used"),
        ("pagefold_merges_total", "merges"),
        ("pagefold_pages_skipped_total", "pages_skipped"),
        ("pagefold_unmerges_total", "unmerges"),
        ("pagefold_moves_total", "moves"),
        ("pagefold_vma_bytes", "vma_bytes"),
    ] {
        assert_eq!(metric(name, None), stats[field].as_f64(), "{name}");
    }
    for id in ["0", "1"] {
        let vm = Some(("vm", id));
        assert_eq!(metric("pagefold_vm_pages", vm), Some(4096.0));
        assert_eq!(metric("pagefold_vm_running", vm), Some(1.0));
        assert_eq!(metric("pagefold_guest_corrupt_total", vm), Some(0.0));
    }
    served.end();
}

#[test]
fn garbage_is_answered_with_what_was_wrong_and_hurts_nobody() {
    let served = Served::new(2, "builtin:mix");
    let socket = &served.socket();
    for (method, target, body, status) in [
        ("GET", "/v1/vms/2", "", 404),
        ("GET", "/v1/vms/-1", "", 400),
        ("GET", "/v1/vms/0x", "", 400),
        ("GET", "/v1/vms/99999999999", "", 400),
        ("GET", "/v1/vms/%ff", "", 400),
        ("GET", "/v2/vms", "", 404),
        ("GET", "/", "", 404),
        ("DELETE", "/v1/vms/0", "", 405),
        ("GET", "/v1/vms/0/stop", "", 405),
        ("PUT", "/v1/vms/7/stop", "", 404),
        ("PUT", "/v1/vms/0/stop", "now", 400),
        ("POST", "/v1/dedup/settle", "{", 400),
        ("POST", "/v1/dedup/settle", "{\"timeout\": 1}", 400),
        ("POST", "/v1/dedup/settle", "{\"timeout_ms\": -1}", 400),
        ("POST", "/v1/dedup/settle", "{\"timeout_ms\": 1e300}", 400),
        ("POST", "/v1/dedup/settle", "7", 400),
        ("POST", "/v1/dedup/settle", "{\"timeout_ms\": 9999999999}", 400),
        ("PATCH", "/v1/dedup", "", 400),
        ("PATCH", "/v1/dedup", "[]", 400),
        ("PATCH", "/v1/dedup", "{\"run\": 0, \"run\": 2}", 400),
        ("PATCH", "/v1/dedup", "{\"run\": 0, \"walk\": 2}", 400),
        ("PATCH", "/v1/dedup", "{\"run\": 99999999999999999999999}", 400),
        ("PUT", "/v1/dedup", "{\"run\": 0}", 405),
        ("PATCH", "/v1/vms/0", "{}", 400),
        ("PATCH", "/v1/vms/0", "{\"dedup\": \"maybe\"}", 400),
        ("PATCH", "/v1/vms/0", "{\"dedup\": \"off\", \"gpa\": 1, \"bytes\": 4096}", 400),
        ("PATCH", "/v1/vms/0", "{\"dedup\": \"off\", \"gpa\": 16777216, \"bytes\": 4096}", 404),
        ("PATCH", "/v1/vms/7", "{\"dedup\": \"off\"}", 404),
        ("GET", "/v1/dedup/rmap", "", 400),
        ("GET", "/v1/dedup/rmap?vm=0&gpa=0x", "", 400),
        ("GET", "/v1/dedup/rmap?vm=7&gpa=0", "", 404),
        ("GET", "/v1/dedup/rmap?vm=0&gpa=0xffffffffffffffff", "", 404),
        ("POST", "/v1/dedup/compact", "{\"all\": 1}", 400),
    ] {
        let answer = request(socket, method, target, body);
        assert_eq!(answer.status, status, "{method} {target} {body}: {answer:?}");
        assert_says_why(&answer.json());
    }
    let large = "x".repeat(1 << 20);
    let heads: [(&[u8], u16); 5] = [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /v1/vms HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST /v1/dedup/settle HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9999999\r\n\r\n", 413),
    ];
    for (bytes, status) in heads {
        let answer = raw(socket, bytes);
        assert_eq!(answer.status, status, "{answer:?}");
        assert_says_why(&answer.json());
    }
    let endless = raw(socket, format!("GET /{large} HTTP/1.1\r\n\r\n").as_bytes());
    assert!([414, 431].contains(&endless.status), "{endless:?}");
    assert_says_why(&endless.json());
    // Nothing of that has done anything.
    for vm in get(socket, "/v1/vms").as_array().expect("an array") {
        assert_eq!((&vm["state"], &vm["dedup"]), (&"running".into(), &"on".into()), "{vm}");
    }
    assert_eq!(get(socket, "/v1/dedup")["knobs"]["run"], 1);
    served.end();
}

#[test]
fn a_settle_request_that_is_no_object_is_refused() {
    let served = Served::new(1, "builtin:idle");
    for body in ["[]", "[30000]", "null", "\"\""] {
        let answer = request(&served.socket(), "POST", "/v1/dedup/settle", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert_says_why(&answer.json());
    }
    served.end();
}

#[test]
fn clients_that_hang_or_leave_hold_up_nobody() {
    let served = Served::new(1, "builtin:churn");
    let socket = &served.socket();
    // One that never finishes its request, one that leaves while it is answered, one that waits.
    let mut silent = UnixStream::connect(socket).expect("somebody listens");
    silent.write_all(b"GET /v1/v").expect("taken");
    drop(begin(socket, "POST", "/v1/dedup/settle"));
    let waiting = begin(socket, "POST", "/v1/dedup/settle");
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || {
                for _ in 0..20 {
                    assert_eq!(get(&socket, "/v1/vms/0")["id"], 0);
                }
            })
        })
        .collect();
    for asker in askers {
        asker.join().expect("answered");
    }
    // The end of the run cuts off who has asked nothing, and answers who still waits.
    served.end();
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let ended = silent.read_to_end(&mut Vec::new());
    let is_late = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    assert!(!ended.is_err_and(|error| is_late(&error)), "still connected");
    let answer = finish(waiting);
    match answer.status {
        // Nothing changes any more once the guest has ended.
        200 => assert_eq!(answer.json()["settled"], true),
        503 => assert_says_why(&answer.json()),
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn many_idle_clients_shut_nobody_out() {
    let served = Served::new(1, "builtin:idle");
    let socket = &served.socket();
    let idle: Vec<_> =
        (0..100).map(|_| UnixStream::connect(socket).expect("somebody listens")).collect();
    let path = socket.to_str().expect("UTF-8");
    let stats = output(&["stats", "--json", "--api-socket", path]);
    assert!(stats.status.success(), "{}", describe(&stats));
    drop(idle);
    served.end();
}

#[test]
fn the_socket_is_its_users_alone_and_stats_reads_it() {
    let served = Served::new(1, "builtin:idle");
    let socket = served.socket();
    let mode = fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let path = socket.to_str().expect("UTF-8");
    let stats = output(&["stats", "--json", "--api-socket", path]);
    assert!(stats.status.success() && stats.stderr.is_empty(), "{stats:?}");
    let stats: Value = serde_json::from_slice(&stats.stdout).expect("JSON");
    assert_eq!(stats["vms"].as_array().map(Vec::len), Some(1));
    served.end();
}

#[test]
fn a_reader_of_statistics_who_leaves_ends_them_quietly() {
    let served = Served::new(1, "builtin:idle");
    let socket = served.socket();
    let path = socket.to_str().expect("UTF-8");
    let args = ["stats", "--watch", "--api-socket", path];
    for args in [&args[..], &[&args[..], &["--json"]].concat()] {
        let mut watch = pagefold(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pagefold starts");
        // What `head -1` does.
        let mut line = String::new();
        BufReader::new(watch.stdout.take().expect("a pipe")).read_line(&mut line).expect("read");
        assert!(!line.is_empty());
        let output = watch.wait_with_output().expect("it ends");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", describe(&output));
    }
    served.end();
}

/// A guest's writes and verifications, as far as it has reported.
fn progress(socket: &Path, vm: u32) -> (u64, u64) {
    let vm = get(socket, &format!("/v1/vms/{vm}"));
    let count = |field: &str| vm[field].as_u64().unwrap_or(0);
    (count("writes"), count("verifications"))
}

fn settle(socket: &Path) {
    let answer = request(socket, "POST", "/v1/dedup/settle", "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn put(socket: &Path, target: &str) -> Value {
    let answer = request(socket, "PUT", target, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Asserts that counters fit each other, and the kernel's figures.
fn assert_exact(served: &Served, stats: &Value, vm_count: u64) {
    let number = |object: &Value, field: &str| {
        object[field].as_u64().unwrap_or_else(|| panic!("{field}: {object}"))
    };
    let vms = stats["vms"].as_array().expect("an array");
    assert_eq!(vms.len() as u64, vm_count);
    let sum = |field| vms.iter().map(|vm| number(vm, field)).sum::<u64>();
    let (shared, sharing) = (number(stats, "pages_shared"), number(stats, "pages_sharing"));
    assert_eq!(sum("merging_pages"), shared + sharing, "{stats}");
    assert_eq!(sum("zero_pages"), number(stats, "pages_zero"), "{stats}");
    assert_eq!(number(stats, "saved_bytes"), (sharing + number(stats, "pages_zero")) * 4096);
    let pid = served.running.pid();
    assert_eq!(store(pid).held_bytes, shared * 4096, "{stats}");
    let private: u64 = guest_mappings(pid).iter().map(|mapping| mapping.anonymous_bytes).sum();
    // Guests verify, and touch their stacks, between one look and the other.
    let resident = number(stats, "resident_bytes") - shared * 4096;
    assert!(resident.abs_diff(private) * 100 <= private, "{private}: {stats}");
}

fn assert_says_why(error: &Value) {
    for field in ["error", "hint"] {
        assert!(!text(&error[field]).is_empty(), "{field}: {error}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
