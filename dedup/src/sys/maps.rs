//! The process's mappings as `/proc/self/maps` lists them.

use std::io;
use std::ops::Range;

/// One mapping of the process: a VMA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessMapping {
    /// Its addresses.
    pub(crate) range: Range<usize>,
    /// Where it begins in its file, in bytes.
    pub(crate) offset_bytes: u64,
    /// Its file, or 0 for anonymous memory.
    pub(crate) inode: u64,
    /// Whether it can be read and written, and what is written there is seen by this process alone.
    pub(crate) is_private_memory: bool,
    /// Whether it is made of huge pages only (hugetlb).
    pub(crate) is_hugetlb: bool,
}

impl ProcessMapping {
    /// Every mapping of the process, ascending by address. O(mappings).
    ///
    /// # Errors
    ///
    /// When `/proc` does not list them, or not in a format that is understood.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let parse = |line: &str| {
            let strange =
                || io::Error::new(io::ErrorKind::InvalidData, format!("mapping '{line}'"));
            Self::parse(line).ok_or_else(strange)
        };
        maps.lines().map(parse).collect()
    }

    /// A line like `7f0000000000-7f0000001000 rw-p 00003000 00:01 1035 /memfd:name`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (permissions, offset, inode) = (fields.next()?, fields.next()?, fields.nth(1)?);
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(Self {
            range: address(start)?..address(end)?,
            offset_bytes: u64::from_str_radix(offset, 16).ok()?,
            inode: inode.parse().ok()?,
            is_private_memory: permissions.starts_with("rw") && permissions.ends_with('p'),
            // What the kernel calls the file behind such memory that is anonymous.
            is_hugetlb: fields.next().is_some_and(|name| name.starts_with("/anon_hugepage")),
        })
    }
}

/// A mapping of the process, and how it is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappingMarks {
    /// Its addresses.
    pub(crate) range: Range<usize>,
    /// What the kernel calls `VmFlags`: two letters each.
    flags: String,
}

impl MappingMarks {
    /// The mappings that overlap any of some ranges of addresses. O(memory of the process).
    ///
    /// # Errors
    ///
    /// When `/proc` does not report it.
    pub(crate) fn within(wanted: &[Range<usize>]) -> io::Result<Vec<Self>> {
        let smaps = std::fs::read_to_string("/proc/self/smaps")?;
        let (mut marks, mut range) = (Vec::new(), None);
        for line in smaps.lines() {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                let flags = flags.to_owned();
                marks.extend(range.take().map(|range| Self { range, flags }));
            } else if line.starts_with(|first: char| first.is_ascii_digit() || first.is_lowercase())
            {
                let mapping = ProcessMapping::parse(line).map(|mapping| mapping.range);
                let overlaps = |range: &Range<usize>| {
                    wanted.iter().any(|other| other.start < range.end && range.start < other.end)
                };
                range = mapping.filter(overlaps);
            }
        }
        Ok(marks)
    }

    /// Whether it is marked so.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.split_ascii_whitespace().any(|other| other == flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_maps_is_understood() {
        let line = "7f0000000000-7f0000001000 rw-p 00003000 00:01 1035 /memfd:name (deleted)";
        let start = 0x7f00_0000_0000;
        let expected = ProcessMapping {
            range: start..start + 4096,
            offset_bytes: 0x3000,
            inode: 1035,
            is_private_memory: true,
            is_hugetlb: false,
        };
        assert_eq!(ProcessMapping::parse(line), Some(expected));
        assert_eq!(ProcessMapping::parse("7f0000000000 rw-p"), None);
    }

    #[test]
    fn all_mappings_of_the_process_are_listed_in_order() {
        let all = ProcessMapping::all().unwrap();
        assert!(all.is_sorted_by(|one, next| one.range.end <= next.range.start));
        let here = &raw const all as usize;
        assert!(all.iter().any(|mapping| mapping.range.contains(&here)), "the stack");
    }
}
