//! Commands whose result nobody gets: that is a failure, unless its reader has had enough.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

fn pagefold(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagefold"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

/// What writes its result without anything else being there.
const ALONE: [&[&str]; 8] = [
    &["--help"],
    &["-h"],
    &["--version"],
    &["-V"],
    &["help", "run"],
    &["set", "--help"],
    &["doctor"],
    &["doctor", "--json"],
];

/// A run that goes on until it is killed.
struct Serving(Child);

impl Serving {
    fn new(socket: &str) -> Self {
        let args = ["run", "-n", "1", "--memory", "8M", "--guest", "builtin:idle", "-v", "--json"];
        let mut child = pagefold(&[&args[..], &["--api-socket", socket]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("VMs are running")));
        Self(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn assert_fails(args: &[&str]) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = pagefold(args).stdout(full).output().unwrap();
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    assert!(
        words.contains("cannot write the result: No space left on device"),
        "{args:?}: {words}"
    );
}

/// What a command comes to whose reader has left.
fn unread(args: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    pagefold(args).stdout(writer).output().unwrap()
}

#[test]
fn what_cannot_be_written_is_a_failure() {
    ALONE.into_iter().for_each(assert_fails);
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, [7; 8192]).unwrap();
    assert_fails(&["analyze", image.to_str().unwrap()]);
    assert_fails(&["analyze", "--fold", "--json", image.to_str().unwrap()]);
    assert_fails(&["run", "-n", "1", "--memory", "8M", "--for", "100ms"]);
}

#[test]
fn what_a_run_is_asked_and_cannot_be_written_is_a_failure_too() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("api");
    let socket = socket.to_str().unwrap();
    let _run = Serving::new(socket);
    for command in [
        &["stats"][..],
        &["stats", "--json"],
        &["stats", "--watch"],
        &["vms"],
        &["vms", "--json"],
        &["explain", "--vm", "0", "--gpa", "0x1000"],
        &["compact"],
    ] {
        assert_fails(&[command, &["--api-socket", socket]].concat());
    }
}

#[test]
fn a_reader_who_has_left_wanted_no_more() {
    for args in ALONE {
        let output = unread(args);
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &[][..]), "{args:?}");
    }
}
