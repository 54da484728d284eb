//! Stopping cleanly when a person asks for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Set once the process was asked to end; long steps look at it between short ones.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// Somebody asked the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// Is set by SIGINT, SIGTERM and SIGHUP from now on, instead of their ending the process.
    /// For a command's `main`.
    ///
    /// # Errors
    ///
    /// The kernel's; some of the signals may be caught.
    pub fn by_signals() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    /// Returns unless the process was asked to end.
    ///
    /// # Errors
    ///
    /// [`Interrupted`], from then on always.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}
