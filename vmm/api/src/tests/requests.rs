//! Each request, and each way to get it wrong.

use std::time::Duration;

use pagefold_dedup::stats::DedupStats;
use tokio::runtime::Builder;

use super::Served;
use crate::{ApiClient, ApiServer, BindError, ClientError, SocketError};

#[test]
fn all_vms_are_listed_and_each_can_be_asked_for() {
    let served = Served::new();
    let all = served.ask("GET", "/v1/vms", "");
    assert_eq!(all.status, 200);
    assert_eq!(all.json().as_array().expect("an array").len(), 2);
    let one = served.ask("GET", "/v1/vms/2", "");
    let mut listed = all.json()[1].clone();
    // Not counted for each of a list.
    listed["unmerging_pages"] = one.json()["unmerging_pages"].clone();
    assert_eq!((one.status, &one.json()), (200, &listed));
    assert_eq!(one.json()["state"], "stopped");
}

#[test]
fn a_vm_is_paused_resumed_and_stopped() {
    let served = Served::new();
    for (verb, state) in
        [("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("stop", "stopped")]
    {
        let answer = served.ask("PUT", &format!("/v1/vms/1/{verb}"), "");
        assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some(state)));
    }
}

#[test]
fn pausing_a_stopped_vm_is_a_conflict() {
    let served = Served::new();
    for verb in ["pause", "resume"] {
        let answer = served.ask("PUT", &format!("/v1/vms/2/{verb}"), "");
        assert_eq!(answer.status, 409);
        assert!(answer.error().contains("VM 2 is"), "{answer:?}");
    }
}

#[test]
fn unknown_and_malformed_ids_are_refused() {
    let served = Served::new();
    for (id, status) in [
        ("3", 404),
        ("4294967295", 404),
        ("4294967296", 400),
        ("-1", 400),
        ("+1", 400),
        ("x", 400),
        ("%31%zz", 400),
        ("%ff", 400),
        ("1%2F2", 400),
    ] {
        let answer = served.ask("GET", &format!("/v1/vms/{id}"), "");
        assert_eq!(answer.status, status, "{id}: {answer:?}");
        answer.error();
    }
}

#[test]
fn unknown_paths_and_wrong_methods_say_what_there_is() {
    let served = Served::new();
    for target in ["/", "/v1", "/v1/vms/", "/v1/vms/1/destroy", "/v2/vms", "/v1/dedup/", "/v1//vms"]
    {
        let answer = served.ask("GET", target, "");
        assert_eq!(answer.status, 404, "{target}");
        answer.error();
    }
    for (method, target) in [
        ("POST", "/v1/vms"),
        ("GET", "/v1/vms/1/pause"),
        ("DELETE", "/v1/vms/1"),
        ("PATCH", "/v1/vms"),
        ("PATCH", "/v1/vms/1/pause"),
        ("PUT", "/v1/dedup"),
        ("POST", "/v1/dedup/rmap?vm=1&gpa=0"),
        ("GET", "/v1/dedup/compact"),
        ("GET", "/v1/dedup/settle"),
        ("BREW", "/metrics"),
    ] {
        let answer = served.ask(method, target, "");
        assert_eq!(answer.status, 405, "{method} {target}");
        assert!(answer.error().contains(method));
        assert!(answer.head.to_lowercase().contains("allow: "), "{answer:?}");
    }
}

#[test]
fn dedup_answers_with_the_counters_as_they_are() {
    let served = Served::new();
    let answer = served.ask("GET", "/v1/dedup", "");
    assert_eq!(answer.status, 200);
    let stats: DedupStats = serde_json::from_str(&answer.body).expect("counters");
    assert_eq!(stats, *served.fake.stats.lock().expect("unpoisoned"));
    assert_eq!(answer.json()["merges"], 7);
    assert!(answer.json()["resident_bytes"].is_null());
}

#[test]
fn settle_answers_when_all_is_settled() {
    let served = Served::new();
    let bodies = [
        ("", 30_000),
        ("{}", 30_000),
        (" {\"timeout_ms\": 5}\n", 5),
        ("{\"timeout_ms\":600000}", 600_000),
        ("{\"timeout_ms\":\"0x64\"}", 100),
        ("{\"timeout_ms\":\"1K\"}", 1024),
    ];
    for (body, limit_ms) in bodies {
        served.fake.settle.send(true).expect("a listener");
        let answer = served.ask("POST", "/v1/dedup/settle", body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.json(),
            serde_json::json!({"settled": true, "passes": 3, "elapsed_ms": 17})
        );
        let limit = served.fake.limits.lock().expect("unpoisoned").pop();
        assert_eq!(limit, Some(Duration::from_millis(limit_ms)));
    }
}

#[test]
fn an_unsettled_end_is_a_504_with_the_report() {
    let served = Served::new();
    served.fake.settle.send(false).expect("a listener");
    let answer = served.ask("POST", "/v1/dedup/settle", "{\"timeout_ms\":1}");
    assert_eq!(answer.status, 504);
    answer.error();
    assert_eq!(answer.json()["report"]["passes"], 3);
}

#[test]
fn settle_refuses_what_it_does_not_understand() {
    let served = Served::new();
    for body in [
        "{",
        "[]x",
        "null",
        "7",
        "{\"timeout\":1}",
        "{\"timeout_ms\":-1}",
        "{\"timeout_ms\":\"1s\"}",
        "{\"timeout_ms\":1,\"x\":2}",
        "{\"timeout_ms\":600001}",
        "{\"timeout_ms\":99999999999999999999}",
    ] {
        let answer = served.ask("POST", "/v1/dedup/settle", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        answer.error();
    }
    assert!(served.fake.limits.lock().expect("unpoisoned").is_empty());
}

#[test]
fn requests_without_a_body_refuse_one() {
    let served = Served::new();
    let answer = served.ask("PUT", "/v1/vms/1/pause", "{}");
    assert_eq!(answer.status, 400);
    answer.error();
    assert_eq!(served.ask("GET", "/v1/vms/1", "").json()["state"], "running");
}

#[test]
fn folding_that_has_ended_is_said() {
    let served = Served::new();
    *served.fake.gone.lock().expect("unpoisoned") = true;
    for target in ["/v1/dedup", "/metrics"] {
        let answer = served.ask("GET", target, "");
        assert_eq!((answer.status, answer.error().as_str()), (503, "folding has ended"));
    }
}

#[test]
fn metrics_are_prometheus_text() {
    let served = Served::new();
    let answer = served.ask("GET", "/metrics", "");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{answer:?}");
    let mut announced: Vec<&str> = Vec::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(!announced.contains(&name), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            announced.push(name);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert_eq!(announced.last(), Some(&name), "{line}");
            let value = line.rsplit(' ').next().expect("a value");
            value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    let has = |line: &str| answer.body.lines().any(|found| found == line);
    assert!(has("pagefold_pages_sharing 20"));
    assert!(has("pagefold_general_profit_bytes -100"));
    assert!(has("pagefold_merges_total 7"));
    assert!(has("pagefold_pages_skipped_total 6"));
    assert!(has("pagefold_moves_total 0"));
    assert!(has("pagefold_unmerges_total 0"));
    assert!(has("pagefold_vma_bytes 95"));
    assert!(has("pagefold_vm_deferred_pages{vm=\"1\",domain=\"user \\\"0\\\"\"} 9"));
    // What has an item need not be in a tree.
    assert!(has("# HELP pagefold_vm_rmap_items Rmap items that take memory."));
    assert!(has("pagefold_vm_rmap_items{vm=\"1\",domain=\"user \\\"0\\\"\"} 8"));
    assert!(has("pagefold_vm_profit_bytes{vm=\"1\",domain=\"user \\\"0\\\"\"} -7"));
    assert!(has("pagefold_disk_reads_total{vm=\"1\",device=\"disk0\"} 11"));
    assert!(has("pagefold_disk_written_bytes_total{vm=\"2\",device=\"disk0\"} 12"));
    assert!(has("pagefold_rng_requests_total{vm=\"1\",device=\"rng\"} 13"));
    assert!(has("pagefold_rng_bytes_total{vm=\"1\",device=\"rng\"} 14"));
    for device in ["disk0", "rng"] {
        let of = |what, count| {
            format!("pagefold_virtio_{what}_total{{vm=\"1\",device=\"{device}\"}} {count}")
        };
        assert!(has(&of("notifications", 9)) && has(&of("interrupts", 10)), "{device}");
    }
    assert!(!answer.body.contains("pagefold_disk_reads_total{vm=\"1\",device=\"rng\"}"));
    assert!(has("pagefold_cpu_seconds_total 1.5"));
    assert!(has("pagefold_domain_store_bytes{domain=\"user \\\"0\\\"\"} 40960"));
    for (bus, access, count) in
        [("port", "read", 5), ("port", "write", 6), ("mmio", "read", 7), ("mmio", "write", 8)]
    {
        let labels = format!("vm=\"1\",bus=\"{bus}\",access=\"{access}\"");
        assert!(has(&format!("pagefold_vm_unclaimed_accesses_total{{{labels}}} {count}")));
    }
    assert!(has("pagefold_vm_private_bytes{vm=\"1\",domain=\"user \\\"0\\\"\"} 4096"));
    assert!(has("pagefold_vm_merges_total{vm=\"2\",domain=\"user \\\"0\\\"\"} 7"));
    // What the kernel did not report has no series.
    assert!(!answer.body.contains("pagefold_resident_bytes"));
    assert!(!answer.body.contains("pagefold_vm_private_bytes{vm=\"2\""));
    assert!(!answer.body.contains("pagefold_guest_corrupt_total"));
}

#[test]
fn the_client_reads_what_the_server_says() {
    let served = Served::new();
    let client = ApiClient::new(served.server.path()).expect("a client");
    assert_eq!(client.dedup().expect("counters").pages_sharing, 20);
    *served.fake.gone.lock().expect("unpoisoned") = true;
    assert!(matches!(client.dedup(), Err(ClientError::Refused { status, .. }) if status == 503));
    let nobody = ApiClient::new(&served.directory.path().join("nobody")).expect("a client");
    assert!(matches!(nobody.dedup(), Err(ClientError::Connect { .. })));
}

#[test]
fn server_and_client_work_inside_an_async_program() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Made, used, refused and dropped in it.
    runtime.block_on(async {
        let served = Served::new();
        let client = ApiClient::new(served.server.path()).expect("a client");
        assert_eq!(client.dedup().expect("counters").pages_sharing, 20);
        let again = ApiServer::bind(served.server.path(), served.fake.clone());
        assert!(matches!(again, Err(BindError::Socket(SocketError::InUse { .. }))), "{again:?}");
        let path = served.server.path().to_owned();
        drop(served);
        assert!(matches!(client.dedup(), Err(ClientError::Connect { .. })));
        assert!(!path.exists());
    });
}

#[test]
fn a_request_that_panics_is_answered_and_hurts_no_other() {
    let served = Served::new();
    *served.fake.gone.lock().expect("unpoisoned") = true;
    // More than are carried out at once.
    for _ in 0..40 {
        let answer = served.ask("POST", "/v1/dedup/compact", "");
        assert_eq!((answer.status, &*answer.error()), (500, "the request failed: it panicked"));
    }
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}
