//! A memory image: a file of pages, some of which may be holes.
//!
//! A hole reads as zeroes and is never read: an image of a VM that touched little may be a thousand
//! times as long as what it takes.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use pagefold_dedup::PAGE_SIZE;
use rayon::prelude::*;
use rustix::fs::SeekFrom;

use super::progress::Progress;

/// Pages read at once: 1 MiB, so that reading is quick and memory stays bounded.
const CHUNK_PAGES: u32 = 256;

/// Pages of a hole that are looked at together.
const HOLE_PAGES: u32 = 1 << 15;

/// An image that has been found to be one.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    file: File,
    page_count: u32,
}

/// Consecutive pages that a file has, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    first: u32,
    page_count: u32,
    is_hole: bool,
}

/// Consecutive pages of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'bytes> {
    /// Pages from the first on, with their bytes.
    Data(u32, &'bytes [u8]),
    /// Pages of zeroes that the file does not hold: the first, and how many.
    Hole(u32, u32),
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
    #[error("{path} is no image: it cannot be asked for its length")]
    Length { path: PathBuf, source: io::Error },
    #[error("{path} had {from_bytes} bytes, and {to_bytes} once its pages had been counted")]
    Shrunk { path: PathBuf, from_bytes: u64, to_bytes: u64 },
    #[error("cannot read {path} at byte {offset_bytes}")]
    Read { path: PathBuf, offset_bytes: u64, source: io::Error },
}

impl ImageError {
    /// What to do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } => "give the path of a raw memory image that this user may read",
            Self::NotAFile { .. } | Self::Length { .. } => {
                "give files: those in a directory one by one, and what comes through a pipe saved first"
            }
            Self::Empty { .. } => "see whether the dump that made the image was complete",
            Self::NotPages { .. } => {
                "give a raw image of whole pages: no ELF core, no compressed or truncated dump"
            }
            Self::TooLarge { .. } => "split the image",
            Self::Shrunk { .. } => {
                "give an image that nobody writes to: of a VM that has ended, or a copy"
            }
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
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(ImageError::Open { path, source }),
        };
        let len_bytes = match len_bytes(&file) {
            Ok(len_bytes) => len_bytes,
            Err(source) => return Err(ImageError::Length { path, source }),
        };
        if len_bytes == 0 {
            return Err(ImageError::Empty { path });
        }
        if !len_bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(ImageError::NotPages { path, len_bytes });
        }
        let Ok(page_count) = u32::try_from(len_bytes / PAGE_SIZE as u64) else {
            return Err(ImageError::TooLarge { path, len_bytes });
        };
        Ok(Self { path, file, page_count })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Pages that the file holds, as it is now; the others are holes. O(holes).
    pub(super) fn data_page_count(&self) -> u32 {
        let data = self.segments().into_iter().filter(|segment| !segment.is_hole);
        data.map(|segment| segment.page_count).sum()
    }

    /// Refuses an image that has become shorter since it was opened: beyond its end everything looks like a hole.
    pub(super) fn check_length(&self) -> Result<(), ImageError> {
        let (path, from_bytes) = (&self.path, offset(self.page_count));
        match len_bytes(&self.file) {
            Ok(to_bytes) if to_bytes >= from_bytes => Ok(()),
            Ok(to_bytes) => Err(ImageError::Shrunk { path: path.clone(), from_bytes, to_bytes }),
            Err(source) => Err(ImageError::Length { path: path.clone(), source }),
        }
    }

    /// Reads the image part by part on all cores, and returns what `visit` makes of each part, in
    /// order: no page is missing. What has been visited is added to `progress`.
    pub(super) fn map_parts<T: Send>(
        &self,
        progress: &Progress,
        visit: impl Fn(Part<'_>) -> T + Sync,
    ) -> Result<Vec<T>, ImageError> {
        let parts: Vec<Segment> = self.segments().into_iter().flat_map(Segment::cut).collect();
        let read =
            |buffer: &mut Vec<u8>, part: Segment| {
                let first = part.first;
                let part_bytes = u64::from(part.page_count) * PAGE_SIZE as u64;
                if part.is_hole {
                    let result = visit(Part::Hole(first, part.page_count));
                    progress.add(part_bytes);
                    return Ok(result);
                }
                buffer.resize(CHUNK_PAGES as usize * PAGE_SIZE, 0);
                let bytes = &mut buffer[..part.page_count as usize * PAGE_SIZE];
                let offset_bytes = u64::from(first) * PAGE_SIZE as u64;
                self.file.read_exact_at(bytes, offset_bytes).map_err(|source| {
                    ImageError::Read { path: self.path.clone(), offset_bytes, source }
                })?;
                let result = visit(Part::Data(first, bytes));
                progress.add(part_bytes);
                Ok(result)
            };
        parts.into_par_iter().map_init(Vec::new, read).collect()
    }

    /// The segments in order, as the file is now: it may change at any time.
    fn segments(&self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut page = 0;
        while page < self.page_count {
            // Where the kernel reports no holes (a device, an old file system), all is data.
            let data = self.seek(SeekFrom::Data(offset(page)), page, u64::div_euclid);
            push(&mut segments, page, data, true);
            let hole = if data < self.page_count {
                self.seek(SeekFrom::Hole(offset(data)), self.page_count, div_ceil)
            } else {
                data
            };
            push(&mut segments, data, hole, false);
            page = hole;
        }
        segments
    }

    /// The page that the kernel finds, or the end of the image if there is none; `otherwise` if it
    /// cannot tell.
    fn seek(&self, from: SeekFrom, otherwise: u32, round: fn(u64, u64) -> u64) -> u32 {
        let (SeekFrom::Data(start) | SeekFrom::Hole(start)) = from else { return otherwise };
        let page = match rustix::fs::seek(&self.file, from) {
            Ok(offset_bytes) => round(offset_bytes.max(start), PAGE_SIZE as u64),
            Err(rustix::io::Errno::NXIO) => return self.page_count,
            Err(_) => return otherwise,
        };
        // A file may grow meanwhile.
        u32::try_from(page).map_or(self.page_count, |page| page.min(self.page_count))
    }
}

/// Not the metadata's, which is 0 for a block device.
fn len_bytes(mut file: &File) -> io::Result<u64> {
    file.seek(io::SeekFrom::End(0))
}

fn offset(page: u32) -> u64 {
    u64::from(page) * PAGE_SIZE as u64
}

fn div_ceil(bytes: u64, unit: u64) -> u64 {
    bytes.div_ceil(unit)
}

fn push(segments: &mut Vec<Segment>, first: u32, end: u32, is_hole: bool) {
    if first < end {
        segments.push(Segment { first, page_count: end - first, is_hole });
    }
}

impl Segment {
    /// Into parts that are handled in one piece.
    fn cut(self) -> impl Iterator<Item = Self> {
        let step = if self.is_hole { HOLE_PAGES } else { CHUNK_PAGES };
        (0..self.page_count.div_ceil(step)).map(move |number| {
            let skip = number * step;
            let page_count = step.min(self.page_count - skip);
            Self { first: self.first + skip, page_count, is_hole: self.is_hole }
        })
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
        let endless = Image::open(Path::new("/proc/version")).expect_err("no image");
        assert!(matches!(endless, ImageError::Length { .. }), "{endless:?}");
    }

    /// All parts, with a copy of the bytes of those that have some.
    fn parts(path: &Path) -> Vec<(u32, usize, Option<Vec<u8>>)> {
        let image = Image::open(path).expect("an image");
        let copy = |part: Part<'_>| match part {
            Part::Data(first, bytes) => (first, bytes.len() / PAGE_SIZE, Some(bytes.to_vec())),
            Part::Hole(first, count) => (first, count as usize, None),
        };
        image.map_parts(&Progress::hidden(), copy).expect("parts")
    }

    #[test]
    fn parts_come_in_order_and_complete() {
        let count = CHUNK_PAGES * 2 + 1;
        let bytes: Vec<u8> = (0..count).flat_map(|page| page.to_le_bytes().repeat(1024)).collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("written");
        let parts = parts(file.path());
        let firsts: Vec<u32> = parts.iter().map(|(first, ..)| *first).collect();
        assert_eq!(firsts, [0, CHUNK_PAGES, CHUNK_PAGES * 2]);
        let read: Vec<u8> = parts.into_iter().filter_map(|(.., bytes)| bytes).flatten().collect();
        assert_eq!(read, bytes);
    }

    #[test]
    fn holes_are_found_and_not_read() {
        // A file system in memory, which has holes of single pages.
        let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
        let count = HOLE_PAGES + 20;
        file.as_file().set_len(offset(count)).expect("a length");
        for page in [5, 6, 9, count - 1] {
            file.as_file().write_all_at(&[7; PAGE_SIZE], offset(page)).expect("written");
        }
        let found: Vec<(u32, usize, bool)> = parts(file.path())
            .into_iter()
            .map(|(first, count, bytes)| (first, count, bytes.is_some()))
            .collect();
        let whole = HOLE_PAGES as usize;
        assert_eq!(
            found,
            [
                (0, 5, false),
                (5, 2, true),
                (7, 2, false),
                (9, 1, true),
                (10, whole, false),
                (10 + HOLE_PAGES, 9, false),
                (count - 1, 1, true),
            ]
        );
        let image = Image::open(file.path()).expect("an image");
        assert_eq!((image.page_count(), image.data_page_count()), (count, 4));
    }

    #[test]
    fn progress_goes_on_over_holes() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
        file.as_file().set_len(offset(HOLE_PAGES + 20)).expect("a length");
        file.as_file().write_all_at(&[7; PAGE_SIZE], offset(9)).expect("written");
        let image = Image::open(file.path()).expect("an image");
        let progress = Progress::hidden();
        image.map_parts(&progress, |_| ()).expect("parts");
        assert_eq!(progress.done_bytes(), offset(image.page_count()));
    }
}
