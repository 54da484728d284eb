//! Who else uses KSM.

use std::fmt;
use std::path::Path;

use super::Counters;

/// Somebody whose pages would be counted as ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherUser {
    /// KSM knows of pages; whose, it does not report.
    Pages(Counters),
    /// A process has memory that ksmd would merge once it runs.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for OtherUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages(counters) => {
                let Counters { pages_shared, pages_sharing, pages_unshared, .. } = counters;
                let Counters { zero_pages, pages_volatile, .. } = counters;
                write!(
                    f,
                    "pages_shared {pages_shared}, pages_sharing {pages_sharing}, pages_unshared \
                     {pages_unshared}, pages_volatile {pages_volatile}, ksm_zero_pages {zero_pages}"
                )
            }
            Self::Process { pid, name } => write!(f, "process {pid} ({name}) has mergeable memory"),
        }
    }
}

/// Finds anybody who uses KSM. `counters` are from before this process used it.
///
/// Processes that come and go meanwhile, and those of kernels that do not report it (before Linux 6.16),
/// are only found by the pages that ksmd knows.
pub fn find_other(counters: &Counters) -> Option<OtherUser> {
    if !counters.is_idle() {
        return Some(OtherUser::Pages(*counters));
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("ksm_stat")).ok()?;
        let name = || std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        uses_ksm(&stat).then(|| OtherUser::Process { pid, name: name().trim().to_owned() })
    })
}

/// Pages of this process that were merged with others, and that are zero; `None` if the kernel does
/// not report it.
pub(super) fn own_pages() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string(Path::new("/proc/self/ksm_stat")).ok()?;
    Some((number(&stat, "ksm_merging_pages")?, number(&stat, "ksm_zero_pages")?))
}

fn uses_ksm(stat: &str) -> bool {
    let is_set = |name: &str| value(stat, name) == Some("yes");
    is_set("ksm_mergeable:")
        || is_set("ksm_merge_any:")
        || number(stat, "ksm_rmap_items").is_some_and(|items| items > 0)
}

fn number(stat: &str, name: &str) -> Option<u64> {
    value(stat, name)?.parse().ok()
}

fn value<'a>(stat: &'a str, name: &str) -> Option<&'a str> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_mergeable_memory_uses_ksm() {
        let stat = |items: u64, mergeable: &str| {
            format!(
                "ksm_rmap_items {items}\nksm_zero_pages 0\nksm_merging_pages 0\n\
                 ksm_process_profit 0\nksm_merge_any: no\nksm_mergeable: {mergeable}\n"
            )
        };
        assert!(!uses_ksm(&stat(0, "no")));
        assert!(uses_ksm(&stat(0, "yes")));
        assert!(uses_ksm(&stat(3, "no")));
        assert!(!uses_ksm(""));
    }
}
