//! A disk of a machine.

use std::path::PathBuf;
use std::str::FromStr;

/// A disk of a machine: a raw image, or a block device of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The file, whose size is a multiple of 512 bytes.
    pub path: PathBuf,
    /// Whether the guest can only read it. One that is written has one user; others may share it.
    pub readonly: bool,
}

/// Why a text describes no disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDiskError {
    /// The file is not named.
    #[error("a disk needs path=FILE, as in path=root.img,readonly=on")]
    NoPath,
    /// There is no such key.
    #[error("a disk has path=FILE and readonly=on or readonly=off, and not '{0}'")]
    Unknown(String),
    /// A key is there twice.
    #[error("a disk has one {0}")]
    Twice(&'static str),
}

/// Reads `path=FILE`, with `,readonly=on` or `,readonly=off` before or behind it. There are no commas in `FILE`.
impl FromStr for DiskConfig {
    type Err = ParseDiskError;

    fn from_str(text: &str) -> Result<Self, ParseDiskError> {
        let (mut path, mut readonly) = (None, None);
        for part in text.split(',') {
            let is_first = match part.split_once('=') {
                Some(("path", value)) if !value.is_empty() => {
                    path.replace(PathBuf::from(value)).is_none().then_some(()).ok_or("path")
                }
                Some(("path", _)) => return Err(ParseDiskError::NoPath),
                Some(("readonly", value @ ("on" | "off"))) => {
                    readonly.replace(value == "on").is_none().then_some(()).ok_or("readonly")
                }
                _ => return Err(ParseDiskError::Unknown(part.to_owned())),
            };
            is_first.map_err(ParseDiskError::Twice)?;
        }
        let path = path.ok_or(ParseDiskError::NoPath)?;
        Ok(Self { path, readonly: readonly.unwrap_or(false) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_from_its_options_in_any_order() {
        let disk = |path: &str, readonly| Ok(DiskConfig { path: path.into(), readonly });
        assert_eq!("path=/a b.img".parse(), disk("/a b.img", false));
        assert_eq!("path=x,readonly=on".parse(), disk("x", true));
        assert_eq!("readonly=off,path=x=y".parse(), disk("x=y", false));
    }

    #[test]
    fn what_describes_no_disk_is_refused_and_says_what_does() {
        for (text, part) in [
            ("", "path=FILE"),
            ("root.img", "path=FILE"),
            ("path=", "path=FILE"),
            ("readonly=on", "needs path=FILE"),
            ("path=x,readonly=yes", "'readonly=yes'"),
            ("path=x,size=1G", "'size=1G'"),
            ("path=x,path=y", "one path"),
            ("readonly=on,path=x,readonly=on", "one readonly"),
        ] {
            let error = text.parse::<DiskConfig>().expect_err("no disk").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
