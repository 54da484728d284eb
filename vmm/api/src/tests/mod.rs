//! A real socket, real requests, and VMs that are only pretended.

mod crowds;
mod fake;
mod folding;
mod hostile;
mod leaving;
mod requests;
mod takeover;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::ApiServer;
use super::limits::Limits;
use fake::Fake;

/// A server of pretended VMs in a directory of its own.
struct Served {
    fake: Arc<Fake>,
    server: ApiServer,
    directory: TempDir,
}

impl Served {
    fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Self {
        let directory = TempDir::new().expect("a directory");
        let fake = Arc::new(Fake::default());
        let path = directory.path().join("api");
        let server = ApiServer::bind_with(&path, fake.clone(), limits).expect("a server");
        Self { fake, server, directory }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.server.path()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        stream
    }

    /// One request by its method, target and body.
    fn ask(&self, method: &str, target: &str, body: &str) -> Answer {
        self.send(
            format!(
                "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        )
    }

    /// Whatever bytes, and the answer up to the end of the connection.
    fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        Answer::read(stream)
    }
}

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(mut stream: UnixStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is an error with a reason and a hint, and returns the reason.
    fn error(&self) -> String {
        let json = self.json();
        assert!(self.head.contains("content-type: application/json"), "{self:?}");
        assert!(!json["hint"].as_str().expect("a hint").is_empty());
        json["error"].as_str().expect("an error").to_owned()
    }
}

fn names_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().into()).collect()
}
