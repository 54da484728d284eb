//! What the host's file system holds: busybox, KVM's modules, the agent, and the programs with their libraries.

use std::fs;
use std::io::{self, BufWriter};
use std::path::Path;

use crate::archive::Archive;
use crate::guest;
use crate::packages::{Packages, PackagesError};
use crate::programs::{ProgramError, libraries, strip};

/// Modules of the host's kernel, in the order in which they are loaded.
const MODULES: [&str; 4] = ["irqbypass", "ccp", "kvm", "kvm-amd"];

/// Where the `pagefold` command is, for programs that would otherwise build it.
pub const PAGEFOLD: &str = "/bin/pagefold";

/// Folders that are mounted over, or empty to begin with.
const FOLDERS: [&str; 6] = ["bin", "dev", "proc", "sys", "tmp", "root"];

/// Where the agent is.
pub const AGENT: &str = "/bin/host-agent";

/// The first program: what it has from the kernel's command line, it takes from here.
const INIT: &str = include_str!("init.sh");

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Debian's packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// A program that is to be in it.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file that is to be in it, or it itself.
    #[error("cannot pack {path}")]
    File {
        /// The file.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Programs that are to be in an image, by where they are now and there.
pub struct Contents<'path> {
    /// The agent.
    pub agent: &'path Path,
    /// The `pagefold` command.
    pub pagefold: &'path Path,
    /// What guests boot from: a folder.
    pub guest: &'path Path,
    /// Others, which are there where they are here: tests know each other's paths.
    pub others: &'path [&'path Path],
}

/// Writes an image to `to`.
///
/// # Errors
///
/// When something that is to be in it cannot be had or read; `to` may be there in part.
pub fn write(packages: &Packages, contents: &Contents<'_>, to: &Path) -> Result<(), ImageError> {
    let file = fs::File::create(to).map_err(|source| failed(to, source))?;
    let mut image = Image {
        archive: Archive::new(BufWriter::new(file)),
        scratch: to.with_extension("stripped"),
    };
    for folder in FOLDERS {
        image.archive.add_folder(Path::new(folder)).map_err(|source| failed(to, source))?;
    }
    image.add(&packages.busybox(), Path::new("/bin/busybox"))?;
    for (number, module) in (1..).zip(MODULES) {
        let path = format!("/modules/{number}-{module}.ko.xz");
        image.add(&packages.host_module(module)?, Path::new(&path))?;
    }
    image.add_program(contents.agent, Path::new(AGENT))?;
    image.add_program(contents.pagefold, Path::new(PAGEFOLD))?;
    // Busybox's does not know how to put signals back.
    image.add_program(Path::new("/usr/bin/env"), Path::new("/bin/env"))?;
    for file in [guest::BZIMAGE, guest::ELF, guest::INITRD] {
        image.add(&contents.guest.join(file), &Path::new("/guest").join(file))?;
    }
    for program in contents.others {
        image.add_program(program, program)?;
    }
    let Image { mut archive, .. } = image;
    archive.add_file(Path::new("/init"), INIT.as_bytes()).map_err(|source| failed(to, source))?;
    archive.end().map_err(|source| failed(to, source))
}

struct Image {
    archive: Archive<BufWriter<fs::File>>,
    /// Where a program is put without its symbols.
    scratch: std::path::PathBuf,
}

impl Image {
    fn add(&mut self, from: &Path, to: &Path) -> Result<(), ImageError> {
        let bytes = fs::read(from).map_err(|source| failed(from, source))?;
        self.archive.add_file(to, &bytes).map_err(|source| failed(from, source))
    }

    fn add_program(&mut self, from: &Path, to: &Path) -> Result<(), ImageError> {
        let scratch = self.scratch.clone();
        strip(from, &scratch)?;
        self.add(&scratch, to)?;
        fs::remove_file(&scratch).map_err(|source| failed(&scratch, source))?;
        libraries(from)?.iter().try_for_each(|library| self.add(library, library))
    }
}

fn failed(path: &Path, source: io::Error) -> ImageError {
    ImageError::File { path: path.display().to_string(), source }
}
