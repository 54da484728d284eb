//! One thing that was looked at.

use std::fmt;

use serde::Serialize;

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// It will do, or is not known.
    Poor,
    /// Nothing works without it.
    Missing,
}

/// What was found, what that means, and what to do.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) meaning: &'static str,
    pub(super) fix: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Poor => "poor",
            Verdict::Missing => "MISSING",
        };
        writeln!(f, "{verdict:<7}  {:<16}  {}", self.name, self.found)?;
        writeln!(f, "{:27}{}", "", self.meaning)?;
        match &self.fix {
            Some(fix) => writeln!(f, "{:27}to fix: {fix}", ""),
            None => Ok(()),
        }
    }
}
