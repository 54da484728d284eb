//! What an agent's mappings must be besides being where they are: protectable, kept from children, without
//! huge pages, and on the nodes that the VM was given.

use std::io;
use std::ops::Range;
use std::path::Path;

use crate::PAGE_SIZE;
use crate::agent::Agent;
use crate::sys::{MappingMarks, MemoryPolicy};
use crate::types::count;

/// Marks by the kernel's names (`VmFlags` of smaps), and what they mean.
const MARKS: [(&str, &str); 3] = [
    ("uw", "covered by the userfaultfd"),
    ("dc", "kept from child processes"),
    ("dd", "left out of core dumps"),
];

impl Agent {
    /// What is wrong with a mapping of the VM's memory, if anything is. Nothing is reported while the kernel
    /// refuses to mark some. O(memory of the process).
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub(in crate::agent) fn find_unmarked(&self) -> io::Result<Option<String>> {
        if self.unmarked_memory.is_some() {
            return Ok(None);
        }
        let spans = self.space.pieces().iter().map(|piece| self.space.whole(piece));
        let ranges: Vec<Range<usize>> =
            spans.map(|span| span.start()..span.start() + span.len_bytes()).collect();
        // A kernel without transparent huge pages has no mark against them.
        let has_huge_pages = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        let no_huge_pages = has_huge_pages.then_some(("nh", "without huge pages"));
        for mapping in MappingMarks::within(&ranges)? {
            let addr = mapping.range.start;
            let missing =
                MARKS.into_iter().chain(no_huge_pages).find(|(flag, _)| !mapping.has(flag));
            if let Some((_, what)) = missing {
                return Ok(Some(format!("the mapping at {addr:#x} is not {what}")));
            }
            if let Some(what) = self.find_other_policy(&mapping.range, &ranges) {
                return Ok(Some(what));
            }
        }
        Ok(None)
    }

    /// What is wrong with the policy of anonymous memory in a mapping, if anything is.
    fn find_other_policy(&self, mapping: &Range<usize>, ranges: &[Range<usize>]) -> Option<String> {
        let at = ranges.iter().position(|range| range.contains(&mapping.start))?;
        let piece = &self.space.pieces()[at];
        let linear = piece.linear.offset(count((mapping.start - ranges[at].start) / PAGE_SIZE));
        let is_wrong = self.extents.slot(linear).is_none()
            && MemoryPolicy::at(mapping.start).as_ref() != self.policy(linear);
        is_wrong.then(|| format!("page {linear} has another NUMA policy than it was given"))
    }
}
