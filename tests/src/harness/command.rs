//! The `pagefold` command.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::PATIENCE;

/// The command with these arguments, and nothing in its environment that changes what it prints, nor in how
/// it takes SIGHUP and SIGQUIT, which whoever runs the tests may have it ignore (`nohup`, a script's background).
pub fn pagefold(args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP,QUIT").arg(executable());
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

/// Runs the command to its end.
pub fn output(args: &[&str]) -> Output {
    pagefold(args).output().expect("pagefold runs")
}

/// The one JSON value that is all of a command's stdout.
pub fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", describe(output)))
}

/// An output as a person reads it.
pub fn describe(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Where the binary is, for tests on a machine without cargo.
const EXECUTABLE: &str = "PAGEFOLD_COMMAND";

/// The path of the binary: what `PAGEFOLD_COMMAND` names, or built by cargo as these tests were. Cargo gives
/// a package's tests the paths of its own binaries only, and this one is another package's.
pub fn executable() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match env::var_os(EXECUTABLE) {
        Some(path) => path.into(),
        None => build(Path::new(env!("CARGO_MANIFEST_DIR"))),
    })
}

fn build(workspace: &Path) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--quiet", "--package", "pagefold-cli", "--bin", "pagefold"])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // TARGET/debug/deps/this_test: the same folder, so that what is there is not built again.
    let test = env::current_exe().expect("this test's path");
    if let Some(target_dir) = test.ancestors().nth(3) {
        cargo.arg("--target-dir").arg(target_dir);
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "pagefold does not build: {cargo:?}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where the binary is")
}

/// A running command whose stderr is listened to. Dropped before its end it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    stdout: Option<JoinHandle<Vec<u8>>>,
}

/// How a command has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr, line by line.
    pub stderr: Vec<String>,
}

impl Ended {
    /// The one JSON value that is all of its stdout.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Running {
    /// Starts the command with logs of what happens to its VMs, guests' output among them.
    pub fn start(args: &[&str]) -> Self {
        let mut child = pagefold(args)
            .env("RUST_LOG", "pagefold=info,pagefold::console=debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pagefold starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut pipe = child.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        // Nobody may ever wait for a full pipe. The threads end with the process.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdout = thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("stdout is read");
            bytes
        });
        Self { child, lines, seen: Vec::new(), stdout: Some(stdout) }
    }

    /// `run` with `args` and a control socket at `socket`; returns when all `count` guests are
    /// ready.
    pub fn with_ready_guests(count: u32, args: &[&str], socket: &Path) -> Self {
        let count_text = count.to_string();
        let socket = socket.to_str().expect("a path in UTF-8");
        let mut line = vec!["run", "--json", "-n", &count_text, "--api-socket", socket];
        line.extend(args);
        let mut running = Self::start(&line);
        for _ in 0..count {
            running.wait_for_line("prints READY");
        }
        running
    }

    /// Waits for the next line of stderr with `part` in it.
    pub fn wait_for_line(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with '{part}' ({error}): {:#?}", self.seen),
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its child processes.
    pub fn children(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it is running");
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
            .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// Sends a signal: `INT`, `TERM`, …
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "cannot send SIG{name}");
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let status = self.child.wait().expect("it can be waited for");
        let stdout = self.stdout.take().expect("taken once").join().expect("stdout was read");
        let mut stderr = std::mem::take(&mut self.seen);
        stderr.extend(self.lines.iter());
        Ended { status, stdout, stderr }
    }

    /// Ends it by SIGKILL.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("it can be killed");
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail after `end`, as they should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
