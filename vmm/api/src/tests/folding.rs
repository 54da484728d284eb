//! Changing what is folded, and asking about a page.

use pagefold_dedup::{CompactReport, CompactScope, DedupMode, Explanation, Knobs, Run, VmId};

use super::Served;
use pagefold_api_types::GuestPhys;
use pagefold_api_types::request::VmChange;

use crate::{ApiClient, ClientError};

fn knobs(served: &Served) -> Knobs {
    served.fake.stats.lock().expect("unpoisoned").knobs
}

#[test]
fn knobs_are_set_by_their_names_and_answered_as_they_are_then() {
    let served = Served::new();
    let answer = served.ask(
        "PATCH",
        "/v1/dedup",
        " {\"pages_to_scan\": 100, \"smart_scan\": false, \"use_zero_pages\": 0, \
          \"advisor_max_cpu\": \"20\"}\n",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = Knobs {
        pages_to_scan: 100,
        smart_scan: false,
        use_zero_pages: false,
        advisor_max_cpu: 20,
        ..Knobs::default()
    };
    assert_eq!(serde_json::from_str::<Knobs>(&answer.body).expect("knobs"), expected);
    assert_eq!(knobs(&served), expected);
    assert_eq!(served.ask("GET", "/v1/dedup", "").json()["knobs"], answer.json());
    assert_eq!(served.ask("PATCH", "/v1/dedup", "{}").json(), answer.json(), "nothing to set");
}

#[test]
fn a_bad_value_is_refused_with_what_is_allowed_and_nothing_is_set() {
    let served = Served::new();
    for (body, part) in [
        ("{\"sleep_millisecs\": 5, \"run\": 3}", "0 (stop), 1 (fold) or 2"),
        ("{\"sleep_millisecs\": 5, \"run\": -1}", "not '-1'"),
        ("{\"sleep_millisecs\": 5, \"run\": true}", "not 'true'"),
        ("{\"sleep_millisecs\": 5, \"pages_to_scan\": 0}", "from 1 to 4294967295"),
        ("{\"sleep_millisecs\": 5, \"pages_to_scan\": 4294967296}", "from 1 to 4294967295"),
        ("{\"sleep_millisecs\": 5, \"pages_to_scan\": 1e300}", "from 1 to 4294967295"),
        ("{\"sleep_millisecs\": 5, \"pages_to_scan\": 1.5}", "not '1.5'"),
        ("{\"sleep_millisecs\": 5, \"max_page_sharing\": 1}", "from 2 to"),
        ("{\"sleep_millisecs\": 5, \"smart_scan\": 2}", "0 or 1"),
        ("{\"sleep_millisecs\": 5, \"smart_scan\": \"yes\"}", "0 or 1"),
        ("{\"sleep_millisecs\": 5, \"advisor_mode\": \"magic\"}", "none or scan-time"),
        ("{\"sleep_millisecs\": 5, \"pages_to_skip\": 5}", "there are: run, pages_to_scan"),
        ("{\"sleep_millisecs\": 5, \"run\": null}", "no number, true, false or text"),
        ("{\"sleep_millisecs\": 5, \"run\": [1]}", "no number, true, false or text"),
        ("{\"sleep_millisecs\": 5, \"run\": {}}", "no number, true, false or text"),
        ("{\"sleep_millisecs\": 5, \"advisor_min_pages_to_scan\": 40000}", "may not"),
    ] {
        let answer = served.ask("PATCH", "/v1/dedup", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.error().contains(part), "{body}: {answer:?}");
        assert_eq!(knobs(&served), Knobs::default(), "{body}");
    }
}

#[test]
fn a_knob_that_cannot_be_changed_now_is_a_conflict_that_says_what_to_do() {
    let served = Served::new();
    // Pages that wait for a twin are in the way of one of the two only.
    for (body, waits_for_unshared) in [
        ("{\"sleep_millisecs\": 5, \"max_page_sharing\": 4}", false),
        ("{\"sleep_millisecs\": 6, \"merge_across_nodes\": 0}", true),
    ] {
        let before = knobs(&served);
        *served.fake.busy.lock().expect("unpoisoned") = true;
        let busy = served.ask("PATCH", "/v1/dedup", body);
        assert_eq!(busy.status, 409, "{busy:?}");
        assert!(busy.error().contains("run=2"), "{busy:?}");
        let hint = busy.json()["hint"].as_str().expect("a hint").to_owned();
        assert!(hint.contains("\"pages_shared\": 0"), "{busy:?}");
        assert_eq!(hint.contains("\"pages_unshared\": 0"), waits_for_unshared, "{busy:?}");
        assert_eq!(knobs(&served), before);
        *served.fake.busy.lock().expect("unpoisoned") = false;
        assert_eq!(served.ask("PATCH", "/v1/dedup", body).status, 200);
    }

    assert_eq!(served.ask("PATCH", "/v1/dedup", "{\"advisor_mode\": \"scan-time\"}").status, 200);
    let advised = served.ask("PATCH", "/v1/dedup", "{\"pages_to_scan\": 5}");
    assert_eq!(advised.status, 409, "{advised:?}");
    assert!(advised.error().contains("advisor_mode=none"), "{advised:?}");
}

#[test]
fn nobody_can_wait_for_folding_that_is_stopped() {
    let served = Served::new();
    for run in [0, 2] {
        assert_eq!(served.ask("PATCH", "/v1/dedup", &format!("{{\"run\": {run}}}")).status, 200);
        let answer = served.ask("POST", "/v1/dedup/settle", "");
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(answer.error(), format!("folding is stopped (run={run})"));
        assert!(answer.json()["hint"].as_str().expect("a hint").contains("\"run\": 1"));
    }
}

#[test]
fn what_of_a_vm_is_folded_can_be_changed() {
    let served = Served::new();
    for mode in ["off", "zero", "on"] {
        let answer = served.ask("PATCH", "/v1/vms/1", &format!("{{\"dedup\": \"{mode}\"}}"));
        assert_eq!((answer.status, &answer.json()["dedup"]), (200, &mode.into()), "{answer:?}");
        // How much is left to be done, in the answer and whenever somebody asks.
        let left = if mode == "off" { 7 } else { 0 };
        assert_eq!(answer.json()["unmerging_pages"], left);
        let now = served.ask("GET", "/v1/vms/1", "").json();
        assert_eq!((&now["dedup"], &now["unmerging_pages"]), (&mode.into(), &left.into()));
    }
    let stopped = served.ask("PATCH", "/v1/vms/2", "{\"dedup\": \"off\"}");
    assert_eq!(stopped.status, 409, "{stopped:?}");
    assert_eq!(served.ask("PATCH", "/v1/vms/3", "{\"dedup\": \"off\"}").status, 404);
}

#[test]
fn a_range_of_a_vm_can_be_opted_out_and_in() {
    let served = Served::new();
    for (body, range) in [
        ("{\"dedup\": \"off\", \"gpa\": 4096, \"bytes\": 8192}", (VmId(1), 4096, 8192, false)),
        ("{\"dedup\": \"on\", \"gpa\": \"0x1000\", \"bytes\": 4096}", (VmId(1), 4096, 4096, true)),
        ("{\"dedup\": \"off\", \"gpa\": \"0x0\", \"bytes\": \"1M\"}", (VmId(1), 0, 1 << 20, false)),
        ("{\"dedup\": \"on\", \"gpa\": 0, \"bytes\": \"0x2000\"}", (VmId(1), 0, 8192, true)),
    ] {
        let answer = served.ask("PATCH", "/v1/vms/1", body);
        assert_eq!((answer.status, &answer.json()["dedup"]), (200, &"on".into()), "{answer:?}");
        assert_eq!(served.fake.ranges.lock().expect("unpoisoned").pop(), Some(range));
    }
    for (body, status) in [
        ("{\"dedup\": \"zero\", \"gpa\": 0, \"bytes\": 4096}", 400),
        ("{\"dedup\": \"off\", \"gpa\": 0}", 400),
        ("{\"dedup\": \"off\", \"bytes\": 4096}", 400),
        ("{\"dedup\": \"off\", \"gpa\": 0, \"bytes\": 0}", 400),
        ("{\"dedup\": \"off\", \"gpa\": 0, \"bytes\": 4095}", 400),
        ("{\"dedup\": \"off\", \"gpa\": 67108864, \"bytes\": 4096}", 404),
        ("{\"gpa\": 0, \"bytes\": 4096}", 400),
    ] {
        let answer = served.ask("PATCH", "/v1/vms/1", body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        answer.error();
    }
    assert!(served.fake.ranges.lock().expect("unpoisoned").is_empty());
}

#[test]
fn changes_of_a_vm_that_make_no_sense_are_refused() {
    let served = Served::new();
    for body in [
        "{}",
        "{\"dedup\": \"maybe\"}",
        "{\"dedup\": 1}",
        "{\"dedup\": true}",
        "{\"dedup\": null}",
        "{\"dedup\": [\"off\"]}",
        "{\"mode\": \"off\"}",
        "{\"dedup\": \"off\", \"memory_bytes\": 1}",
        "{\"dedup\": \"off\", \"dedup\": \"on\"}",
        "{\"dedup\": \"off\", \"gpa\": -4096, \"bytes\": 4096}",
        "{\"dedup\": \"off\", \"gpa\": 1.5, \"bytes\": 4096}",
        "{\"dedup\": \"off\", \"gpa\": \"0x10000000000000000\", \"bytes\": 4096}",
        "{\"dedup\": \"off\", \"gpa\": 99999999999999999999999, \"bytes\": 4096}",
        "{\"dedup\": \"off\", \"gpa\": 0, \"bytes\": \"4096 B\"}",
        "{\"dedup\": \"off\", \"gpa\": 0, \"bytes\": -4096}",
    ] {
        let answer = served.ask("PATCH", "/v1/vms/1", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        answer.error();
    }
    assert_eq!(served.ask("GET", "/v1/vms/1", "").json()["dedup"], "on");
}

#[test]
fn a_page_is_explained_by_its_vm_and_address() {
    let served = Served::new();
    for target in ["/v1/dedup/rmap?vm=1&gpa=8192", "/v1/dedup/rmap?gpa=0x2000&vm=1"] {
        let answer = served.ask("GET", target, "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let explanation: Explanation = serde_json::from_str(&answer.body).expect("an explanation");
        assert_eq!((explanation.vm, explanation.linear.0), (VmId(1), 2));
        assert_eq!(answer.json()["reason"]["kind"], "no_twin");
    }
    for target in ["/v1/dedup/rmap?vm=3&gpa=0", "/v1/dedup/rmap?vm=1&gpa=0xffffffffffffffff"] {
        let answer = served.ask("GET", target, "");
        assert_eq!(answer.status, 404, "{answer:?}");
        answer.error();
    }
}

#[test]
fn stores_are_compacted_where_it_is_worth_it_or_all() {
    let served = Served::new();
    for (body, scope) in [
        ("", CompactScope::Gainful),
        ("{}", CompactScope::Gainful),
        ("{\"all\": false}", CompactScope::Gainful),
        ("{\"all\": true}", CompactScope::All),
    ] {
        let answer = served.ask("POST", "/v1/dedup/compact", body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let report: CompactReport = serde_json::from_str(&answer.body).expect("a report");
        assert_eq!((report.extents_before, report.extents_after), (9, 4));
        assert_eq!(served.fake.scopes.lock().expect("unpoisoned").pop(), Some(scope));
    }
    for body in ["[]", "true", "{\"all\": 1}", "{\"all\": null}", "{\"everything\": true}"] {
        let answer = served.ask("POST", "/v1/dedup/compact", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        answer.error();
    }
    assert!(served.fake.scopes.lock().expect("unpoisoned").is_empty());
}

#[test]
fn the_client_sets_asks_and_passes_on_what_was_wrong() {
    let served = Served::new();
    let client = ApiClient::new(served.server.path()).expect("a client");
    let set = |key: &str, value: &str| client.set_knobs(&[(key.to_owned(), value.to_owned())]);
    assert_eq!(set("run", "0").expect("knobs").run, Run::Stop);
    match set("run", "7") {
        Err(ClientError::Refused { status, error, hint, .. }) => {
            assert_eq!(status, 400);
            assert!(error.starts_with("run is 0 (stop)") && !hint.is_empty(), "{error} {hint}");
        }
        other => panic!("{other:?}"),
    }
    let status = client
        .set_dedup(VmId(1), &VmChange { dedup: DedupMode::Zero, gpa: None, bytes: None })
        .expect("a status");
    assert_eq!(status.dedup, DedupMode::Zero);
    // What the answer has besides is not taken for a part of it.
    assert_eq!(client.vms().expect("statuses").first(), Some(&status));
    assert_eq!(client.pause(VmId(1)).expect("a status").report, status.report);
    assert_eq!(client.explain(VmId(1), GuestPhys(4096)).expect("words").linear.0, 1);
    assert_eq!(client.compact(true).expect("a report").extents_after, 4);
}
