//! `vm.max_map_count`: how many mappings a process may have.

use pagefold::limits::{Tree, mappings};

use super::finding::{Finding, Verdict};
use super::folding::Trial;

/// The kernel's default, which does for a few hundred thousand shared pages in runs.
const DEFAULT_COUNT: u64 = 65_530;

/// A setting with which busy hosts never run short.
const AMPLE_COUNT: u64 = 1_048_576;

/// Whether there are mappings to fold with.
pub(super) fn check(trial: &Trial) -> Finding {
    let max = mappings::max(&Tree::real());
    let left = match trial {
        Trial::Folded { vmas_budget } => format!(
            ", of which guest memory may use {vmas_budget}: {} shared pages of a process that lie apart, and \
             more in runs",
            vmas_budget / 2
        ),
        _ => String::new(),
    };
    let raise = Some(format!("sysctl {}={AMPLE_COUNT}", mappings::NAME));
    let (verdict, found, fix) = match max {
        Some(max) if max >= DEFAULT_COUNT => (Verdict::Good, format!("{max}{left}"), None),
        Some(max) => (Verdict::Poor, format!("only {max}{left}"), raise),
        None => (Verdict::Poor, "cannot be read".to_owned(), None),
    };
    Finding {
        name: mappings::NAME,
        verdict,
        found,
        meaning: "each run of folded pages takes one or two mappings; when they run short, less is folded, and \
                  `pagefold stats` gives the value to set",
        fix,
    }
}
