//! What `/proc` counts for the whole process, `proc_pid_status(5)`.
#![forbid(unsafe_code)]

use std::io;

/// Bytes that a field of `/proc/self/status`, such as `VmSwap:`, counts; `None` where there is no such field.
///
/// # Errors
///
/// The kernel's, when the file cannot be read.
pub(crate) fn status_bytes(field: &str) -> io::Result<Option<u64>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.map(|kib| kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_bytes_and_one_that_is_not_there_is_unknown() {
        let resident = status_bytes("VmRSS:").unwrap().unwrap();
        assert!(resident >= 4096 && resident.is_multiple_of(1024), "{resident}");
        assert_eq!(status_bytes("VmNothing:").unwrap(), None);
    }
}
