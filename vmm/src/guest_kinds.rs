//! The kinds of guests there are, and what each needs: the one place that knows all of them.

use std::sync::Arc;

use crate::builtin::Builtin;
use crate::config::Guest;
use crate::extension::{GuestExtension, ReadyMarker};
use crate::loader::{BuiltinError, LoadError, Loader};
use crate::platform::Platform;

impl Guest {
    /// The machine that it runs on.
    pub(crate) fn platform(&self) -> Platform {
        match self {
            Self::Builtin(_) | Self::Flat(_) => Platform::Bare,
            Self::Linux(_) => Platform::Pc,
        }
    }

    /// What loads it.
    pub(crate) fn loader(&self) -> &dyn Loader {
        match self {
            Self::Builtin(builtin) => builtin,
            Self::Flat(image) => image,
            Self::Linux(linux) => linux,
        }
    }

    /// What a VM with so much memory, and a time-stamp counter at `tsc_khz`, has for it alone.
    ///
    /// # Errors
    ///
    /// When it does not run in that much memory.
    pub(crate) fn extension(
        &self,
        memory_bytes: u64,
        tsc_khz: u32,
    ) -> Result<Arc<dyn GuestExtension>, LoadError> {
        Ok(match self {
            Self::Builtin(guest) => {
                let params = guest.params(memory_bytes, tsc_khz).map_err(BuiltinError::from)?;
                Arc::new(Builtin::new(Some(params)))
            }
            // It stands in for the built-in guest in tests: it has its devices, and may report as it does.
            Self::Flat(_) => Arc::new(Builtin::new(None)),
            Self::Linux(_) => Arc::new(ReadyMarker),
        })
    }
}
