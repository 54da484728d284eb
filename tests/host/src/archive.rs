//! A cpio archive in the format that the kernel takes for its first file system: "newc".
//!
//! Source: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Component, Path};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const END: &str = "TRAILER!!!";

/// An archive that is being written. Folders are made as they are needed.
#[derive(Debug)]
pub struct Archive<W: Write> {
    to: W,
    /// Paths that are in it.
    known: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An archive without anything in it.
    pub fn new(to: W) -> Self {
        Self { to, known: BTreeSet::new() }
    }

    /// Adds an empty folder; nothing if it is there.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn add_folder(&mut self, path: &Path) -> io::Result<()> {
        let mut folder = String::new();
        for part in path.components() {
            let Component::Normal(part) = part else { continue };
            if !folder.is_empty() {
                folder.push('/');
            }
            folder.push_str(&part.to_string_lossy());
            if self.known.insert(folder.clone()) {
                self.add(&folder, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that everybody may read and execute; nothing if there is something at its path.
    ///
    /// # Errors
    ///
    /// The writer's, or that it is too large for the format.
    pub fn add_file(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.add_new(path, PROGRAM, bytes)
    }

    /// Adds a symbolic link; nothing if there is something at its path.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn add_link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        self.add_new(path, LINK, target.as_bytes())
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn end(mut self) -> io::Result<()> {
        self.add(END, 0, &[])?;
        self.to.flush()
    }

    fn add_new(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            self.add_folder(folder)?;
        }
        let name = path.to_string_lossy().trim_start_matches('/').to_owned();
        if self.known.insert(name.clone()) { self.add(&name, mode, bytes) } else { Ok(()) }
    }

    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::other(format!("{name} is too large for an archive"));
        let len = u32::try_from(bytes.len()).map_err(too_large)?;
        let name_len = u32::try_from(name.len() + 1).map_err(too_large)?;
        let inode = u32::try_from(self.known.len()).map_err(too_large)?;
        let fields = [inode, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        let mut header = "070701".to_owned();
        for field in fields {
            let _ = write!(header, "{field:08x}");
        }
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.to.write_all(bytes)?;
        self.pad(bytes.len())
    }

    /// Headers and contents begin at multiples of 4.
    fn pad(&mut self, len: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..len.next_multiple_of(4) - len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_what_was_added_once_and_in_folders() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.add_file(Path::new("/a/b/c"), b"hello").unwrap();
        archive.add_file(Path::new("a/b/c"), b"other").unwrap();
        archive.add_link(Path::new("a/l"), "b/c").unwrap();
        archive.end().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<&str> = text.split("070701").skip(1).map(|entry| &entry[104..]).collect();
        let has = |name: &str| names.iter().filter(|entry| entry.starts_with(name)).count();
        assert_eq!((has("a\0"), has("a/b\0"), has("a/b/c\0"), has("a/l\0")), (1, 1, 1, 1));
        assert_eq!(has(END), 1);
        assert!(text.contains("hello") && !text.contains("other"), "{text}");
        assert_eq!(bytes.len() % 4, 0);
    }
}
