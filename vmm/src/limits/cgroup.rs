//! Control groups: which ones this process is in, and what they allow.
//!
//! A limit of any group on the way up to the root of its hierarchy counts. With version 1 each
//! controller has a hierarchy of its own, with version 2 all share one, and both can be there.
//!
//! Source: cgroups(7), and the kernel's `Documentation/admin-guide/cgroup-v1/memory.rst` and
//! `cgroup-v2.rst`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::tree::Tree;

/// Above any limit that somebody has set: version 1 reports the greatest whole page for none.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The version of a hierarchy, which decides on the names of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy.
    Two,
}

/// A control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its hierarchy's version.
    pub version: Version,
}

/// Memory of a control group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMemory {
    /// What its processes, and those of groups in it, may have.
    pub max_bytes: u64,
    /// What is charged to it.
    pub current_bytes: u64,
    /// What of that are cached files, which the kernel gives up before it ends anybody.
    pub cache_bytes: u64,
}

/// Threads of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupThreads {
    /// How many its processes, and those of groups in it, may have.
    pub max: u64,
    /// How many they have.
    pub current: u64,
}

/// The groups of this process that a controller can limit: its own and those that it lies in, as
/// far up as is mounted here. Without control groups, or without permission to look, there are
/// none.
pub fn groups(tree: &Tree, controller: &str) -> Vec<ControlGroup> {
    match (tree.read("/proc/self/cgroup"), tree.read("/proc/self/mountinfo")) {
        (Ok(membership), Ok(mounts)) => find_groups(&membership, &mounts, controller),
        _ => Vec::new(),
    }
}

/// The same from the text of `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub fn find_groups(membership: &str, mounts: &str, controller: &str) -> Vec<ControlGroup> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let version = if number == "0" && controllers.is_empty() {
            Version::Two
        } else if controllers.split(',').any(|name| name == controller) {
            Version::One
        } else {
            continue;
        };
        let is_wanted = |mount: &Mount| match version {
            Version::Two => mount.kind == "cgroup2",
            Version::One => {
                mount.kind == "cgroup" && mount.options.split(',').any(|name| name == controller)
            }
        };
        // The first mount will do: another shows the same groups.
        if let Some(mount) = mounts.lines().filter_map(Mount::parse).find(is_wanted) {
            let paths = mount.on_the_way_up(path);
            groups.extend(paths.into_iter().map(|path| ControlGroup { path, version }));
        }
    }
    groups
}

impl ControlGroup {
    /// Its memory; `None` where it has no limit or does not report it.
    pub fn memory(&self, tree: &Tree) -> Option<GroupMemory> {
        let (max, current, prefix) = match self.version {
            Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
            Version::Two => ("memory.max", "memory.current", ""),
        };
        // "max" is no number and so no limit.
        let max_bytes = tree.number(self.path.join(max)).filter(|&max| max < NO_LIMIT_BYTES)?;
        let current_bytes = tree.number(self.path.join(current))?;
        let stat = tree.read(self.path.join("memory.stat")).unwrap_or_default();
        let cache_bytes = cache_bytes(&stat, prefix).min(current_bytes);
        Some(GroupMemory { max_bytes, current_bytes, cache_bytes })
    }

    /// Its threads; `None` where it has no limit or does not report it.
    pub fn threads(&self, tree: &Tree) -> Option<GroupThreads> {
        let max = tree.number(self.path.join("pids.max"))?;
        Some(GroupThreads { max, current: tree.number(self.path.join("pids.current"))? })
    }

    /// How often it has refused a thread.
    pub fn threads_refused(&self, tree: &Tree) -> u64 {
        let events = tree.read(self.path.join("pids.events")).unwrap_or_default();
        field(&events, "max").unwrap_or(0)
    }
}

/// Cached files that are written back: the kernel can drop them at once.
fn cache_bytes(stat: &str, prefix: &str) -> u64 {
    let value = |name: &str| field(stat, &format!("{prefix}{name}")).unwrap_or(0);
    let (dirty, writeback) =
        if prefix.is_empty() { ("file_dirty", "file_writeback") } else { ("dirty", "writeback") };
    (value("inactive_file") + value("active_file"))
        .saturating_sub(value(dirty).saturating_add(value(writeback)))
}

/// The number in the line `name NUMBER`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug)]
struct Mount<'text> {
    /// Which directory of the file system is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
    kind: &'text str,
    /// The file system's own options: the controllers, for version 1.
    options: &'text str,
}

impl<'text> Mount<'text> {
    fn parse(line: &'text str) -> Option<Self> {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(3);
        let (root, point) = (unescape(first.next()?), unescape(first.next()?));
        let mut second = second.splitn(3, ' ');
        let (kind, _source) = (second.next()?, second.next()?);
        Some(Self { root, point, kind, options: second.next().unwrap_or_default() })
    }

    /// The directories of the group `path` and of those that it lies in.
    fn on_the_way_up(&self, path: &str) -> Vec<PathBuf> {
        // A group outside of what is mounted here: all that is seen of its limits is the top.
        let relative = Path::new(path).strip_prefix(&self.root).ok();
        let relative = relative.filter(|path| !path.starts_with(".."));
        let own: PathBuf = self
            .point
            .components()
            .chain(relative.iter().flat_map(|path| path.components()))
            .collect();
        own.ancestors()
            .take_while(|path| path.starts_with(&self.point))
            .map(Path::to_owned)
            .collect()
    }
}

/// A path in which the kernel has written blanks as `\040`, and the like.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(escaped) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(escaped);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests;
