//! KVM's dirty log, read as a whole and cleared part by part.

use std::ffi::c_void;
use std::io;

use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVMIO, kvm_clear_dirty_log,
    kvm_clear_dirty_log__bindgen_ty_1, kvm_enable_cap,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iowr_nr;

/// `KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE`.
const MANUAL_PROTECT: u64 = 1;

/// Pages in a word of the log.
const WORD_PAGES: usize = 64;

ioctl_iowr_nr!(KVM_CLEAR_DIRTY_LOG, KVMIO, 0xc0, kvm_clear_dirty_log);

/// Has `KVM_GET_DIRTY_LOG` only copy the log, so that it is cleared by [`clear`] (KVM API section 4.117,
/// Linux 5.2).
pub(crate) fn clear_by_hand(vm: &VmFd) -> io::Result<()> {
    let mut cap = kvm_enable_cap { cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, ..Default::default() };
    cap.args[0] = MANUAL_PROTECT;
    Ok(vm.enable_cap(&cap)?)
}

/// Forgets what `words` name, of a slot of `slot_pages` pages and from word `first_word` of its log on, and
/// protects those pages, so that their next write is logged again. O(pages named).
///
/// # Errors
///
/// The kernel's: the words are not all in the slot. Nothing is forgotten then.
pub(crate) fn clear(
    vm: &VmFd,
    slot: u32,
    slot_pages: usize,
    first_word: usize,
    words: &[u64],
) -> io::Result<()> {
    let first_page = first_word * WORD_PAGES;
    // Whole words, but for the last of the slot.
    let page_count = (words.len() * WORD_PAGES).min(slot_pages.saturating_sub(first_page));
    let log = kvm_clear_dirty_log {
        slot,
        num_pages: u32::try_from(page_count).map_err(io::Error::other)?,
        first_page: first_page as u64,
        __bindgen_anon_1: kvm_clear_dirty_log__bindgen_ty_1 {
            dirty_bitmap: words.as_ptr().cast::<c_void>().cast_mut(),
        },
    };
    // SAFETY: the ioctl reads one bit for each of `num_pages` pages, all of which are in `words`, and writes
    // none; both borrows last for the call.
    let result = unsafe { ioctl_with_ref(vm, KVM_CLEAR_DIRTY_LOG(), &log) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
