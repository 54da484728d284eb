//! Memory images to fold.

mod census;
mod generated;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use census::Census;
pub use generated::{GenerateError, Shape};
use pagefold_dedup::{AnonymousMemory, PAGE_SIZE};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not memory.
    #[error("{path} has {len_bytes} bytes, which is not a number of pages of 4096 bytes above 0")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        len_bytes: usize,
    },
}

/// The bytes of one VM's memory, a whole number of pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    name: String,
    bytes: Vec<u8>,
}

impl Image {
    /// Reads a raw image.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not a whole number of pages.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let bytes = std::fs::read(path)
            .map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
        let len_bytes = bytes.len();
        let fits = u32::try_from(len_bytes / PAGE_SIZE).is_ok();
        if len_bytes == 0 || !len_bytes.is_multiple_of(PAGE_SIZE) || !fits {
            return Err(ImageError::Size { path: path.to_owned(), len_bytes });
        }
        Ok(Self { name: path.display().to_string(), bytes })
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pages in order.
    pub fn pages(&self) -> &[[u8; PAGE_SIZE]] {
        self.bytes.as_chunks().0
    }

    /// The number of its pages.
    pub fn page_count(&self) -> u32 {
        // Both ways to make an image see to it that this fits.
        u32::try_from(self.pages().len()).unwrap_or(u32::MAX)
    }

    /// Fresh memory with these bytes in it; every page of it is there, zero pages too.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no memory to be had.
    pub fn load(&self) -> io::Result<Arc<AnonymousMemory>> {
        let memory = AnonymousMemory::new(self.page_count())?;
        memory.write(0, &self.bytes);
        Ok(Arc::new(memory))
    }

    /// The first page of `memory` that does not hold what the image does.
    pub fn first_difference(&self, memory: &AnonymousMemory) -> Option<usize> {
        let mut found = [0; PAGE_SIZE];
        self.pages().iter().enumerate().find_map(|(number, page)| {
            memory.read(number * PAGE_SIZE, &mut found);
            (found != *page).then_some(number)
        })
    }
}
