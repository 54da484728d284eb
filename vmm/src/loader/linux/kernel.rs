//! The kernel's file: what it is, and where it goes.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use linux_loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::elf::{Elf, Error as ElfError, PvhBootCapability};
use linux_loader::loader::{Error as LoaderError, KernelLoader};
use vm_memory::{ByteValued, GuestAddress};

use super::LinuxError;
use super::memory_map::low_memory_end;
use crate::loader::image::{ElfTarget, X86_64};
use crate::memory::{GuestRam, MemoryLayout};
use crate::pc::layout::HIGH_MEMORY_START;

/// What errors call it.
const WHAT: &str = "kernel";

/// Of what compressors write.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";

/// Where a bzImage has its header.
const HEADER: u64 = 0x1f1;
/// `HdrS`.
const HEADER_MAGIC: u32 = 0x5372_6448;
/// The first version of the boot protocol with a 64-bit entry: Linux 3.8.
const LEAST_VERSION: u16 = 0x020c;
/// `LOADED_HIGH`: it is no zImage.
const LOADED_HIGH: u8 = 1;
/// `XLF_KERNEL_64`: it has a 64-bit entry.
const KERNEL_64: u16 = 1;
/// Where that is, from the beginning of the kernel.
const ENTRY_64: u64 = 0x200;

/// What kernels that do not say take of a command line, without its end (`COMMAND_LINE_SIZE`).
const CMDLINE_BYTES: usize = 2047;

/// A kernel's file.
pub(super) struct KernelFile {
    file: File,
    path: PathBuf,
    len_bytes: u64,
    format: Format,
}

enum Format {
    Elf,
    BzImage(setup_header),
}

/// How a kernel is entered.
pub(super) enum Protocol {
    /// In protected mode, with PVH's start info.
    Pvh,
    /// In long mode, with boot parameters that begin with this.
    Long(setup_header),
}

/// A kernel in memory.
pub(super) struct LoadedKernel {
    /// Its first instruction.
    pub(super) instruction: GuestAddress,
    /// How it is entered.
    pub(super) protocol: Protocol,
    /// The first address above what it needs until it knows its memory.
    pub(super) end: u64,
}

/// Opens a file of a kernel's, and returns its size, too.
///
/// # Errors
///
/// When it cannot be read, is no regular file, or is empty.
pub(super) fn open_file(what: &'static str, path: &Path) -> Result<(File, u64), LinuxError> {
    let failed = |source| LinuxError::Read { what, path: path.to_owned(), source };
    // Before it is opened: opening a FIFO would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(LinuxError::NotAFile { what, path: path.to_owned() });
    }
    let file = File::open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.len() {
        0 => Err(LinuxError::Empty { what, path: path.to_owned() }),
        len_bytes => Ok((file, len_bytes)),
    }
}

impl KernelFile {
    /// Opens it, and finds out what it is.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no kernel for x86-64.
    pub(super) fn open(path: &Path) -> Result<Self, LinuxError> {
        let (file, len_bytes) = open_file(WHAT, path)?;
        let format = format(&file).map_err(|why| match why {
            NoFormat::Read(source) => {
                LinuxError::Read { what: WHAT, path: path.to_owned(), source }
            }
            NoFormat::OtherMachine(found) => {
                LinuxError::OtherMachine { path: path.to_owned(), found }
            }
            NoFormat::Found(found) => LinuxError::NotAKernel { path: path.to_owned(), found },
        })?;
        Ok(Self { file, path: path.to_owned(), len_bytes, format })
    }

    /// The most bytes that it takes of a command line.
    pub(super) fn max_cmdline_bytes(&self) -> usize {
        match &self.format {
            Format::Elf => CMDLINE_BYTES,
            Format::BzImage(header) => usize::try_from(header.cmdline_size)
                .map_or(CMDLINE_BYTES, |size| size.min(CMDLINE_BYTES)),
        }
    }

    /// The first address above where an initrd may lie.
    pub(super) fn initrd_limit(&self) -> u64 {
        match &self.format {
            Format::Elf => u64::MAX,
            Format::BzImage(header) => u64::from(header.initrd_addr_max) + 1,
        }
    }

    /// The first address above what it needs, as far as it says so itself.
    ///
    /// # Errors
    ///
    /// When a VM with memory as in `layout` does not have that.
    pub(super) fn least_end(&self, layout: MemoryLayout) -> Result<u64, LinuxError> {
        let end = match &self.format {
            Format::Elf => HIGH_MEMORY_START,
            Format::BzImage(header) => self.place(header, layout)?.1,
        };
        self.check_fits(end, layout)?;
        Ok(end)
    }

    /// Puts it into memory.
    ///
    /// # Errors
    ///
    /// When it does not fit, or does not make sense; some of it may be there.
    pub(super) fn load(&mut self, ram: &GuestRam) -> Result<LoadedKernel, LinuxError> {
        let rewound = self.file.rewind();
        rewound.map_err(|source| LinuxError::Read {
            what: WHAT,
            path: self.path.clone(),
            source,
        })?;
        let loaded = match &self.format {
            Format::Elf => self.load_elf(ram)?,
            Format::BzImage(header) => self.load_bzimage(*header, ram)?,
        };
        self.check_fits(loaded.end, ram.layout())?;
        Ok(loaded)
    }

    fn load_elf(&self, ram: &GuestRam) -> Result<LoadedKernel, LinuxError> {
        let start = GuestAddress(HIGH_MEMORY_START);
        let mut file = &self.file;
        let loaded = Elf::load(ram.memory(), None, &mut file, Some(start))
            .map_err(|source| self.not_loaded(source, ram.layout()))?;
        let (instruction, protocol) = match loaded.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(entry) => (entry, Protocol::Pvh),
            _ => (loaded.kernel_load, Protocol::Long(elf_header())),
        };
        Ok(LoadedKernel { instruction, protocol, end: loaded.kernel_end })
    }

    fn load_bzimage(
        &self,
        header: setup_header,
        ram: &GuestRam,
    ) -> Result<LoadedKernel, LinuxError> {
        let (start, end) = self.place(&header, ram.layout())?;
        let mut file = &self.file;
        BzImage::load(ram.memory(), Some(GuestAddress(start)), &mut file, None)
            .map_err(|source| self.not_loaded(source, ram.layout()))?;
        let instruction = GuestAddress(start + ENTRY_64);
        Ok(LoadedKernel { instruction, protocol: Protocol::Long(header), end })
    }

    /// Where a bzImage goes, and the first address above what it needs: where it would like to be, so that it
    /// need not move.
    fn place(&self, header: &setup_header, layout: MemoryLayout) -> Result<(u64, u64), LinuxError> {
        let start = header.pref_address;
        let needed = u64::from(header.init_size).max(self.len_bytes);
        let end = start.checked_add(needed).filter(|_| start >= HIGH_MEMORY_START);
        let end = end
            .ok_or_else(|| self.not_a_kernel("its header asks for an address that there is not"))?;
        self.check_fits(end, layout)?;
        Ok((start, end))
    }

    fn check_fits(&self, end: u64, layout: MemoryLayout) -> Result<(), LinuxError> {
        let memory_end = low_memory_end(layout);
        if end > memory_end {
            return Err(LinuxError::DoesNotFit { path: self.path.clone(), end, memory_end });
        }
        Ok(())
    }

    fn not_loaded(&self, source: LoaderError, layout: MemoryLayout) -> LinuxError {
        let (path, memory_end) = (self.path.clone(), low_memory_end(layout));
        match source {
            // Where, it does not say.
            LoaderError::Elf(ElfError::ReadKernelImage) if self.len_bytes > memory_end => {
                LinuxError::DoesNotFit { path, end: self.len_bytes, memory_end }
            }
            source => LinuxError::Malformed { path, source },
        }
    }

    fn not_a_kernel(&self, found: &'static str) -> LinuxError {
        LinuxError::NotAKernel { path: self.path.clone(), found }
    }
}

/// Why a file has no format that is known.
enum NoFormat {
    Read(io::Error),
    Found(&'static str),
    OtherMachine(ElfTarget),
}

fn format(file: &File) -> Result<Format, NoFormat> {
    let mut beginning = [0; 64];
    let read = file.read_at(&mut beginning, 0).map_err(NoFormat::Read)?;
    let beginning = &beginning[..read];
    if let Some(target) = ElfTarget::of(beginning) {
        return if target == X86_64 {
            Ok(Format::Elf)
        } else {
            Err(NoFormat::OtherMachine(target))
        };
    }
    if beginning.starts_with(GZIP_MAGIC) {
        return Err(NoFormat::Found(
            "it is compressed by gzip (gunzip makes an ELF image of a vmlinux.gz)",
        ));
    }
    let mut header = setup_header::default();
    match file.read_exact_at(header.as_mut_slice(), HEADER) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(NoFormat::Found("it is too short"));
        }
        result => result.map_err(NoFormat::Read)?,
    }
    if { header.header } != HEADER_MAGIC {
        return Err(NoFormat::Found("it is neither an ELF image nor a bzImage"));
    }
    if { header.version } < LEAST_VERSION || header.loadflags & LOADED_HIGH == 0 {
        return Err(NoFormat::Found("its boot protocol is older than that of Linux 3.8"));
    }
    if { header.xloadflags } & KERNEL_64 == 0 {
        return Err(NoFormat::Found("it has no 64-bit entry"));
    }
    Ok(Format::BzImage(header))
}

/// What the header of a bzImage would say of an ELF image.
fn elf_header() -> setup_header {
    setup_header {
        boot_flag: 0xaa55,
        header: HEADER_MAGIC,
        kernel_alignment: 0x100_0000,
        ..setup_header::default()
    }
}
