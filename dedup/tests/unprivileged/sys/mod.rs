//! A process that gives up being root.
#![allow(unsafe_code)]

use std::{io, ptr};

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

fn done(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
