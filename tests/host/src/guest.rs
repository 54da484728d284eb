//! What a stock Linux guest boots from: Debian's cloud kernel, and a first file system with busybox in it.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

use crate::archive::Archive;
use crate::packages::{Packages, PackagesError};

/// Names the folder with the files, for tests.
pub const FOLDER: &str = "PAGEFOLD_GUEST";

/// The kernel as Debian has it, a bzImage.
pub const BZIMAGE: &str = "vmlinuz";
/// The ELF image inside.
pub const ELF: &str = "vmlinux";
/// The first file system.
pub const INITRD: &str = "initrd";

const INIT: &str = include_str!("guest-init.sh");

/// Modules of the kernel's that the first program loads, in this order.
const MODULES: [&str; 3] = ["virtio_mmio", "virtio-rng", "virtio_blk"];

/// Folders that are mounted over.
const FOLDERS: [&str; 3] = ["dev", "proc", "sys"];

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Debian's packages.
    #[error(transparent)]
    Packages(#[from] PackagesError),
    /// A file cannot be read or written.
    #[error("cannot make a guest's {what}")]
    File {
        /// Which.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// Writes the files to a folder.
///
/// # Errors
///
/// When packages cannot be had, or files not be written; some may be there.
pub fn write(packages: &Packages, folder: &Path) -> Result<(), GuestError> {
    let failed = |what| move |source| GuestError::File { what, source };
    let kernel = fs::read(packages.guest_kernel()?).map_err(failed(BZIMAGE))?;
    fs::write(folder.join(BZIMAGE), &kernel).map_err(failed(BZIMAGE))?;
    let elf = elf_image(&kernel).map_err(failed(ELF))?;
    fs::write(folder.join(ELF), elf).map_err(failed(ELF))?;
    initrd(packages, &folder.join(INITRD)).map_err(failed(INITRD))
}

fn initrd(packages: &Packages, to: &Path) -> io::Result<()> {
    let mut archive = Archive::new(io::BufWriter::new(fs::File::create(to)?));
    for folder in FOLDERS {
        archive.add_folder(Path::new(folder))?;
    }
    archive.add_file(Path::new("bin/busybox"), &fs::read(packages.busybox())?)?;
    archive.add_file(Path::new("init"), INIT.as_bytes())?;
    for (number, name) in MODULES.iter().enumerate() {
        let module = packages.guest_module(name).map_err(io::Error::other)?;
        let to = format!("modules/{number}-{name}.ko.xz");
        archive.add_file(Path::new(&to), &fs::read(module)?)?;
    }
    archive.end()
}

/// The ELF image in a bzImage whose payload is compressed by zstd.
///
/// Source: the kernel's `Documentation/arch/x86/boot.rst`, `payload_offset` and `payload_length`.
fn elf_image(bzimage: &[u8]) -> io::Result<Vec<u8>> {
    const SETUP_SECTORS: usize = 0x1f1;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_BYTES: usize = 0x24c;
    let cut_short = || io::Error::other("the kernel is cut short");
    let word = |at: usize| -> io::Result<usize> {
        let bytes = bzimage.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        usize::try_from(u32::from_le_bytes(bytes.ok_or_else(cut_short)?)).map_err(io::Error::other)
    };
    let sectors = *bzimage.get(SETUP_SECTORS).ok_or_else(cut_short)?;
    let start = (usize::from(sectors) + 1) * 512 + word(PAYLOAD_OFFSET)?;
    // Behind the frame its size is written once more.
    let payload = bzimage.get(start..start + word(PAYLOAD_BYTES)?).ok_or_else(cut_short)?;
    let mut image = Vec::new();
    let mut decoder = StreamingDecoder::new(payload).map_err(io::Error::other)?;
    decoder.read_to_end(&mut image)?;
    Ok(image)
}
