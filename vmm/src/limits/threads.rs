//! How many threads this process may have.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use super::cgroup::groups;
use super::rlimit::{Resource, Rlimits};
use super::tree::Tree;

/// Capabilities that make `ulimit -u` limit nothing: `CAP_SYS_ADMIN` and `CAP_SYS_RESOURCE`.
const EXEMPTING: u64 = 1 << 21 | 1 << 24;

/// What limits threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThreadLimit {
    /// `pids.max` of a control group.
    ControlGroup(PathBuf),
    /// `ulimit -u`.
    User,
}

impl fmt::Display for ThreadLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlGroup(path) => {
                write!(f, "pids.max of the control group {}", path.display())
            }
            Self::User => f.write_str("the limit on threads of this user (ulimit -u)"),
        }
    }
}

impl ThreadLimit {
    /// How to allow `max` of them.
    pub fn command_for(&self, max: u64) -> String {
        match self {
            Self::ControlGroup(path) => format!("echo {max} > {}/pids.max", path.display()),
            Self::User => Resource::Processes.command_for(max),
        }
    }
}

/// Threads under one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadRoom {
    /// What limits them.
    pub limit: ThreadLimit,
    /// How many there may be, other processes' included.
    pub max: u64,
    /// How many there are.
    pub current: u64,
    /// How often one has been refused, as far as the kernel reports.
    pub refused: u64,
}

impl ThreadRoom {
    /// How many more there may be.
    pub fn left(&self) -> u64 {
        self.max.saturating_sub(self.current)
    }
}

/// Threads under every limit that this process stands under. O(processes) if `ulimit -u` is one of
/// them.
pub fn rooms(tree: &Tree) -> Vec<ThreadRoom> {
    let mut rooms = Vec::new();
    for group in groups(tree, "pids") {
        if let Some(threads) = group.threads(tree) {
            rooms.push(ThreadRoom {
                max: threads.max,
                current: threads.current,
                refused: group.threads_refused(tree),
                limit: ThreadLimit::ControlGroup(group.path),
            });
        }
    }
    rooms.extend(user_room(tree));
    rooms
}

fn user_room(tree: &Tree) -> Option<ThreadRoom> {
    let max = Rlimits::read(tree).ok()?.get(Resource::Processes)?;
    let status = tree.read("/proc/self/status").ok()?;
    let capabilities = u64::from_str_radix(value(&status, "CapEff:")?, 16).ok()?;
    let user = value(&status, "Uid:")?;
    // The kernel exempts the first user, whatever it may do, and whoever has one of these.
    if user == "0" || capabilities & EXEMPTING != 0 {
        return None;
    }
    let processes = fs::read_dir(tree.path("/proc".as_ref())).ok()?;
    let threads = processes.filter_map(|entry| {
        let status = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let is_own = value(&status, "Uid:") == Some(user);
        is_own.then(|| value(&status, "Threads:")?.parse::<u64>().ok()).flatten()
    });
    // "self" and "thread-self" are this process again: its threads are counted three times, which
    // is taken back.
    let own: u64 = value(&status, "Threads:")?.parse().ok()?;
    let current = threads.sum::<u64>().saturating_sub(2 * own);
    Some(ThreadRoom { limit: ThreadLimit::User, max, current, refused: 0 })
}

/// The first word of the line `name`.
fn value<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNT: (&str, &str) =
        ("/proc/self/mountinfo", "1 2 0:3 / /pids rw - cgroup cgroup rw,pids\n");
    const LIMITS: (&str, &str) = ("/proc/self/limits", "Max processes  50  60  processes\n");
    const USER: &str = "Uid:\t1000\t1000\nThreads:\t3\nCapEff:\t0000000000000000\n";

    fn limits(files: &[(&str, &str)]) -> Vec<(ThreadLimit, u64, u64)> {
        let (tree, _files) = Tree::made_up(files);
        rooms(&tree).into_iter().map(|room| (room.limit.clone(), room.max, room.left())).collect()
    }

    #[test]
    fn groups_and_the_user_limit_threads() {
        let found = limits(&[
            MOUNT,
            LIMITS,
            ("/proc/self/cgroup", "5:pids:/a\n"),
            ("/pids/a/pids.max", "20\n"),
            ("/pids/a/pids.current", "7\n"),
            ("/proc/self/status", USER),
            ("/proc/thread-self/status", USER),
            ("/proc/7/status", USER),
            ("/proc/8/status", "Uid:\t1000\t1000\nThreads:\t10\n"),
            ("/proc/9/status", "Uid:\t0\t0\nThreads:\t100\n"),
        ]);
        let group = ThreadLimit::ControlGroup("/pids/a".into());
        assert_eq!(found, [(group, 20, 13), (ThreadLimit::User, 50, 37)]);
    }

    #[test]
    fn who_may_do_everything_is_not_limited_as_a_user() {
        for status in ["Uid:\t0\nThreads:\t3\nCapEff:\t0\n", "Uid:\t9\nCapEff:\t1000000\n"] {
            assert_eq!(limits(&[LIMITS, ("/proc/self/status", status)]), []);
        }
        assert_eq!(limits(&[]), []);
    }
}
