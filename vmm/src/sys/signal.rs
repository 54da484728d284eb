//! The kick signal: blocked wherever our threads run, and let in only by KVM while a guest runs.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

/// The signal that takes a vCPU out of the guest.
///
/// A standard signal and not a real-time one: it is one bit that is pending or not, so sending it
/// can never fail for want of queue space, and a thousand kicks are one. Linux defines this one and
/// never raises it, and no program uses it. No handler is ever installed: it is pending, or it ends
/// a `KVM_RUN`, and nothing else ever sees it.
const KICK: libc::c_int = libc::SIGSTKFLT;

/// Signals with which the kernel notifies a thread of its own fault: blocking them would turn a
/// reported crash into an unreported one.
const FAULTS: [libc::c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT];

/// Bytes in the kernel's signal set, which is not libc's.
const KERNEL_SIGSET_BYTES: u32 = 8;

/// A thread of this process, as the kernel numbers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadId(libc::pid_t);

/// `struct kvm_signal_mask` with its set in place.
#[repr(C)]
struct KvmSignalMask {
    len: u32,
    signals: [u8; KERNEL_SIGSET_BYTES as usize],
}

// The size in the number is that of the header alone, as in <linux/kvm.h>.
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, kvm_bindings::KVMIO, 0x8b, kvm_bindings::kvm_signal_mask);

/// Who the calling thread is.
pub(crate) fn current_thread() -> ThreadId {
    // SAFETY: gettid(2) has no preconditions.
    ThreadId(unsafe { libc::gettid() })
}

/// Blocks, in the calling thread, every signal but those that report its own faults: the handlers
/// of the program around us run on its own threads, and the kick signal stays pending. For threads of
/// libraries that are built on this one.
///
/// # Errors
///
/// The kernel's; the mask is as it was.
pub fn block_in_this_thread() -> io::Result<()> {
    let mut blocked = full_set();
    for signal in FAULTS {
        // SAFETY: sigdelset(3) requires an initialised set; it is one.
        unsafe { libc::sigdelset(&raw mut blocked, signal) };
    }
    // SAFETY: pthread_sigmask(3) requires an initialised set to read and accepts null for the old one.
    let errno =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut()) };
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Makes `KVM_RUN` on `vcpu` use the calling thread's signal mask with the kick signal let in. Call
/// it on the thread that will run the vCPU, after [`block_in_this_thread`].
///
/// KVM API section 4.24.
pub(crate) fn admit_kick_while_running(vcpu: &VcpuFd) -> io::Result<()> {
    let mut blocked = full_set();
    // SAFETY: pthread_sigmask(3) with a null new set only writes the old one, to an initialised
    // set of the right type.
    let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut blocked) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let mut mask: u64 = 0;
    for signal in (1..=64).filter(|&signal| signal != KICK) {
        // SAFETY: sigismember(3) requires an initialised set; the call above filled it.
        if unsafe { libc::sigismember(&raw const blocked, signal) } == 1 {
            mask |= 1 << (signal - 1);
        }
    }
    let mask = KvmSignalMask { len: KERNEL_SIGSET_BYTES, signals: mask.to_ne_bytes() };
    // SAFETY: the ioctl reads `len` and as many bytes behind it as that counts: all of them are in
    // `mask`, which the borrow keeps alive for the call.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_SIGNAL_MASK(), &mask) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends the kick signal to `thread`, which must not have ended: the caller makes sure.
pub(crate) fn kick(thread: ThreadId) -> io::Result<()> {
    let process = std::process::id().cast_signed();
    // SAFETY: tgkill(2) has no memory preconditions. The signal's default action ends the process,
    // and cannot be taken: `thread` has it blocked, or stands in KVM_RUN, where the kernel holds
    // what was blocked outside (`real_blocked`) against the default action too.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread.0, KICK) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a pending kick away from the calling thread, which must have it blocked; returns whether
/// there was one.
pub(crate) fn consume_kick() -> bool {
    let mut kick = empty_set();
    // SAFETY: sigaddset(3) requires an initialised set; it is one.
    unsafe { libc::sigaddset(&raw mut kick, KICK) };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: sigtimedwait(2) reads the set and the time, both alive for the call, and accepts null
    // for the details.
    unsafe { libc::sigtimedwait(&raw const kick, ptr::null_mut(), &raw const at_once) == KICK }
}

fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset(3) requires memory for one set, and has it.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: sigfillset(3) has initialised it.
    unsafe { set.assume_init() }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) requires memory for one set, and has it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset(3) has initialised it.
    unsafe { set.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_stays_pending_until_it_is_consumed_and_many_are_one() {
        std::thread::spawn(|| {
            block_in_this_thread().unwrap();
            assert!(!consume_kick());
            for _ in 0..1000 {
                kick(current_thread()).unwrap();
            }
            assert!(consume_kick());
            assert!(!consume_kick());
        })
        .join()
        .unwrap();
    }
}
