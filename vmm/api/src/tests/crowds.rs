//! More clients than are served at once, clients that never read, and the end of the server.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Answer, Served};
use crate::limits::Limits;
use crate::routes::MAX_REQUESTS;

/// More than are served at once and may wait to be.
const CROWD: usize = 150;

const SETTLE: &[u8] =
    b"POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Limits that make nobody wait.
fn short() -> Limits {
    let moment = Duration::from_millis(20);
    Limits { make_room: moment, request: moment, ..Limits::default() }
}

/// Asks and never reads, until the server cannot write any more.
fn never_read(stream: &mut UnixStream) {
    stream.set_nonblocking(true).expect("a stream");
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
    // Requests are taken for as long as there is room for their answers.
    // It ends when others have been let in before it, too.
    while stream.write_all(&request).is_ok() {}
}

#[test]
fn idle_connections_make_room_for_others() {
    let served = Served::with_limits(short());
    let idle: Vec<_> = (0..CROWD).map(|_| served.connect()).collect();
    for _ in 0..3 {
        assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
    }
    // Those that came first have left first, and the last have not.
    let mut first = &idle[0];
    assert_eq!(first.read(&mut [0]).expect("closed"), 0);
    let mut last = &idle[CROWD - 1];
    last.write_all(b"GET /v1/vms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(last.try_clone().expect("a descriptor")).status, 200);
}

#[test]
fn clients_that_never_pause_make_room_for_others() {
    let make_room = Duration::from_millis(100);
    let served = Served::with_limits(Limits { make_room, ..short() });
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..64 {
            let mut stream = served.connect();
            let is_over = &is_over;
            // Each asks again long before it may be sent away for being idle, until it is sent away.
            scope.spawn(move || {
                let request = b"GET /v1/vms/77 HTTP/1.1\r\nhost: x\r\n\r\n";
                while !is_over.load(Ordering::Relaxed)
                    && stream.write_all(request).is_ok()
                    && stream.read(&mut [0; 1024]).is_ok_and(|len| len > 0)
                {
                    thread::sleep(make_room / 10);
                }
            });
        }
        let answer = served.ask("GET", "/v1/vms", "");
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(answer.status, 200);
    });
}

// Each that left made room for one, who was to be as patient again.
#[test]
fn clients_that_send_byte_after_byte_hold_up_others_once_and_not_each() {
    const BEFORE: usize = 160;
    let make_room = Duration::from_millis(100);
    let served = Served::with_limits(Limits { make_room, ..Limits::default() });
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..BEFORE {
            let mut stream = served.connect();
            let is_over = &is_over;
            scope.spawn(move || {
                let _ = stream.write_all(b"GET /v1/vms HTTP/1.1\r\nx: ");
                while !is_over.load(Ordering::Relaxed) && stream.write_all(b"x").is_ok() {
                    thread::sleep(make_room / 10);
                }
            });
        }
        // Its patience of 20 s is not enough for four times `make_room` for each that gets no seat at once.
        let answer = served.ask("GET", "/v1/vms", "");
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn connections_within_their_time_wait_for_a_seat_and_all_are_answered() {
    let served = Served::new();
    let asking: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut stream = served.connect();
            stream
                .write_all(b"GET /v1/vms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .expect("sent");
            stream
        })
        .collect();
    for stream in asking {
        assert_eq!(Answer::read(stream).status, 200);
    }
}

#[test]
fn clients_that_begin_a_body_and_stop_make_room_for_others() {
    let served = Served::with_limits(short());
    let head = b"PATCH /v1/dedup HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{";
    let mut idle = Vec::new();
    for _ in 0..CROWD {
        let mut stream = served.connect();
        stream.write_all(head).expect("sent");
        idle.push(stream);
    }
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}

#[test]
fn clients_that_never_read_make_room_for_others() {
    let served = Served::with_limits(short());
    let mut deaf = Vec::new();
    for _ in 0..80 {
        let mut stream = served.connect();
        never_read(&mut stream);
        deaf.push(stream);
    }
    assert_eq!(served.ask("GET", "/v1/vms", "").status, 200);
}

#[test]
fn a_client_that_never_reads_is_not_waited_for_for_ever() {
    let stall = Duration::from_millis(50);
    let served = Served::with_limits(Limits { stall, ..Limits::default() });
    let mut deaf = served.connect();
    never_read(&mut deaf);
    // Nobody else is there: it is its own time that is over.
    deaf.set_nonblocking(false).expect("a stream");
    let closed = loop {
        if let Err(error) = deaf.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n") {
            break error.kind();
        }
    };
    assert!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&closed), "{closed}");
}

#[test]
fn a_client_that_waits_for_its_answer_keeps_its_connection() {
    let stall = Duration::from_millis(20);
    let served = Served::with_limits(Limits { stall, ..short() });
    let mut settling = served.connect();
    settling.write_all(SETTLE).expect("sent");
    served.wait_for_settles(1);
    let crowd: Vec<_> = (0..CROWD).map(|_| served.connect()).collect();
    // All of them have had their time when the last has.
    for mut stream in crowd {
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    }
    served.fake.settle.send(true).expect("a listener");
    assert_eq!(Answer::read(settling).status, 200);
}

#[test]
fn one_request_too_many_is_refused_and_the_others_are_answered() {
    let served = Served::with_limits(short());
    let held = served.fake.stats.lock().expect("unpoisoned");
    let ask = || {
        let mut stream = served.connect();
        stream
            .write_all(b"GET /v1/dedup HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .expect("sent");
        thread::spawn(move || Answer::read(stream))
    };
    let asking: Vec<_> = (0..=MAX_REQUESTS).map(|_| ask()).collect();
    // The refusal needs nothing that is held.
    while !asking.iter().any(thread::JoinHandle::is_finished) {
        thread::yield_now();
    }
    drop(held);
    let answers: Vec<_> = asking.into_iter().map(|one| one.join().expect("an answer")).collect();
    let (refused, answered): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 503);
    assert_eq!((refused.len(), answered.len()), (1, MAX_REQUESTS));
    assert_eq!(refused[0].error(), "32 requests are being carried out already");
    assert!(answered.iter().all(|answer| answer.status == 200));
}

#[test]
fn a_settle_is_answered_when_the_server_stops_meanwhile() {
    let served = Served::new();
    let mut settling = served.connect();
    // Kept alive by its client, and closed all the same.
    settling
        .write_all(b"POST /v1/dedup/settle HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .expect("sent");
    let idle = served.connect();
    served.wait_for_settles(1);
    let Served { fake, server, .. } = served;
    drop(server);
    let answer = Answer::read(settling);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.error(), "the process is ending");
    assert_eq!(answer.json()["kind"], "gone");
    assert_eq!((&idle).read(&mut [0]).expect("closed"), 0);
    fake.settle.send(true).expect("a listener");
}

#[test]
fn a_server_that_stops_does_not_wait_for_clients_that_never_read() {
    let stop = Duration::from_millis(50);
    let served = Served::with_limits(Limits { stop, ..Limits::default() });
    let mut deaf = served.connect();
    never_read(&mut deaf);
    drop(served);
}
