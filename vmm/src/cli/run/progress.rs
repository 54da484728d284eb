//! One line that says how a run is going, on a terminal.

use std::io::{self, IsTerminal, Write};

use pagefold::VmHandle;

use super::launch::Launched;
use crate::cli::size::mib;

/// Goes to the start of the line and clears it.
const CLEAR_LINE: &str = "\r\x1b[K";

/// The live line; nothing at all when stderr is no terminal.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    launched: &'a Launched,
    is_live: bool,
    guest_bytes: u64,
}

impl<'a> Progress<'a> {
    pub(super) fn new(launched: &'a Launched) -> Self {
        let is_live = io::stderr().is_terminal();
        Self { launched, is_live, guest_bytes: launched.memory_bytes() }
    }

    /// Shows how things are.
    pub(super) fn show(&mut self, phase: &str) {
        if !self.is_live {
            return;
        }
        let statuses: Vec<_> = self.launched.vms.iter().map(VmHandle::status).collect();
        let sum = |value: fn(&_) -> Option<u64>| statuses.iter().filter_map(value).sum::<u64>();
        let ready = sum(|vm: &pagefold::status::VmStatus| vm.ready_ms.map(|_| 1));
        let saved = self.launched.host.dedup().stats().ok().map(|stats| stats.saved_bytes);
        let line = format!(
            "{} s {phase}: {ready} of {} ready, saved {} of {}, {} writes, {} verified, {} corrupt",
            self.launched.started.elapsed().as_secs(),
            statuses.len(),
            mib(saved),
            mib(Some(self.guest_bytes)),
            sum(|vm| vm.writes),
            sum(|vm| vm.verifications),
            sum(|vm| vm.corrupt),
        );
        self.write(&format!("{CLEAR_LINE}{line}"));
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.is_live {
            self.write(CLEAR_LINE);
        }
    }

    fn write(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Without a terminal to show it on, there is nobody to miss it.
        self.is_live = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_ok();
    }
}
