//! `vm.max_map_count`: how many mappings a process may have.

use std::path::Path;

use pagefold::limits::{RoomError, Tree, mappings};
use pagefold_api::ApiClient;
use pagefold_dedup::stats::DedupStats;

use super::finding::{Finding, Verdict};
use super::folding::Trial;
use super::suggestion::Suggestions;
use crate::failure::Failure;
use crate::socket::no_answer;
use crate::stats;

/// The kernel's default, which does for a few hundred thousand shared pages in runs.
const DEFAULT_COUNT: u64 = 65_530;

/// A setting with which busy hosts never run short.
const AMPLE_COUNT: u64 = 1_048_576;

/// Whether there are mappings to fold with.
pub(super) fn check(trial: &Trial, suggestions: &Suggestions) -> Finding {
    let is_its = |error: &RoomError| matches!(error, RoomError::Mappings { .. });
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
        Some(max) => match suggestions.least.lacks(is_its) {
            Some(error) => (Verdict::Missing, error.to_string(), raise),
            None => (Verdict::Poor, format!("only {max}{left}"), raise),
        },
        None => (Verdict::Poor, "cannot be read".to_owned(), None),
    };
    Finding {
        name: mappings::NAME,
        verdict,
        found,
        meaning: "each run of folded pages takes one or two mappings; when they run short, less is folded, and \
                  `pagefold stats` and `doctor --api-socket PATH` give the value to set",
        fix,
    }
}

/// Whether those of the process that serves a control socket suffice.
///
/// # Errors
///
/// When it does not answer.
pub(super) fn check_run(socket: &Path) -> Result<Finding, Failure> {
    let stats = ApiClient::new(socket).and_then(|client| client.dedup());
    Ok(of_run(&stats.map_err(|error| no_answer("cannot get the statistics", &error))?))
}

fn of_run(stats: &DedupStats) -> Finding {
    let (used, command) = stats::mappings(stats);
    Finding {
        name: "its mappings",
        verdict: if command.is_some() { Verdict::Poor } else { Verdict::Good },
        found: used,
        meaning: "what the process that serves the socket uses of those that guest memory may have",
        fix: command.map(|command| format!("{command}{}", stats::OF_VMS)),
    }
}

#[cfg(test)]
mod tests {
    use pagefold_dedup::stats::VmStats;

    use super::*;

    #[test]
    fn pages_that_are_put_off_for_want_of_mappings_come_with_what_to_do() {
        let mut stats = DedupStats::default();
        let finding = of_run(&stats);
        assert_eq!((finding.verdict, finding.fix), (Verdict::Good, None));
        let deferred_pages = 7;
        stats.vms = vec![VmStats { deferred_pages, ..VmStats::default() }];
        let finding = of_run(&stats);
        assert_eq!(finding.verdict, Verdict::Poor);
        assert!(finding.found.contains("7 pages are put off"), "{}", finding.found);
        let fix = finding.fix.expect("what to do");
        assert!(fix.starts_with("sysctl vm.max_map_count="), "{fix}");
    }
}
