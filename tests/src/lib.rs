//! What tests and benchmarks of Pagefold share.
//!
//! | module | what it is for |
//! |---|---|
//! | [`images`] | memory images to fold: from files, or generated, and what could be saved of them |
//! | [`fold`] | folding images by Pagefold, timed and verified |
//! | [`ksm`] | folding images by the kernel's ksmd, timed, with its settings put back afterwards |
//! | [`contest`] | the two side by side: ratios, tables, JSON |
//! | [`harness`] | whole VMs and whole processes, seen from outside |
//! | [`interrupt`] | stopping cleanly when a person asks for it |

pub mod contest;
pub mod fold;
pub mod harness;
pub mod images;
pub mod interrupt;
pub mod ksm;
mod sys;
