//! The rival: folding images by the kernel's ksmd, run flat out.
//!
//! There is one ksmd for the whole machine, so this needs root, changes the settings under
//! `/sys/kernel/mm/ksm` and puts them back ([`Knobs`]), and refuses to run where anybody else has
//! pages merged ([`others`]): their pages would be counted as ours. Source: the kernel's
//! `Documentation/admin-guide/mm/ksm.rst`.

mod counters;
mod daemon;
mod fold;
mod knobs;
pub mod others;

use std::io;
use std::path::{Path, PathBuf};

pub use counters::Counters;
pub use daemon::{CpuSource, Ksmd};
pub use fold::{Fold, fold};
pub use knobs::Knobs;
use others::OtherUser;

use crate::fold::FoldError;
use crate::interrupt::Interrupted;

const KSM: &str = "/sys/kernel/mm/ksm";

/// Why ksmd could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum KsmError {
    /// There is no ksmd.
    #[error("this kernel has no KSM: there is no {KSM}")]
    Absent,
    /// Somebody else may have pages merged. Nothing was changed.
    #[error("KSM is in use by others, whose pages would be counted as ours: {0}")]
    InUse(OtherUser),
    /// A setting or counter cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting cannot be written. The others are put back when [`Knobs`] is dropped.
    #[error("cannot write '{value}' to {path}; only root may")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the kernel's does not hold what it is documented to.
    #[error("{path} holds '{text}', which is not understood")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The kernel refuses to let ksmd have the memory.
    #[error("cannot mark the images' memory as mergeable")]
    Mark(#[source] io::Error),
    /// The images could not be loaded.
    #[error(transparent)]
    Load(FoldError),
    /// It did not settle.
    #[error("ksmd is still finding pages after {0} s")]
    Timeout(u64),
    /// The process was asked to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl KsmError {
    /// Whether measuring was refused for what the machine is like, before anything was changed.
    pub fn is_refusal(&self) -> bool {
        let denied = |error: &io::Error| matches!(error.kind(), io::ErrorKind::PermissionDenied);
        match self {
            Self::Absent | Self::InUse(_) => true,
            Self::Write { source, .. } => {
                denied(source) || source.kind() == io::ErrorKind::ReadOnlyFilesystem
            }
            _ => false,
        }
    }
}

fn read(path: &Path) -> Result<String, KsmError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| KsmError::Read { path: path.to_owned(), source })?;
    Ok(text.trim_end().to_owned())
}

fn format_error(path: &Path, text: &str) -> KsmError {
    KsmError::Format { path: path.to_owned(), text: text.to_owned() }
}
