//! userfaultfd in synchronous write-protect mode.
//!
//! Source: `userfaultfd(2)`, `ioctl_userfaultfd(2)`, and the kernel's
//! `Documentation/admin-guide/mm/userfaultfd.rst`.

mod abi;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use super::span::Span;
use crate::PAGE_SIZE;
use abi::{
    Api, Message, Move, Range, Register, UFFD_API, UFFD_EVENT_PAGEFAULT, UFFD_FEATURE_EVENT_REMAP,
    UFFD_FEATURE_MOVE, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_FEATURE_WP_UNPOPULATED, UFFD_USER_MODE_ONLY, UFFDIO_API, UFFDIO_MOVE,
    UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES, UFFDIO_REGISTER, UFFDIO_REGISTER_MODE_MISSING,
    UFFDIO_REGISTER_MODE_WP, UFFDIO_UNREGISTER, UFFDIO_WAKE, UFFDIO_WRITEPROTECT,
    UFFDIO_WRITEPROTECT_MODE_WP, USERFAULTFD_IOC_NEW, WriteProtect,
};

/// Messages that are read at once.
const MESSAGES_PER_READ: usize = 16;

/// Why this process cannot write-protect guest memory.
#[derive(Debug, thiserror::Error)]
pub enum UserfaultfdError {
    /// Neither the system call nor the device gave a descriptor for faults from the kernel.
    #[error(
        "cannot open a userfaultfd that also covers faults from KVM; run as root, give the \
         process CAP_SYS_PTRACE, or make /dev/userfaultfd accessible to it"
    )]
    Open(#[source] io::Error),
    /// The system call gave no descriptor at all.
    #[error(
        "cannot open a userfaultfd, not even for faults of the process's own threads; is it in this \
         kernel, and does a seccomp filter allow it?"
    )]
    OpenForUser(#[source] io::Error),
    /// The kernel lacks write-protection for shared memory or for pages not yet there.
    #[error("this kernel's userfaultfd lacks write-protect features; Linux 6.7 or later has them")]
    Features(#[source] io::Error),
}

/// Whose faults are held off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// All, the kernel's on the process's behalf among them, as KVM's are.
    All,
    /// Those of the process's own threads. Where the kernel itself would fault, it fails with `EFAULT`.
    /// No privilege is needed.
    OfUser,
}

/// A userfaultfd whose registered memory can be write-protected.
///
/// A protected page is unprotected by whoever protected it, and a blocked writer sleeps in the kernel until
/// then; nothing is decided by what is read from it. Closing it unprotects and wakes everything.
#[derive(Debug)]
pub(crate) struct Userfaultfd {
    fd: OwnedFd,
    faults: Faults,
}

impl Userfaultfd {
    /// Opens one that holds off so much.
    ///
    /// # Errors
    ///
    /// When the process may not or the kernel cannot; nothing is left open.
    pub(crate) fn new(faults: Faults) -> Result<Self, UserfaultfdError> {
        Self::with_features(
            faults,
            UFFD_FEATURE_PAGEFAULT_FLAG_WP
                | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
                | UFFD_FEATURE_WP_UNPOPULATED,
        )
    }

    /// Opens one whose registered memory keeps its registration when it is moved by `mremap`, which
    /// then waits until the event has been [read](Self::read_events), and into which pages can be
    /// [moved](Self::move_pages): Linux 6.8.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub(super) fn for_moving(faults: Faults) -> Result<Self, UserfaultfdError> {
        Self::with_features(faults, UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_MOVE)
    }

    /// Whose faults it holds off.
    pub(crate) fn faults(&self) -> Faults {
        self.faults
    }

    fn with_features(faults: Faults, features: u64) -> Result<Self, UserfaultfdError> {
        let fd = match faults {
            Faults::All => open_by_call(0).or_else(|_| open_by_device()),
            Faults::OfUser => open_by_call(UFFD_USER_MODE_ONLY),
        };
        let fd = fd.map_err(match faults {
            Faults::All => UserfaultfdError::Open,
            Faults::OfUser => UserfaultfdError::OpenForUser,
        })?;
        let mut api = Api { version: UFFD_API, features, ioctls: 0 };
        // SAFETY: UFFDIO_API reads and writes one `Api`, which is laid out as the kernel's.
        let result = unsafe { ioctl_with_mut_ref(&fd, UFFDIO_API(), &mut api) };
        if result < 0 {
            return Err(UserfaultfdError::Features(io::Error::last_os_error()));
        }
        Ok(Self { fd, faults })
    }

    /// Lets the mappings under `span` be write-protected. What is registered already stays so, so
    /// that one call over a region covers whatever was mapped into it since the last. O(mappings).
    ///
    /// # Errors
    ///
    /// The kernel's; a part of the mappings may be registered.
    pub(crate) fn register(&self, span: Span<'_>) -> io::Result<()> {
        self.register_for(range(span), UFFDIO_REGISTER_MODE_WP)
    }

    /// Has whoever touches a page under `span` that is not there sleep until it is, or until
    /// it is unregistered.
    ///
    /// # Errors
    ///
    /// As for [`register`](Self::register).
    pub(super) fn register_missing(&self, span: Span<'_>) -> io::Result<()> {
        self.register_for(range(span), UFFDIO_REGISTER_MODE_MISSING)
    }

    fn register_for(&self, range: Range, mode: u64) -> io::Result<()> {
        let mut register = Register { range, mode, ioctls: 0 };
        // SAFETY: reads and writes one `Register`. Registration only changes how write faults of
        // protected pages are handled.
        let result = unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_REGISTER(), &mut register) };
        done(result)
    }

    /// Does not cover the mappings under `span` any more, which also unprotects them. O(mappings).
    ///
    /// # Errors
    ///
    /// The kernel's (`ENOMEM` at the limit of mappings); a part may be covered still.
    pub(crate) fn unregister(&self, span: Span<'_>) -> io::Result<()> {
        // SAFETY: reads one `Range`. No byte changes.
        done(unsafe { ioctl_with_ref(&self.fd, UFFDIO_UNREGISTER(), &range(span)) })
    }

    /// Write-protects (or, with `protect` false, unprotects and wakes) the pages of `span`.
    ///
    /// # Errors
    ///
    /// The kernel's; a part of the pages may be done.
    pub(super) fn write_protect(&self, span: Span<'_>, protect: bool) -> io::Result<()> {
        self.write_protect_by(span, if protect { UFFDIO_WRITEPROTECT_MODE_WP } else { 0 })
    }

    #[cfg(test)]
    pub(super) fn unprotect_without_waking(&self, span: Span<'_>) -> io::Result<()> {
        const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;
        self.write_protect_by(span, UFFDIO_WRITEPROTECT_MODE_DONTWAKE)
    }

    fn write_protect_by(&self, span: Span<'_>, mode: u64) -> io::Result<()> {
        let mut arg = WriteProtect { range: range(span), mode };
        loop {
            // SAFETY: reads and writes one `WriteProtect`. No byte changes.
            let result = unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_WRITEPROTECT(), &mut arg) };
            match done(result) {
                // The address space is being changed by a fork or mremap elsewhere: soon over.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                other => return other,
            }
        }
    }

    /// Wakes whoever was blocked on the pages of `span`, whatever is mapped there now.
    pub(super) fn wake(&self, span: Span<'_>) -> io::Result<()> {
        self.wake_range(&range(span))
    }

    /// Wakes all threads that are blocked and whose faults have not been read yet, and reads these.
    ///
    /// # Errors
    ///
    /// The kernel's; some may be blocked still.
    pub(super) fn wake_all_unread(&self) -> io::Result<()> {
        // Only once there is nothing more to be read: on a page that is still protected they are back soon, and
        // so many would keep each other, and this thread, busy for as long as it is.
        let mut pages = BTreeSet::new();
        self.read_messages(|message| {
            if message.event == UFFD_EVENT_PAGEFAULT {
                pages.insert(message.address & !(PAGE_SIZE as u64 - 1));
            }
        });
        let mut result = Ok(());
        for start in pages {
            result = result.and(self.wake_range(&Range { start, len: PAGE_SIZE as u64 }));
        }
        result
    }

    fn wake_range(&self, range: &Range) -> io::Result<()> {
        // SAFETY: reads one `Range`; waking makes a thread fault again, nothing else.
        done(unsafe { ioctl_with_ref(&self.fd, UFFDIO_WAKE(), range) })
    }
}

impl Userfaultfd {
    /// Moves pages from `source`, which nobody else uses, to the missing ones of `destination`,
    /// without copying them; what is missing at the source stays missing. Returns how many bytes, from
    /// the first on, were dealt with, and why not all.
    pub(super) fn move_pages(
        &self,
        destination: Span<'_>,
        source: usize,
    ) -> (usize, io::Result<()>) {
        let mut dealt_with = 0;
        while dealt_with < destination.len_bytes() {
            let mut arg = Move {
                destination: (destination.start() + dealt_with) as u64,
                source: (source + dealt_with) as u64,
                len: (destination.len_bytes() - dealt_with) as u64,
                mode: UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
                moved: 0,
            };
            // SAFETY: reads and writes one `Move`. The destination is guest memory, whose contract
            // lets this crate fill its missing pages; the source is memory of this module's caller.
            let result = done(unsafe { ioctl_with_mut_ref(&self.fd, UFFDIO_MOVE(), &mut arg) });
            let moved = usize::try_from(arg.moved).unwrap_or(0);
            dealt_with += moved;
            match result {
                // A page that is locked for the moment, or a part that was moved.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                Err(error) => return (dealt_with, Err(error)),
                Ok(()) => {}
            }
        }
        (dealt_with, Ok(()))
    }

    /// Reads what events there are, without waiting; who waits for that goes on.
    pub(super) fn read_events(&self) {
        self.read_messages(|_| {});
    }

    /// Reads what messages there are, without waiting.
    fn read_messages(&self, mut visit: impl FnMut(&Message)) {
        let mut messages = [Message::default(); MESSAGES_PER_READ];
        loop {
            // SAFETY: the kernel writes whole messages, at most as many bytes as the buffer has, and
            // any bytes are a message.
            let read = unsafe {
                libc::read(self.as_raw_fd(), messages.as_mut_ptr().cast(), size_of_val(&messages))
            };
            let Some(bytes) = usize::try_from(read).ok().filter(|&bytes| bytes > 0) else { return };
            messages[..bytes / size_of::<Message>()].iter().for_each(&mut visit);
        }
    }
}

fn range(span: Span<'_>) -> Range {
    Range { start: span.start() as u64, len: span.len_bytes() as u64 }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn open_by_call(more_flags: libc::c_int) -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | more_flags;
    // SAFETY: takes one integer and returns a new descriptor or -1.
    owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

fn open_by_device() -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
    let flags = libc::c_ulong::from((libc::O_CLOEXEC | libc::O_NONBLOCK).cast_unsigned());
    // SAFETY: takes one integer and returns a new descriptor or -1.
    owned(i64::from(unsafe { ioctl_with_val(&device, USERFAULTFD_IOC_NEW(), flags) }))
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(fd) {
        // SAFETY: the kernel has just opened this descriptor for us, and nothing else uses it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl AsRawFd for Userfaultfd {
    fn as_raw_fd(&self) -> libc::c_int {
        self.fd.as_raw_fd()
    }
}
