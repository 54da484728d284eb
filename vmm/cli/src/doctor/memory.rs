//! Memory: how much there is, and how the kernel hands it out.

use std::fs;

use pagefold::limits::Tree;
use pagefold::limits::memory::{self, Limit};
use pagefold_dedup::ErrorChain;

use super::finding::{Finding, Verdict};
use super::suggestion::Suggestions;
use crate::size::mib;

/// Enough for a few small VMs.
const LOW_BYTES: u64 = 512 << 20;

/// How much there is, for the host and for the control groups of this process.
pub(super) fn check_available(suggestions: &Suggestions) -> Finding {
    let finding = |verdict, found, fix| Finding {
        name: "memory",
        verdict,
        found,
        meaning: "VMs may together have this much; more only with run --overcommit",
        fix,
    };
    match memory::available(&Tree::real()) {
        Err(error) => finding(
            Verdict::Missing,
            ErrorChain::new(&error).to_string(),
            Some("mount /proc".to_owned()),
        ),
        Ok((limit, bytes)) => {
            let is_low = bytes < LOW_BYTES || suggestions.wanted.lacks_memory();
            let fix = is_low.then(|| match &limit {
                Limit::Host => "free some memory, or run fewer and smaller VMs".to_owned(),
                Limit::ControlGroup(_) => format!("allow {limit} more memory"),
            });
            let verdict = match is_low {
                _ if suggestions.least.lacks_memory() => Verdict::Missing,
                true => Verdict::Poor,
                false => Verdict::Good,
            };
            let found = match limit {
                Limit::Host => format!("{} available", mib(Some(bytes))),
                Limit::ControlGroup(_) => format!("{} available in {limit}", mib(Some(bytes))),
            };
            finding(verdict, found, fix)
        }
    }
}

/// Whether the kernel overcommits memory.
pub(super) fn check_overcommit() -> Finding {
    let setting = fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned());
    let is_strict = setting == "2";
    Finding {
        name: "overcommit",
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
