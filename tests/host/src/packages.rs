//! Debian's kernels and busybox, fetched once and kept outside of the tree.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where packages are kept, unless this names another folder.
const CACHE: &str = "PAGEFOLD_HOST_CACHE";

/// Unpacked packages.
#[derive(Debug, Clone)]
pub struct Packages {
    folder: PathBuf,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// Nowhere to keep them.
    #[error("neither {CACHE} nor XDG_CACHE_HOME nor HOME is set: no folder to keep packages in")]
    NoFolder,
    /// The folder cannot be used.
    #[error("cannot use {}, where packages are kept; {CACHE} names another", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// They could not be fetched.
    #[error("Debian's packages could not be fetched ({status}):\n{output}")]
    Fetch {
        /// How the program that fetches them ended.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// Something that a package should have is not there.
    #[error("{} has no {what}: remove it, and it is fetched again", folder.display())]
    Lacks {
        /// The package's folder.
        folder: PathBuf,
        /// What is missing.
        what: String,
    },
}

impl Packages {
    /// The packages, fetched if they are not there.
    ///
    /// # Errors
    ///
    /// When they cannot be fetched or kept.
    pub fn get() -> Result<Self, PackagesError> {
        let folder = cache_folder().ok_or(PackagesError::NoFolder)?;
        let unusable = |source| PackagesError::Folder { folder: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(unusable)?;
        // Others may be about to fetch them, too.
        let lock = fs::File::create(folder.join("lock")).map_err(unusable)?;
        lock.lock().map_err(unusable)?;
        let packages = Self { folder: folder.clone() };
        if !packages.busybox().exists() {
            fetch(&folder)?;
        }
        Ok(packages)
    }

    /// The kernel that the host runs.
    ///
    /// # Errors
    ///
    /// When its package does not have it.
    pub fn host_kernel(&self) -> Result<PathBuf, PackagesError> {
        kernel(&self.folder.join("linux-image-amd64"))
    }

    /// The kernel that guests run.
    ///
    /// # Errors
    ///
    /// When its package does not have it.
    pub fn guest_kernel(&self) -> Result<PathBuf, PackagesError> {
        kernel(&self.folder.join("linux-image-cloud-amd64"))
    }

    /// A module of the host's kernel, compressed by xz.
    ///
    /// # Errors
    ///
    /// When its package does not have it.
    pub fn host_module(&self, name: &str) -> Result<PathBuf, PackagesError> {
        module(&self.folder.join("linux-image-amd64"), name)
    }

    /// A module of the guests' kernel, compressed by xz.
    ///
    /// # Errors
    ///
    /// When its package does not have it.
    pub fn guest_module(&self, name: &str) -> Result<PathBuf, PackagesError> {
        module(&self.folder.join("linux-image-cloud-amd64"), name)
    }

    /// A busybox that needs no library: what is fetched last.
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox-static/usr/bin/busybox")
    }
}

fn cache_folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os(CACHE) {
        return Some(folder.into());
    }
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("pagefold/debian"))
}

fn fetch(folder: &Path) -> Result<(), PackagesError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fetch-packages");
    let output = Command::new(&script).arg(folder).output();
    let output = output.map_err(|error| PackagesError::Fetch {
        status: format!("{}: {error}", script.display()),
        output: String::new(),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(PackagesError::Fetch {
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
    })
}

fn kernel(package: &Path) -> Result<PathBuf, PackagesError> {
    find(&package.join("boot"), &|name| name.starts_with("vmlinuz-"))
        .ok_or_else(|| lacks(package, "kernel"))
}

fn module(package: &Path, name: &str) -> Result<PathBuf, PackagesError> {
    let file = format!("{name}.ko.xz");
    find(&package.join("usr/lib/modules"), &|found| found == file)
        .ok_or_else(|| lacks(package, &format!("module {name}")))
}

fn lacks(folder: &Path, what: &str) -> PackagesError {
    PackagesError::Lacks { folder: folder.to_owned(), what: what.to_owned() }
}

/// The first file in a folder, or in one that is in it, whose name will do.
fn find(folder: &Path, will_do: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.into_iter().find_map(|entry| {
        if entry.file_type().ok()?.is_dir() {
            return find(&entry.path(), will_do);
        }
        will_do(entry.file_name().to_str()?).then(|| entry.path())
    })
}
