//! A memory image: a file of pages.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use pagefold_dedup::PAGE_SIZE;
use rayon::prelude::*;

/// Pages read at once: 1 MiB, so that reading is quick and memory stays bounded.
const CHUNK_PAGES: u32 = 256;

/// An image that has been found to be one.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    file: File,
    count_pages: u32,
}

/// Why a file cannot be taken as an image.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} is neither a file nor a block device")]
    NotAFile { path: PathBuf },
    #[error("{path} is empty")]
    Empty { path: PathBuf },
    #[error("{path} has {len_bytes} bytes, which is not a multiple of 4096")]
    NotPages { path: PathBuf, len_bytes: u64 },
    #[error("{path} has {len_bytes} bytes, more than 2^32 pages")]
    TooLarge { path: PathBuf, len_bytes: u64 },
    #[error("cannot read {path} at byte {offset_bytes}")]
    Read { path: PathBuf, offset_bytes: u64, source: io::Error },
}

impl ImageError {
    /// What to do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } => "give the path of a raw memory image that this user may read",
            Self::NotAFile { .. } => {
                "give files: those in a directory one by one, and what comes through a pipe saved first"
            }
            Self::Empty { .. } => "see whether the dump that made the image was complete",
            Self::NotPages { .. } => {
                "give a raw image of whole pages: no ELF core, no compressed or truncated dump"
            }
            Self::TooLarge { .. } => "split the image",
            Self::Read { .. } => {
                "see whether the image is still being written, or its disk has errors"
            }
        }
    }
}

impl Image {
    /// Opens an image and checks its size.
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
        let path = path.to_owned();
        // Looked at first: to open a pipe would wait for whoever writes to it.
        match fs::metadata(&path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_file() || kind.is_block_device() => {}
            Ok(_) => return Err(ImageError::NotAFile { path }),
            Err(source) => return Err(ImageError::Open { path, source }),
        }
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(ImageError::Open { path, source }),
        };
        // Not the metadata's length, which is 0 for a block device.
        let len_bytes = match file.seek(SeekFrom::End(0)) {
            Ok(len_bytes) => len_bytes,
            Err(source) => return Err(ImageError::Open { path, source }),
        };
        if len_bytes == 0 {
            return Err(ImageError::Empty { path });
        }
        if !len_bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(ImageError::NotPages { path, len_bytes });
        }
        let Ok(count_pages) = u32::try_from(len_bytes / PAGE_SIZE as u64) else {
            return Err(ImageError::TooLarge { path, len_bytes });
        };
        Ok(Self { path, file, count_pages })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn count_pages(&self) -> u32 {
        self.count_pages
    }

    /// Reads the image chunk by chunk on all cores, and returns what `visit` makes of each chunk's
    /// first page number and bytes, in order.
    pub(super) fn map_chunks<T: Send>(
        &self,
        visit: impl Fn(u32, &[u8]) -> T + Sync,
    ) -> Result<Vec<T>, ImageError> {
        let starts: Vec<u32> = (0..self.count_pages).step_by(CHUNK_PAGES as usize).collect();
        starts
            .into_par_iter()
            .map_init(
                || vec![0; CHUNK_PAGES as usize * PAGE_SIZE],
                |buffer, first| {
                    let count = CHUNK_PAGES.min(self.count_pages - first) as usize;
                    let bytes = &mut buffer[..count * PAGE_SIZE];
                    let offset_bytes = u64::from(first) * PAGE_SIZE as u64;
                    self.file.read_exact_at(bytes, offset_bytes).map_err(|source| {
                        ImageError::Read { path: self.path.clone(), offset_bytes, source }
                    })?;
                    Ok(visit(first, bytes))
                },
            )
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> ImageError {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        Image::open(file.path()).expect_err("no image")
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        assert!(matches!(error(&[]), ImageError::Empty { .. }));
        let odd = error(&[1; 4097]);
        assert!(odd.to_string().ends_with("has 4097 bytes, which is not a multiple of 4096"));
        let missing = Image::open(Path::new("/nonexistent/image")).expect_err("no image");
        assert!(missing.to_string().contains("/nonexistent/image"));
        for path in ["/", "/dev/zero"] {
            let other = Image::open(Path::new(path)).expect_err("no image");
            assert!(matches!(other, ImageError::NotAFile { .. }));
        }
    }

    #[test]
    fn chunks_come_in_order_and_complete() {
        let count = CHUNK_PAGES * 2 + 1;
        let bytes: Vec<u8> = (0..count).flat_map(|page| page.to_le_bytes().repeat(1024)).collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("written");
        let image = Image::open(file.path()).expect("an image");
        let chunks = image.map_chunks(|first, bytes| (first, bytes.to_vec())).expect("chunks");
        let firsts: Vec<u32> = chunks.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [0, CHUNK_PAGES, CHUNK_PAGES * 2]);
        assert_eq!(chunks.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>(), bytes);
    }
}
