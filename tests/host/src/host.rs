//! One host for any number of tests, booted when it is needed, and again after it has crashed or hung.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::machine::{Machine, MachineError, Processors};
use crate::protocol::{Reply, Request};

/// A host that tests run in, one after the other.
#[derive(Debug)]
pub struct Host {
    kernel: PathBuf,
    image: PathBuf,
    processors: Processors,
    machine: Mutex<Option<Machine>>,
}

impl Host {
    /// A host with a kernel, an image and so many processors, which is not up yet.
    pub fn new(kernel: PathBuf, image: PathBuf, processors: Processors) -> Self {
        Self { kernel, image, processors, machine: Mutex::new(None) }
    }

    /// Runs a test inside, after those that others have asked for.
    ///
    /// # Errors
    ///
    /// When the host does not boot, crashes, or the test has not ended after `limit`; the next test gets a
    /// new one.
    pub fn run(&self, request: &Request, limit: Duration) -> Result<Reply, MachineError> {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut up = match machine.take() {
            Some(up) => up,
            None => Machine::boot(&self.kernel, &self.image, self.processors)?,
        };
        let reply = up.run(request, limit)?;
        *machine = Some(up);
        Ok(reply)
    }
}
