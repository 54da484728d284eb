//! Where the mapping begins and ends that an address lies in, without listing all mappings.
//!
//! Source: `PROCMAP_QUERY` of `include/uapi/linux/fs.h` (Linux 6.11).

use std::fs::File;
use std::io;
use std::ops::Range;

use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::maps::ProcessMapping;
use crate::PAGE_SIZE;

const PROCMAP_QUERY_VMA_READABLE: u64 = 1 << 0;
const PROCMAP_QUERY_VMA_WRITABLE: u64 = 1 << 1;
const PROCMAP_QUERY_VMA_SHARED: u64 = 1 << 3;

#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    addr: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    /// Of the two buffers below, which stay empty: nothing is written to them.
    sizes: [u32; 2],
    name_addr: u64,
    build_id_addr: u64,
}

ioctl_iowr_nr!(PROCMAP_QUERY, b'f'.into(), 17, Query);

/// `/proc/self/maps`, queried for one mapping at a time.
#[derive(Debug)]
pub(crate) struct MappingBounds(File);

impl MappingBounds {
    /// Opens the calling process's mappings; `None` if the kernel has no such query (before Linux
    /// 6.11).
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read at all.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        let bounds = Self(File::open("/proc/self/maps")?);
        let here = &raw const bounds as usize;
        match bounds.at(here) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(None),
            result => result.map(|_| Some(bounds)),
        }
    }

    /// The addresses of the mapping that `addr` lies in. O(log mappings).
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOENT` when nothing is mapped there).
    pub(crate) fn at(&self, addr: usize) -> io::Result<Range<usize>> {
        self.mapping(addr).map(|mapping| mapping.range)
    }

    /// The mapping that `addr` lies in. O(log mappings).
    ///
    /// # Errors
    ///
    /// As for [`at`](Self::at).
    pub(super) fn mapping(&self, addr: usize) -> io::Result<ProcessMapping> {
        let mut query =
            Query { size: size_of::<Query>() as u64, addr: addr as u64, ..Query::default() };
        // SAFETY: the kernel reads and writes one `Query`, which is laid out as its own, and
        // writes to no buffer, as both are said to have no bytes.
        let result = unsafe { ioctl_with_mut_ref(&self.0, PROCMAP_QUERY(), &mut query) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let address = |value| usize::try_from(value).map_err(io::Error::other);
        let access = PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_WRITABLE;
        Ok(ProcessMapping {
            range: address(query.start)?..address(query.end)?,
            offset_bytes: query.offset,
            inode: query.inode,
            is_private_memory: query.vma_flags & (access | PROCMAP_QUERY_VMA_SHARED) == access,
            is_hugetlb: query.page_size > PAGE_SIZE as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ProcessMapping;

    #[test]
    fn one_mapping_is_what_the_list_of_all_says() {
        let Some(bounds) = MappingBounds::open().unwrap() else {
            eprintln!("PROCMAP_QUERY needs Linux 6.11");
            return;
        };
        let here = &raw const bounds as usize;
        let all = ProcessMapping::all().unwrap();
        let listed = all.iter().find(|mapping| mapping.range.contains(&here)).unwrap();
        let found = bounds.at(here).unwrap();
        assert_eq!(found.start, listed.range.start);
        assert!(found.contains(&here));
        assert_eq!(bounds.at(0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
