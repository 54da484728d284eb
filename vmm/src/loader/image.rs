//! Loading an ELF image.
//!
//! linux-loader checks the file's magic number and byte order alone, so its class and machine are checked here (gABI,
//! "ELF Header"): what is a 64-bit header to it need not be one.

use std::fmt;
use std::io::Cursor;

use linux_loader::loader::elf::{Elf, Error as ElfError};
use linux_loader::loader::{Error as LoaderError, KernelLoader};
use vm_memory::GuestAddress;

use crate::memory::GuestRam;

/// Why an image could not be loaded; some of it may be in guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadImageError {
    /// It is not a program for this machine.
    #[error("the guest image, of {image_bytes} bytes, is not an ELF executable for x86-64")]
    NotAnImage {
        /// Its size.
        image_bytes: usize,
        /// linux-loader's reason.
        #[source]
        source: LoaderError,
    },
    /// It is a program for another machine; nothing of it is in guest memory.
    #[error("the guest image is an ELF file for {found}, and one for {X86_64} is expected")]
    OtherMachine {
        /// What it is for.
        found: ElfTarget,
    },
    /// It does not fit.
    #[error(
        "the guest image does not fit into {memory_bytes} bytes of guest memory, or is cut short: \
         give the VM more memory"
    )]
    DoesNotFit {
        /// The size of the memory.
        memory_bytes: u64,
        /// linux-loader's reason.
        #[source]
        source: LoaderError,
    },
}

/// What an ELF file is made for: its class and its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElfTarget {
    /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
    pub class: u8,
    /// `e_machine`.
    pub machine: u16,
}

/// What runs here.
pub(super) const X86_64: ElfTarget = ElfTarget { class: 2, machine: 62 };

impl ElfTarget {
    /// What `image` is made for; `None` unless it is a little-endian ELF file. Class and machine are at the same place
    /// in files of either class.
    pub(super) fn of(image: &[u8]) -> Option<Self> {
        let &[0x7f, b'E', b'L', b'F', class, 1, ..] = image else { return None };
        let &[low, high] = image.get(18..20)? else { return None };
        Some(Self { class, machine: u16::from_le_bytes([low, high]) })
    }
}

/// Writes `64-bit AArch64 (class 2, machine 183)`.
impl fmt::Display for ElfTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, machine } = *self;
        f.write_str(match class {
            1 => "32-bit ",
            2 => "64-bit ",
            _ => "",
        })?;
        f.write_str(match machine {
            3 => "x86",
            40 => "Arm",
            62 => "x86-64",
            183 => "AArch64",
            243 => "RISC-V",
            _ => "other",
        })?;
        write!(f, " (class {class}, machine {machine})")
    }
}

/// Loads the segments of `image` at their physical addresses and gives its entry point. What a
/// segment does not fill stays as it is, which in new memory is zero.
pub(super) fn load_elf(ram: &GuestRam, image: &[u8]) -> Result<GuestAddress, LoadImageError> {
    if let Some(found) = ElfTarget::of(image).filter(|&found| found != X86_64) {
        return Err(LoadImageError::OtherMachine { found });
    }
    Elf::load(ram.memory(), None, &mut Cursor::new(image), None)
        .map(|loaded| loaded.kernel_load)
        .map_err(|source| match source {
            LoaderError::Elf(ElfError::ReadKernelImage) => {
                LoadImageError::DoesNotFit { memory_bytes: ram.len_bytes(), source }
            }
            source => LoadImageError::NotAnImage { image_bytes: image.len(), source },
        })
}

#[cfg(test)]
mod tests {
    use pagefold_guest::layout::IMAGE_GPA;
    use vm_memory::Bytes;

    use super::*;
    use crate::loader::BUILTIN_IMAGE;

    #[test]
    fn what_is_no_elf_is_refused() {
        let ram = GuestRam::new(4 << 20).unwrap();
        for image in [&[][..], b"\x7fELF", &[0; 4096]] {
            let error = load_elf(&ram, image).unwrap_err();
            assert!(matches!(error, LoadImageError::NotAnImage { .. }), "{error}");
        }
    }

    #[test]
    fn an_elf_file_for_another_machine_is_refused_with_what_it_is_for() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let found = |class, machine: u16| {
            let mut image = BUILTIN_IMAGE.to_vec();
            image[4] = class;
            image[18..20].copy_from_slice(&machine.to_le_bytes());
            load_elf(&ram, &image).unwrap_err().to_string()
        };
        for (class, machine, name) in [
            (1, 3, "32-bit x86 (class 1, machine 3)"),
            (1, 62, "32-bit x86-64 (class 1, machine 62)"),
            (2, 183, "64-bit AArch64 (class 2, machine 183)"),
            (2, 3, "64-bit x86 (class 2, machine 3)"),
            (0, 62, "x86-64 (class 0, machine 62)"),
            (2, 62 << 8, "64-bit other (class 2, machine 15872)"),
        ] {
            assert_eq!(
                found(class, machine),
                format!(
                    "the guest image is an ELF file for {name}, and one for 64-bit x86-64 \
                     (class 2, machine 62) is expected"
                )
            );
        }
        let mut first = [0xff; 1];
        ram.memory().read_slice(&mut first, GuestAddress(IMAGE_GPA)).unwrap();
        assert_eq!(first, [0], "nothing of a refused image is in guest memory");
    }

    #[test]
    fn a_file_cut_short_before_its_machine_is_no_image() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let error = load_elf(&ram, &BUILTIN_IMAGE[..19]).unwrap_err();
        assert!(matches!(error, LoadImageError::NotAnImage { image_bytes: 19, .. }), "{error}");
    }

    #[test]
    fn memory_too_small_for_the_image_is_refused_with_its_size() {
        let ram = GuestRam::new(64 << 10).unwrap();
        let error = load_elf(&ram, BUILTIN_IMAGE).unwrap_err();
        assert!(
            matches!(error, LoadImageError::DoesNotFit { memory_bytes: 65_536, .. }),
            "{error}"
        );
    }
}
