//! Interrupts, as a device raises them.

use std::io;
use std::sync::Arc;

/// The interrupt line of a device.
///
/// What is behind it is the VMM's business: an event descriptor that KVM listens to, or, in a test,
/// a counter. Raising it must not block.
pub trait Interrupt: Send + Sync {
    /// Raises an edge-triggered interrupt.
    ///
    /// # Errors
    ///
    /// When it could not be raised; the guest has not seen it, and the device goes on.
    fn trigger(&self) -> io::Result<()>;
}

/// The line of a device whose guest polls it: nothing is at its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInterrupt;

impl Interrupt for NoInterrupt {
    fn trigger(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<I: Interrupt + ?Sized> Interrupt for Arc<I> {
    fn trigger(&self) -> io::Result<()> {
        (**self).trigger()
    }
}
