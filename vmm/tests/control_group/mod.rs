//! A control group of a test's own, of whichever version has the controller here.

#![allow(clippy::print_stderr, reason = "why a test was skipped")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where version 1 has a controller's hierarchy, and where version 2 has all.
const ONE: &str = "/sys/fs/cgroup";
const TWO: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The group; removed when it is dropped, by when no process may be in it.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    parent: PathBuf,
    is_version_1: bool,
}

impl Group {
    /// A new group that `controller` can limit, or `None`, with a word on stderr, where none can be
    /// made: without root, or without control groups.
    pub(crate) fn new(controller: &str, name: &str) -> Option<Self> {
        let name = format!("pagefold-test-{name}-{}", std::process::id());
        let one = Path::new(ONE).join(controller);
        let found = if one.join("cgroup.procs").exists() {
            Some((one, true))
        } else {
            let offers = |path: &&str| {
                let controllers = Path::new(path).join("cgroup.controllers");
                let text = fs::read_to_string(controllers).unwrap_or_default();
                text.split_ascii_whitespace().any(|name| name == controller)
            };
            TWO.iter().copied().find(offers).map(|path| (PathBuf::from(path), false))
        };
        let group = found.and_then(|(parent, is_version_1)| {
            if !is_version_1 {
                fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).ok()?;
            }
            let path = parent.join(name);
            fs::create_dir(&path).ok()?;
            Some(Self { path, parent, is_version_1 })
        });
        if group.is_none() {
            eprintln!("skipped: no control group for {controller} can be made here");
        }
        group
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Limits its memory.
    pub(crate) fn limit_memory(&self, bytes: u64) {
        let file = if self.is_version_1 { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(self.path.join(file), bytes.to_string()).unwrap();
    }

    /// Limits its threads.
    #[allow(dead_code, reason = "not every test does")]
    pub(crate) fn limit_threads(&self, count: u32) {
        fs::write(self.path.join("pids.max"), count.to_string()).unwrap();
    }

    /// Has a shell go into the group before it becomes `command`.
    #[allow(dead_code, reason = "not every test does")]
    pub(crate) fn holding(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"", self.path()]);
        shell.arg(command.get_program()).args(command.get_args());
        shell
    }

    /// Moves this process into the group.
    #[allow(dead_code, reason = "not every test does")]
    pub(crate) fn enter(&self) {
        fs::write(self.path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // This process may be in it.
        let _ = fs::write(self.parent.join("cgroup.procs"), std::process::id().to_string());
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path());
        }
    }
}
