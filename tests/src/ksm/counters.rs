//! What KSM reports that it has done.

use std::path::Path;

use super::{KSM, KsmError, format_error, read};

/// KSM's counters at about one moment; each is exact, but they are read one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Scans of all memory that have come to their end since the kernel was started.
    pub full_scans: u64,
    /// Pages that stand for others.
    pub pages_shared: u64,
    /// Pages saved by sharing.
    pub pages_sharing: u64,
    /// Pages that have no twin.
    pub pages_unshared: u64,
    /// Pages that changed too fast.
    pub pages_volatile: u64,
    /// Pages saved because they are zero (with `use_zero_pages`).
    pub zero_pages: u64,
}

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// When the kernel has no KSM, or one without `ksm_zero_pages` (before Linux 6.6).
    pub fn read() -> Result<Self, KsmError> {
        Ok(Self {
            full_scans: counter("full_scans")?,
            pages_shared: counter("pages_shared")?,
            pages_sharing: counter("pages_sharing")?,
            pages_unshared: counter("pages_unshared")?,
            pages_volatile: counter("pages_volatile")?,
            zero_pages: counter("ksm_zero_pages")?,
        })
    }

    /// Pages saved by sharing and by being zero.
    pub fn saved_pages(&self) -> u64 {
        self.pages_sharing + self.zero_pages
    }

    /// Whether KSM knows of no page at all.
    pub fn is_idle(&self) -> bool {
        *self == Self { full_scans: self.full_scans, ..Self::default() }
    }
}

fn counter(name: &str) -> Result<u64, KsmError> {
    let path = Path::new(KSM).join(name);
    let text = read(&path)?;
    // The kernel's differences of counters may dip below zero for a moment: `pages_volatile`.
    let value: i64 = text.parse().map_err(|_| format_error(&path, &text))?;
    Ok(u64::try_from(value).unwrap_or(0))
}
