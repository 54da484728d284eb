//! `pagefold doctor`: what this machine offers, what that means, and how to fix what is missing.
//!
//! What can be tried is tried: KVM is opened as a run opens it, and a few pages are folded.

mod finding;
mod folding;
mod kvm;
mod limits;
mod mappings;
mod memory;
mod suggestion;

use std::path::PathBuf;

use serde::Serialize;

use super::failure::{Advise, Failure};
use super::{Outcome, print};
use finding::{Finding, Verdict};
use suggestion::Suggestions;

/// What `pagefold doctor` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask a `pagefold run --api-socket PATH`, too, whether it has mappings enough
    #[arg(long, value_name = "PATH")]
    api_socket: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether everything is there that a run needs.
    ready: bool,
    /// A command to try, if so.
    suggestion: Option<String>,
    findings: &'a [Finding],
}

/// Checks everything and prints what was found.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    // First: what the trial leaves behind is not what a run needs.
    let suggestions = Suggestions::new();
    let (limits, memory) = (limits::check(&suggestions), memory::check_available(&suggestions));
    let trial = folding::Trial::run();
    let mut findings = vec![
        kvm::check(),
        folding::check_userfaultfd(&trial),
        folding::check_pagemap(&trial),
        folding::check_trial(&trial),
        mappings::check(&trial, &suggestions),
        memory,
        memory::check_overcommit(),
        memory::check_huge_pages(),
    ];
    findings.extend(limits);
    if let Some(path) = &args.api_socket {
        findings.push(mappings::check_run(path)?);
    }
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    let suggestion =
        suggestions.fitting.filter(|_| missing == 0).map(|fitting| fitting.to_string());
    if args.json {
        let json =
            serde_json::to_string(&Report { ready: missing == 0, suggestion, findings: &findings })
                .advise("cannot write the findings as JSON", "report this as a fault")?;
        print(&format!("{json}\n"))?;
        return Ok(if missing == 0 { Outcome::Fine } else { Outcome::Lacking });
    }
    for finding in &findings {
        print(&finding.to_string())?;
    }
    if let Some(command) = suggestion {
        print(&format!("\nEverything needed is there. Try: {command}\n"))?;
        Ok(Outcome::Fine)
    } else {
        print(&format!("\n{missing} of the things that a run needs are missing: see above.\n"))?;
        Ok(Outcome::Lacking)
    }
}
