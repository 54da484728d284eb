//! Whether pages can be folded: tried on a few, with everything that folding needs of the kernel.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use pagefold_dedup::errors::{AgentError, AgentSetupError};
use pagefold_dedup::{
    AnonymousMemory, AttachError, AttachSpec, DedupMode, Engine, EngineConfig, EngineError,
    ErrorChain, PAGE_SIZE, Unchanging, VmId,
};

use super::finding::{Finding, Verdict};
use crate::failure::limit_advice;

/// Pages of each of the two pretended VMs.
const PAGES: u32 = 16;

/// Far more than a few pages take.
const LIMIT: Duration = Duration::from_secs(10);

/// The number of `CAP_SYS_PTRACE` in a set of capabilities.
const CAP_SYS_PTRACE: u32 = 19;

/// How the trial went.
#[derive(Debug)]
pub(super) enum Trial {
    /// It folded what it should, under this budget of mappings.
    Folded { vmas_budget: u64 },
    /// It folded, but not all, or the bytes were wrong.
    Differs { saved_pages: u64, is_intact: bool },
    /// No memory to try it on.
    NoMemory(std::io::Error),
    /// The engine did not start.
    Engine(EngineError),
    /// The memory could not be attached.
    Attach(AttachError),
    /// A pass failed.
    Pass(AgentError),
}

impl Trial {
    /// Folds the memory of two VMs that do not run.
    pub(super) fn run() -> Self {
        let memories = match [memory(), memory()] {
            [Ok(first), Ok(second)] => [first, second],
            [Err(error), _] | [_, Err(error)] => return Self::NoMemory(error),
        };
        let config = EngineConfig { thread_count: Some(1), ..EngineConfig::default() };
        let mut engine = match Engine::new(config) {
            Ok(engine) => engine,
            Err(error) => return Self::Engine(error),
        };
        for (number, memory) in (0..).zip(&memories) {
            let spec = AttachSpec {
                domain: "doctor".to_owned(),
                mode: DedupMode::On,
                memory: Arc::<AnonymousMemory>::clone(memory),
                changes: Box::new(Unchanging),
            };
            if let Err(error) = engine.attach(VmId(number), spec) {
                return Self::Attach(error);
            }
        }
        if let Some((_, error)) = engine.pass().errors.into_iter().next() {
            return Self::Pass(error);
        }
        // What that came to is seen by what is saved.
        let _ = engine.settle(LIMIT, Duration::ZERO);
        let stats = engine.stats();
        let saved_pages = stats.saved_bytes / PAGE_SIZE as u64;
        let is_intact = memories.iter().all(|memory| is_intact(memory));
        if saved_pages == u64::from(PAGES) && is_intact {
            Self::Folded { vmas_budget: stats.vmas_budget }
        } else {
            Self::Differs { saved_pages, is_intact }
        }
    }
}

fn memory() -> std::io::Result<Arc<AnonymousMemory>> {
    // As guests' is.
    let memory = AnonymousMemory::new(PAGES)?.written_by_kernel();
    for page in 0..PAGES {
        memory.write(page as usize * PAGE_SIZE, &content(page));
    }
    Ok(Arc::new(memory))
}

fn content(page: u32) -> Vec<u8> {
    (page + 1).to_le_bytes().repeat(PAGE_SIZE / size_of::<u32>())
}

fn is_intact(memory: &AnonymousMemory) -> bool {
    let mut bytes = vec![0; PAGE_SIZE];
    (0..PAGES).all(|page| {
        memory.read(page as usize * PAGE_SIZE, &mut bytes);
        bytes == content(page)
    })
}

/// Whether pages can be write-protected against the guest and against KVM itself.
pub(super) fn check_userfaultfd(trial: &Trial) -> Finding {
    let finding = |verdict, found, fix| Finding {
        name: "userfaultfd",
        verdict,
        found,
        meaning: "holds off writers, KVM itself among them, while a page is compared and mapped",
        fix,
    };
    match trial {
        Trial::Attach(AttachError::Agent {
            source: AgentSetupError::Userfaultfd(error), ..
        }) => finding(
            Verdict::Missing,
            ErrorChain::new(error).to_string(),
            limit_advice(error).or_else(|| {
                Some(format!(
                    "run as root, or: chmod o+rw /dev/userfaultfd; or: sysctl \
                     vm.unprivileged_userfaultfd=1 (now {})",
                    setting("/proc/sys/vm/unprivileged_userfaultfd")
                ))
            }),
        ),
        Trial::Attach(AttachError::Agent { source: AgentSetupError::Prepare(error), .. }) => {
            let otherwise = || Some("use Linux 6.7 or later".to_owned());
            finding(
                Verdict::Missing,
                ErrorChain::new(error).to_string(),
                limit_advice(error).or_else(otherwise),
            )
        }
        Trial::Folded { .. } | Trial::Differs { .. } | Trial::Pass(_) => {
            finding(Verdict::Good, format!("faults of the kernel are covered: {}", route()), None)
        }
        _ => finding(Verdict::Poor, "could not be tried: see folding, below".to_owned(), None),
    }
}

/// What permits it to this process.
fn route() -> &'static str {
    let capabilities = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(effective.trim(), 16).ok()
    });
    if capabilities.is_some_and(|set| set & (1 << CAP_SYS_PTRACE) != 0) {
        "by CAP_SYS_PTRACE"
    } else if setting("/proc/sys/vm/unprivileged_userfaultfd") == "1" {
        "by vm.unprivileged_userfaultfd = 1"
    } else {
        "by access to /dev/userfaultfd"
    }
}

/// Whether the kernel reports which pages were written.
pub(super) fn check_pagemap(trial: &Trial) -> Finding {
    let finding = |verdict, found, fix| Finding {
        name: "PAGEMAP_SCAN",
        verdict,
        found,
        meaning: "finds the pages that guests have made their own again by writing",
        fix,
    };
    match trial {
        Trial::Pass(error @ AgentError::Pagemap(_)) => finding(
            Verdict::Missing,
            ErrorChain::new(error).to_string(),
            limit_advice(error).or_else(|| Some("use Linux 6.7 or later".to_owned())),
        ),
        Trial::Attach(AttachError::Agent {
            source: error @ AgentSetupError::Pagemap(_), ..
        }) => finding(
            Verdict::Missing,
            ErrorChain::new(error).to_string(),
            limit_advice(error).or_else(|| Some("mount /proc".to_owned())),
        ),
        Trial::Folded { .. } | Trial::Differs { .. } => finding(
            Verdict::Good,
            format!("works on Linux {}", setting("/proc/sys/kernel/osrelease")),
            None,
        ),
        _ => finding(Verdict::Poor, "could not be tried: see folding, below".to_owned(), None),
    }
}

/// How the trial ended.
pub(super) fn check_trial(trial: &Trial) -> Finding {
    let missing = |error: &(dyn std::error::Error + 'static), otherwise: &str| {
        let fix = limit_advice(error).unwrap_or_else(|| otherwise.to_owned());
        (Verdict::Missing, ErrorChain::new(error).to_string(), Some(fix))
    };
    let (verdict, found, fix) = match trial {
        Trial::Folded { .. } => (
            Verdict::Good,
            format!("{PAGES} pages of two VMs were folded, and read as before"),
            None,
        ),
        Trial::Differs { saved_pages, is_intact } => {
            let bytes = if *is_intact { "read as before" } else { "HAVE CHANGED" };
            let found =
                format!("{saved_pages} of {PAGES} pages were folded, and their bytes {bytes}");
            (Verdict::Missing, found, Some("report this, with the output of uname -a".to_owned()))
        }
        Trial::NoMemory(error) => missing(error, "free some memory"),
        Trial::Engine(error) => missing(error, "see whether /proc is mounted"),
        Trial::Attach(error) => missing(error, "see above"),
        Trial::Pass(error) => missing(error, "see above"),
    };
    Finding { name: "folding", verdict, found, meaning: "all of it together, tried just now", fix }
}

/// A kernel setting, or `?`.
fn setting(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}
