//! Memory: how much there is, and how the kernel hands it out.

use std::fs;

use super::finding::{Finding, Verdict};
use crate::cli::process;
use crate::cli::size::mib;

/// Enough for a few small VMs.
const LOW_BYTES: u64 = 512 << 20;

/// How much there is.
pub(super) fn check_available() -> Finding {
    let available = process::available_bytes();
    let is_low = available.is_none_or(|bytes| bytes < LOW_BYTES);
    Finding {
        name: "memory",
        verdict: if is_low { Verdict::Poor } else { Verdict::Good },
        found: format!("{} available", mib(available)),
        meaning: "VMs may together have this much; more only with run --overcommit",
        fix: is_low.then(|| "free some memory, or run fewer and smaller VMs".to_owned()),
    }
}

/// Whether memory is promised that is not there yet.
pub(super) fn check_overcommit() -> Finding {
    let setting = fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned());
    let is_strict = setting == "2";
    Finding {
        name: "vm.overcommit…",
        verdict: if is_strict { Verdict::Poor } else { Verdict::Good },
        found: format!("vm.overcommit_memory = {setting}"),
        meaning: "2 makes every private mapping count in full, folded or not",
        fix: is_strict.then(|| "sysctl vm.overcommit_memory=0".to_owned()),
    }
}

/// Whether the kernel makes huge pages by itself.
pub(super) fn check_huge_pages() -> Finding {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok();
    let chosen = setting.as_deref().and_then(chosen);
    Finding {
        name: "huge pages",
        verdict: Verdict::Good,
        found: format!("transparent_hugepage/enabled = {}", chosen.unwrap_or("?")),
        meaning: "does not matter here: guest memory asks for small pages, which are what can be equal",
        fix: None,
    }
}

/// The bracketed one of a setting's choices.
fn chosen(setting: &str) -> Option<&str> {
    let (_, rest) = setting.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn the_choice_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }
}
