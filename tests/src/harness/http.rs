//! A plain HTTP client over a Unix socket: it sends just the bytes it is given.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status: 200, 404, …
    pub status: u16,
    /// The head, status line included.
    pub head: String,
    /// The body: as many bytes as the head declares.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        let kind = self.header("content-type");
        assert!(kind.is_some_and(|kind| kind.starts_with("application/json")), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What is behind a header's name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("an answer in UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("'{text}'"));
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let answer = Self {
            status: status.unwrap_or_else(|| panic!("no status: {head}")),
            head: head.to_owned(),
            body: body.to_owned(),
        };
        let length = answer.header("content-length").map(str::parse);
        assert_eq!(length, Some(Ok(body.len())), "{answer:?}");
        answer
    }
}

/// Sends a request and waits for the answer.
pub fn request(socket: &Path, method: &str, target: &str, body: &str) -> Answer {
    let length = body.len();
    raw(
        socket,
        format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    )
}

/// The JSON of a request that is answered with 200.
pub fn get(socket: &Path, target: &str) -> Value {
    let answer = request(socket, "GET", target, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Begins a request and does not wait for its answer.
pub fn begin(socket: &Path, method: &str, target: &str) -> UnixStream {
    let mut stream = connect(socket);
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the request is taken");
    stream
}

/// Reads the answer to a request that was begun, until the other side closes.
pub fn finish(mut stream: UnixStream) -> Answer {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer in time");
    Answer::parse(&answer)
}

/// Sends any bytes, and reads the answer until the other side closes.
pub fn raw(socket: &Path, bytes: &[u8]) -> Answer {
    let mut stream = connect(socket);
    // Who refuses a request may close before all of it has come: what counts is the answer.
    let _ = stream.write_all(bytes);
    finish(stream)
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}
