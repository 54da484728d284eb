//! Tests on a host with AMD-V: Debian's stock kernel and its `kvm_amd` with nested paging.
//!
//! Where the processor has no VMX and no SVM that KVM could use, QEMU emulates such a host: it boots from an
//! archive that holds the test programs with the libraries that they are linked with, and an agent that runs
//! the tests that it is sent, one by one. On other machines the same tests run as they are.
//!
//! | module | what it is |
//! |---|---|
//! | [`packages`] | Debian's kernels and busybox, fetched once and kept outside of the tree |
//! | [`guest`] | what a stock Linux guest boots from |
//! | [`programs`] | test programs, built by cargo, and the tests that they have |
//! | [`archive`] | a cpio archive, which the kernel takes for its first file system |
//! | [`image`] | what the host's file system holds |
//! | [`machine`] | QEMU with the host in it, its console, and its end |
//! | [`host`] | one host for any number of tests, booted again when it crashed or hangs |
//! | [`protocol`] | what goes between a test outside and the agent inside |
//! | [`hardware`] | whether KVM has hardware virtualization here |

pub mod archive;
pub mod guest;
pub mod hardware;
pub mod host;
pub mod image;
pub mod machine;
pub mod packages;
pub mod programs;
pub mod protocol;
