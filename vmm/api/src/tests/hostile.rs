//! Garbage, floods and clients that take their time.

use std::io::Write;
use std::net::Shutdown;

use super::{Answer, Served};

#[test]
fn bytes_that_are_not_http_get_a_400_that_says_so() {
    let served = Served::new();
    for bytes in [
        &b"\0\x01\x02\x03\xff\xfe\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/vms HTTP/9.9\r\n\r\n",
        b"{\"timeout_ms\":1}\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-length: minus one\r\n\r\n",
        b"GET /v1/vms HTTP/1.1\r\nbad header\r\n\r\n",
    ] {
        let answer = served.send(bytes);
        assert_eq!(answer.status, 400, "{bytes:?}: {answer:?}");
        answer.error();
    }
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}

#[test]
fn a_head_without_end_is_refused() {
    let served = Served::new();
    let mut head = b"GET /v1/vms HTTP/1.1\r\nhost: x\r\n".to_vec();
    for index in 0..200 {
        head.extend_from_slice(format!("x-{index}: y\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let answer = served.send(&head);
    assert_eq!(answer.status, 431, "{answer:?}");
    answer.error();
}

#[test]
fn an_oversized_body_is_refused_before_it_is_read() {
    let served = Served::new();
    for (method, target) in [
        ("POST", "/v1/dedup/settle"),
        ("PUT", "/v1/vms/1/pause"),
        ("PATCH", "/v1/vms/1"),
        ("PATCH", "/v1/dedup"),
        ("POST", "/v1/dedup/compact"),
        ("GET", "/v1/dedup/rmap?vm=1&gpa=0"),
    ] {
        // Announced and not sent: the answer comes all the same.
        let answer = served.send(
            format!(
                "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 content-length: 65537\r\n\r\n"
            )
            .as_bytes(),
        );
        assert_eq!(answer.status, 413, "{answer:?}");
        answer.error();
    }
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let answer = served.send(
        format!(
            "POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\n{chunk}1\r\n \r\n"
        )
        .as_bytes(),
    );
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[test]
fn a_body_of_the_largest_size_is_read() {
    let served = Served::new();
    served.fake.settle.send(true).expect("a listener");
    let answer = served.ask("POST", "/v1/dedup/settle", &" ".repeat(64 * 1024));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn slow_clients_and_long_settles_hold_up_nobody_else() {
    let served = Served::new();
    let mut slow = served.connect();
    slow.write_all(b"GET /v1/vms HTTP/1.1\r\nho").expect("sent");
    let mut slow_body = served.connect();
    slow_body
        .write_all(b"POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        .expect("sent");
    let mut settling = served.connect();
    settling
        .write_all(b"POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .expect("sent");
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
    assert_eq!(served.ask("GET", "/v1/dedup", "").status, 200);
    served.fake.settle.send(true).expect("a listener");
    assert_eq!(Answer::read(settling).status, 200);
    slow.write_all(b"st: x\r\nconnection: close\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(slow).status, 200);
}

#[test]
fn a_fifth_settle_at_once_is_refused() {
    let served = Served::new();
    // A second request on each connection would be answered after the first, so one of five
    // connections is answered at once: with a refusal.
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = served.connect();
            stream
                .write_all(
                    b"POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                )
                .expect("sent");
            std::thread::spawn(move || Answer::read(stream))
        })
        .collect();
    // The refusal needs no permission; the other four do, and get it once the refusal is there.
    while !waiting.iter().any(std::thread::JoinHandle::is_finished) {
        std::thread::yield_now();
    }
    for _ in 0..4 {
        served.fake.settle.send(true).expect("a listener");
    }
    let mut statuses: Vec<_> =
        waiting.into_iter().map(|thread| thread.join().expect("an answer").status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 429]);
}

#[test]
fn clients_that_leave_at_any_byte_do_no_harm() {
    let served = Served::new();
    let request = b"POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]";
    for count in 0..=request.len() {
        let mut stream = served.connect();
        stream.write_all(&request[..count]).expect("sent");
        stream.shutdown(Shutdown::Both).expect("left");
    }
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}

#[test]
fn a_body_that_is_no_small_flat_object_is_refused_and_changes_nothing() {
    let served = Served::new();
    let before = served.ask("GET", "/v1/dedup", "").json();
    let deep = |open: &str, close: &str| {
        format!("{{\"run\": {}0{}}}", open.repeat(5000), close.repeat(5000))
    };
    let long = "x".repeat(60_000);
    let bodies = [
        String::new(),
        " \n".to_owned(),
        "[]".to_owned(),
        "[{\"run\": 0}]".to_owned(),
        "null".to_owned(),
        "\"run\"".to_owned(),
        "run=0".to_owned(),
        "{".to_owned(),
        "{\"run\": 0".to_owned(),
        "{\"run\": 0}}".to_owned(),
        "{\"run\": 0} {\"run\": 0}".to_owned(),
        "{run: 0}".to_owned(),
        "{\"dedup\"}".to_owned(),
        "{\"dedup\": \"off\",}".to_owned(),
        deep("[", "]"),
        deep("{\"run\": ", "}"),
        format!("{{\"{long}\": 0}}"),
        format!("{{\"run\": \"{long}\"}}"),
        format!("{{\"run\": 1{}}}", "0".repeat(60_000)),
        format!("{{\"gpa\": \"0x{}\", \"bytes\": 4096, \"dedup\": \"off\"}}", "0".repeat(60_000)),
        format!("{{{}\"run\": 0}}", "\"run\": 0, ".repeat(5000)),
    ];
    for body in &bodies {
        let shown: String = body.chars().take(80).collect();
        for target in ["/v1/dedup", "/v1/vms/1"] {
            // Zeroes before a number are as many as one likes.
            let is_fine = target == "/v1/vms/1" && body.contains("0x000");
            let answer = served.ask("PATCH", target, body);
            assert_eq!(
                answer.status,
                if is_fine { 200 } else { 400 },
                "{target} {shown}: {answer:?}"
            );
            assert!(answer.body.len() < 1000, "{target} {shown}: it is all repeated");
            if !is_fine {
                answer.error();
            }
        }
    }
    let raw = b"PATCH /v1/dedup HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 11\r\n\r\n{\"run\":\"\xff\"}";
    assert_eq!(served.send(raw).status, 400);
    assert_eq!(served.ask("GET", "/v1/dedup", "").json(), before);
    assert_eq!(served.ask("GET", "/v1/vms/1", "").json()["dedup"], "on");
}

#[test]
fn hostile_queries_are_refused() {
    let served = Served::new();
    for query in [
        String::new(),
        "?".to_owned(),
        "?vm=1".to_owned(),
        "?gpa=1".to_owned(),
        "?vm=&gpa=".to_owned(),
        "?vm=1&gpa=0&vm=1".to_owned(),
        "?vm=1&gpa=0&verbose=1".to_owned(),
        "?vm=%31&gpa=0".to_owned(),
        "?vm=1;gpa=0".to_owned(),
        "?vm=1&gpa=-1".to_owned(),
        "?vm=1&gpa=0x".to_owned(),
        "?vm=1&gpa=1e3".to_owned(),
        "?vm=1&gpa=0x1ffffffffffffffff".to_owned(),
        "?vm=99999999999&gpa=0".to_owned(),
        format!("?vm=1&gpa={}", "9".repeat(5000)),
        format!("?{}", "vm=1&".repeat(1000)),
    ] {
        let answer = served.ask("GET", &format!("/v1/dedup/rmap{query}"), "");
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        answer.error();
    }
}
