//! Where the kernel's files are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory below which `/proc` and `/sys` are: the real ones, or made-up ones.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// This process's own.
    pub fn real() -> Self {
        Self::below("/")
    }

    /// The one below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the file that is `path` for this process is.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        fs::read_to_string(self.path(path.as_ref()))
    }

    /// The only number in a file; `None` where there is no such file, or no number in it.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }
}

#[cfg(test)]
impl Tree {
    /// A made-up tree with these files, in a directory that lives as long as the second part.
    pub(crate) fn made_up(files: &[(&str, &str)]) -> (Self, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        let tree = Self::below(root.path());
        for (path, text) in files {
            let path = tree.path(Path::new(path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (tree, root)
    }
}
