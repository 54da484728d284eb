//! `/proc/PID/smaps` and `/proc/PID/smaps_rollup`.

use std::fs;

/// One mapping and what stands behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// One above its last address.
    pub end: u64,
    /// Where it begins in its file.
    pub offset: u64,
    /// The file's inode; 0 for anonymous memory.
    pub inode: u64,
    /// The file's path, or empty.
    pub path: String,
    /// Bytes of pages that are the process's own.
    pub anonymous_bytes: u64,
    /// Bytes that are in swap.
    pub swap_bytes: u64,
    /// `VmFlags`, two letters each.
    pub flags: Vec<String>,
}

/// The mappings of a process, ascending.
pub fn mappings(pid: u32) -> Vec<Mapping> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps can be read");
    parse(&smaps)
}

/// A process's proportional set size in bytes: what it has of its own and of memfds. Files, its
/// program among them, are left out: their part depends on who else runs the program.
pub fn rollup_pss_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(path).expect("smaps_rollup can be read");
    ["Pss_Anon", "Pss_Shmem"].iter().map(|name| field_bytes(&rollup, name).expect("a size")).sum()
}

/// The field `name` of a text with lines like `Name:   17 kB`.
pub(super) fn field_bytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| value_bytes(line.strip_prefix(name)?.strip_prefix(':')?))
}

fn value_bytes(value: &str) -> Option<u64> {
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn parse(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        // A header's first field has no colon at its end; every other line's has.
        let (name, value) = line.split_once(' ').expect("two fields");
        if let Some(name) = name.strip_suffix(':') {
            let mapping = mappings.last_mut().expect("a header comes first");
            match name {
                "Anonymous" => mapping.anonymous_bytes = value_bytes(value).expect("a size"),
                "Swap" => mapping.swap_bytes = value_bytes(value).expect("a size"),
                "VmFlags" => mapping.flags = value.split_whitespace().map(str::to_owned).collect(),
                _ => {}
            }
        } else {
            mappings.push(header(line).unwrap_or_else(|| panic!("not a header: '{line}'")));
        }
    }
    mappings
}

/// A line like `7f0000000000-7f0000001000 rw-p 00003000 00:01 1035    /memfd:name (deleted)`.
fn header(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (offset, inode) = (fields.nth(1)?, fields.nth(1)?);
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        inode: inode.parse().ok()?,
        path: fields.collect::<Vec<_>>().join(" "),
        ..Mapping::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_has_its_lines() {
        let text = "7f0000000000-7f0000001000 rw-p 00003000 00:01 1035   /memfd:a b (deleted)\n\
                    Rss:                   4 kB\n\
                    Anonymous:             8 kB\n\
                    Swap:                  0 kB\n\
                    THPeligible:           0\n\
                    VmFlags: rd wr mr uw \n\
                    7f0000001000-7f0000002000 rw-p 00000000 00:00 0 \n\
                    Anonymous:             4 kB\n";
        let mappings = parse(text);
        assert_eq!(mappings.len(), 2);
        assert_eq!((mappings[0].offset, mappings[0].inode), (0x3000, 1035));
        assert_eq!(mappings[0].path, "/memfd:a b (deleted)");
        assert_eq!((mappings[0].anonymous_bytes, mappings[1].anonymous_bytes), (8192, 4096));
        assert_eq!(mappings[0].flags, ["rd", "wr", "mr", "uw"]);
        assert_eq!(mappings[1].path, "");
    }

    #[test]
    fn this_process_has_mappings_and_a_size() {
        let pid = std::process::id();
        assert!(mappings(pid).iter().any(|mapping| mapping.path == "[stack]"));
        assert!(rollup_pss_bytes(pid) > 0);
    }
}
