//! Memory that the kernel keeps in one piece for several pages, although no page table shows it.
//!
//! The page map shows huge pages that are mapped as such. It does not show multi-size huge pages (Linux
//! 6.8), nor those of which the page table has been split, as when a part of one was given back.
//!
//! Source: the kernel's `Documentation/admin-guide/mm/transhuge.rst`.

use std::fs;
use std::path::Path;

/// Where the kernel has the settings of huge pages, and the counts of them, by size.
pub(super) const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";

/// Whether any memory of this machine's programs may be such. O(sizes of huge pages).
pub(crate) fn may_be_unseen() -> bool {
    let settings = Path::new(SETTINGS);
    let Ok(sizes) = fs::read_dir(settings) else { return false };
    let counts = sizes.flatten().filter_map(|size| {
        // How many there are of a size: Linux 6.12.
        let count = fs::read_to_string(size.path().join("stats/nr_anon")).ok()?;
        count.trim().parse::<u64>().ok()
    });
    match counts.max() {
        Some(most) => most > 0,
        // Not counted: there are none only where none are made.
        None => fs::read_to_string(settings.join("enabled"))
            .is_ok_and(|enabled| !enabled.contains("[never]")),
    }
}
