//! What a VM has for its kind of guest alone, behind one trait: the VM keeps it, and does not know what it is.
//!
//! | file | what it is |
//! |---|---|
//! | `ready_marker` | that of a guest of which nothing is known but when it is ready |

mod ready_marker;

use std::any::Any;
use std::fmt::Debug;

use pagefold_devices::{Buses, InsertError};

use crate::status::GuestReport;
pub(crate) use ready_marker::ReadyMarker;

/// What a VM has for its kind of guest alone. It is made with the VM, and its last report outlives the VM's end.
pub(crate) trait GuestExtension: Any + Debug + Send + Sync {
    /// Takes the next line that the guest has printed; true if the guest reports by it that it is ready.
    ///
    /// Called on a vCPU's thread under the lock of the VM's watch, so that whoever waits for what the line changes
    /// does not miss it: it must neither block nor use the watch.
    fn take_line(&self, line: &[u8]) -> bool;

    /// Adds the devices that only this kind of guest has to those of its machine.
    ///
    /// # Errors
    ///
    /// When another device is at one of their ports or addresses; some of them may be on the buses.
    fn insert_devices(&self, _buses: &mut Buses) -> Result<(), InsertError> {
        Ok(())
    }

    /// What the guest has reported of itself so far.
    fn report(&self) -> GuestReport {
        GuestReport::default()
    }
}
