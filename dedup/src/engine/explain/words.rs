//! An explanation in words.

use std::fmt;

use super::{Explanation, Reason};
use crate::agent::walk::PageState;
use crate::mode::DedupMode;

/// Places that are listed one by one, at most.
const LISTED: usize = 16;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vm, linear, domain) = (self.vm, self.linear.0, &self.domain);
        writeln!(f, "{:#x} of VM {vm} is page {linear}, in domain '{domain}'.", self.gpa)?;
        match &self.reason {
            Reason::Shared => self.fmt_shared(f),
            Reason::Alone => f.write_str(
                "It is in a slot of its own: the pages that it shared it with were written since, given \
                 up, or taken out of folding.",
            ),
            Reason::Broken => f.write_str(
                "It was shared and has been written since: the kernel gave it its own copy. The next \
                 pass will notice.",
            ),
            Reason::Zero => f.write_str("It is all zero and takes no memory."),
            Reason::Absent => f.write_str(
                "There is nothing to share: the guest has not touched it, or has given it up.",
            ),
            Reason::Swapped => f.write_str("It is not shared: the kernel has swapped it out."),
            Reason::OptedOut => f.write_str("It is not shared: its range is opted out of folding."),
            Reason::Locked => f.write_str(
                "It is not shared: the program has locked it (mlock), and the kernel would copy it at once.",
            ),
            Reason::Mode(DedupMode::Zero) => {
                f.write_str("It is not shared: its VM's mode is zero, which shares nothing.")
            }
            Reason::Mode(mode) => write!(f, "It is not shared: its VM's mode is {mode}."),
            Reason::NotRunning => {
                f.write_str("It is not shared: folding does not run (set run=1).")
            }
            Reason::Budget => f.write_str(
                "It is not shared although it has a twin: the budget of mappings is spent (raise \
                 vm.max_map_count).",
            ),
            Reason::Volatile => {
                f.write_str("It is not shared: it was written lately, or keeps being written.")
            }
            Reason::Skipped { age, remaining_skips } => write!(
                f,
                "It is not shared: it keeps changing (its age is {age}), so it is skipped \
                 {remaining_skips} more times when it is unchanged (set smart_scan=0).",
            ),
            Reason::Matched => f.write_str(
                "It is not shared yet: it has a twin, and the next pass merges them.",
            ),
            Reason::StoreFull => f.write_str(
                "It is not shared although it has a twin: its domain's store is full (raise \
                 store_pages).",
            ),
            Reason::SlotsFull => {
                f.write_str(
                    "It is not shared: each slot of its content is shared by as many pages as may \
                     share one (raise max_page_sharing), or has lost its bytes. It gets another \
                     slot with the next page like it.",
                )?;
                self.fmt_dups(f)
            }
            Reason::OtherNode(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
                write!(
                    f,
                    "It is not shared: pages equal to it are on other NUMA nodes only ({}; set \
                     merge_across_nodes=1).",
                    nodes.join(", ")
                )
            }
            Reason::NoTwin => f.write_str(
                "It is not shared: it is unchanged, and equals no other unchanged page of its domain \
                 that may be shared.",
            ),
            Reason::Unseen => f.write_str(
                "It is not shared: it was not there when its VM was last visited, and no \
                 write to it has been logged since.",
            ),
            Reason::OtherDomain(others) => write!(
                f,
                "It is not shared: pages equal to it are in other domains only ({}).",
                others.join(", ")
            ),
        }
    }
}

impl Explanation {
    fn fmt_shared(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.mappings.iter().filter(|place| {
            (place.vm, place.linear) != (self.vm, self.linear) || place.gpa >> 12 != self.gpa >> 12
        });
        let slot = match self.state {
            PageState::Shared(slot) => slot.0,
            _ => return Ok(()),
        };
        let count = others.clone().count();
        write!(f, "It shares slot {slot} with {count} other {}:", places(count))?;
        for place in others.take(LISTED) {
            let (vm, page) = (place.vm, place.linear.0);
            write!(f, "\n  VM {vm} page {page} at {:#x}", place.gpa)?;
        }
        if count > LISTED {
            write!(f, "\n  and {} more", count - LISTED)?;
        }
        self.fmt_dups(f)?;
        let regions = self.walk.intervals_visited;
        write!(f, "\nFound by visiting {regions} regions for {} pages.", self.walk.items)
    }

    fn fmt_dups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dups.iter().try_for_each(|dup| {
            let sharers = dup.sharers;
            write!(f, "\nSlot {} holds the same, for {sharers} other pages.", dup.slot.0)
        })
    }
}

fn places(count: usize) -> &'static str {
    if count == 1 { "place" } else { "places" }
}
