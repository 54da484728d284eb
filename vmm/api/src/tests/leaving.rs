//! Clients that have sent all they have to send, or have left.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Answer, Served};

/// Longer than anything here takes: only a failing test waits for it.
const PATIENCE: Duration = Duration::from_mins(1);

/// More than are served at once.
const CLIENTS: usize = 100;

fn request(method: &str, target: &str, body: &str, fields: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\n{fields}content-length: {length}\r\n\r\n{body}"
    )
}

impl Served {
    /// Waits until so many settles are under way, or were.
    pub(super) fn wait_for_settles(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.fake.limits.lock().expect("unpoisoned").len() < count {
            assert!(Instant::now() < end, "no settle has begun");
            thread::yield_now();
        }
    }
}

#[test]
fn a_client_that_half_closes_its_side_after_the_request_gets_the_full_answer() {
    let served = Served::new();
    for fields in ["", "connection: close\r\n"] {
        for (method, target, body) in [
            ("GET", "/v1/vms", ""),
            ("GET", "/v1/dedup", ""),
            ("GET", "/metrics", ""),
            ("PATCH", "/v1/dedup", "{\"sleep_millisecs\": 77}"),
            ("PATCH", "/v1/vms/1", "{\"dedup\": \"zero\"}"),
        ] {
            let whole = served.ask(method, target, body);
            let mut stream = served.connect();
            stream.write_all(request(method, target, body, fields).as_bytes()).expect("sent");
            stream.shutdown(Shutdown::Write).expect("half closed");
            let answer = Answer::read(stream);
            assert_eq!((answer.status, &answer.body), (200, &whole.body), "{method} {target}");
        }
    }
    assert_eq!(served.ask("GET", "/v1/dedup", "").json()["knobs"]["sleep_millisecs"], 77);
}

#[test]
fn a_client_that_has_half_closed_its_side_is_told_when_folding_has_settled() {
    let served = Served::new();
    let mut stream = served.connect();
    let body = "{\"timeout_ms\": 5}";
    stream.write_all(request("POST", "/v1/dedup/settle", body, "").as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    served.wait_for_settles(1);
    served.fake.settle.send(true).expect("a listener");
    let answer = Answer::read(stream);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), json!({"settled": true, "passes": 3, "elapsed_ms": 17}));
}

#[test]
fn a_half_closed_request_that_is_not_whole_is_not_carried_out_and_not_waited_for() {
    let served = Served::new();
    let whole = request("PATCH", "/v1/dedup", "{\"sleep_millisecs\": 77}", "");
    for count in [0, 1, 20, whole.len() - 24, whole.len() - 1] {
        let mut stream = served.connect();
        stream.write_all(&whole.as_bytes()[..count]).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("the other side closes");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{count}: {answer}");
    }
    assert_ne!(served.ask("GET", "/v1/dedup", "").json()["knobs"]["sleep_millisecs"], 77);
}

#[test]
fn clients_that_leave_without_reading_their_answers_take_no_place_for_ever() {
    let served = Served::new();
    let whole = request("GET", "/v1/dedup", "", "");
    for _ in 0..CLIENTS {
        served.connect().write_all(whole.as_bytes()).expect("sent");
        served.connect().write_all(whole.repeat(3).as_bytes()).expect("sent");
    }
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}

#[test]
fn clients_that_leave_while_their_requests_are_carried_out_take_no_place_after_it() {
    let served = Served::new();
    let whole = request("GET", "/v1/dedup", "", "");
    for _ in 0..CLIENTS / 10 {
        // Until this is given back nobody is answered.
        let held = served.fake.stats.lock().expect("unpoisoned");
        for _ in 0..10 {
            served.connect().write_all(whole.as_bytes()).expect("sent");
        }
        drop(held);
        assert_eq!(served.ask("GET", "/v1/dedup", "").status, 200);
    }
}
