//! Loading an ELF image.

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

/// Loads the segments of `image` at their physical addresses and gives its entry point. What a
/// segment does not fill stays as it is, which in new memory is zero.
pub(super) fn load_elf(ram: &GuestRam, image: &[u8]) -> Result<GuestAddress, LoadImageError> {
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
    fn memory_too_small_for_the_image_is_refused_with_its_size() {
        let ram = GuestRam::new(64 << 10).unwrap();
        let error = load_elf(&ram, BUILTIN_IMAGE).unwrap_err();
        assert!(
            matches!(error, LoadImageError::DoesNotFit { memory_bytes: 65_536, .. }),
            "{error}"
        );
    }
}
