//! A process that gives up being root.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{io, ptr};

use pagefold_dedup::{AnonymousMemory, GuestMemory, PAGE_SIZE};

const NOBODY: libc::uid_t = 65534;

/// Has the process be an ordinary user's from now on, for good, if it is root's.
pub(crate) fn drop_privileges() {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    // SAFETY: with a count of 0 no list is read.
    done(unsafe { libc::setgroups(0, ptr::null()) });
    // SAFETY: takes integers; all threads' groups change.
    done(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) });
    // SAFETY: takes integers; all threads' users change, and their capabilities go.
    done(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) });
    // Otherwise its own files in /proc would be root's, as those of a program started by an ordinary user
    // are not.
    // SAFETY: takes integers.
    done(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) });
}

/// Has the kernel read all of some memory, again and again, until `stop` is set; counts the pages in `sent_pages`.
pub(crate) fn send_until(memory: &AnonymousMemory, stop: &AtomicBool, sent_pages: &AtomicU64) {
    let region = memory.regions()[0];
    // SAFETY: takes a string that ends with 0 and flags; the descriptor is new.
    let file = unsafe { libc::memfd_create(c"sink".as_ptr(), 0) };
    assert!(file >= 0);
    while !stop.load(Ordering::Relaxed) {
        for offset in (0..region.len_bytes()).step_by(PAGE_SIZE) {
            let addr = (region.host_addr + offset) as *const libc::c_void;
            // SAFETY: the kernel reads a page of the memory, which is mapped as long as it is borrowed.
            let sent = unsafe { libc::pwrite(file, addr, PAGE_SIZE, 0) };
            assert_eq!(sent, 4096, "{}", io::Error::last_os_error());
            sent_pages.fetch_add(1, Ordering::Relaxed);
        }
    }
    // SAFETY: nobody else has the descriptor.
    unsafe { libc::close(file) };
}

fn done(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
