//! A process with VMs in it, which takes commands line by line: see `bin/testbed.rs`.
//!
//! What the kernel reports of a process can be compared with what its VMs account for only if nothing
//! else runs in it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use pagefold_dedup::stats::DedupStats;
use serde_json::Value;

use super::guest_ram::Interval;

/// VMs that are alike but for their number.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// How many.
    pub count: u32,
    /// Each one's memory.
    pub memory_mib: u64,
    /// What they do: `builtin:NAME`.
    pub guest: &'static str,
    /// The seed that they have in common.
    pub seed: u64,
    /// What folding may do with them: `off`, `zero` or `on`.
    pub dedup: &'static str,
}

/// The process. Dropped, it is killed.
#[derive(Debug)]
pub struct Testbed {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    ram: Vec<Interval>,
}

impl Testbed {
    /// Starts `program`, which is `env!("CARGO_BIN_EXE_testbed")` for every test, and waits until
    /// all guests are ready.
    pub fn launch(program: &str, spec: Spec) -> Self {
        let Spec { count, memory_mib, guest, seed, dedup } = spec;
        let numbers = [u64::from(count), memory_mib, seed].map(|number| number.to_string());
        let mut child = Command::new(program)
            .args(numbers)
            .args([guest, dedup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the testbed starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut testbed = Self { child, stdin, stdout, ram: Vec::new() };
        let ready = testbed.answer();
        testbed.ram = serde_json::from_value(ready["ram"].clone()).expect("intervals");
        testbed
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the guests' RAM is in it, in the order of the VMs.
    pub fn ram(&self) -> &[Interval] {
        &self.ram
    }

    /// Brings the guests to rest, folds until nothing is left to do, and pauses the guests: from
    /// then on nothing changes any more.
    pub fn bring_to_rest(&mut self) {
        self.command("rest");
        let report = self.command("settle");
        assert_eq!(report["settled"], true, "{report}");
        self.command("pause");
    }

    /// The counters of folding.
    pub fn stats(&mut self) -> DedupStats {
        serde_json::from_value(self.command("stats")).expect("statistics")
    }

    /// What could be saved by the guests' parameters, in bytes.
    pub fn ideal_saved_bytes(&mut self) -> u64 {
        self.command("ideal")["saved_bytes"].as_u64().expect("a number")
    }

    /// Zero pages of all guests, by their parameters.
    pub fn ideal_zero_pages(&mut self) -> u64 {
        self.command("ideal")["zero_pages"].as_u64().expect("a number")
    }

    /// Has the guests verify everything and end; asserts that they found nothing wrong.
    pub fn finish(mut self) {
        let ends = self.command("finish");
        for end in ends["vms"].as_array().expect("an array") {
            assert_eq!((&end["corrupt"], &end["clean"]), (&0.into(), &true.into()), "{ends}");
        }
    }

    /// Sends a line and waits for its answer.
    pub fn command(&mut self, line: &str) -> Value {
        writeln!(self.stdin, "{line}").expect("the testbed listens");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the testbed's output");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: '{line}'"))
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
