//! How a run is going: one line that is rewritten on a terminal, a line now and then elsewhere.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use pagefold::VmHandle;
use pagefold::status::VmStatus;

use super::launch::Launched;
use crate::live;
use crate::size::mib;

/// How often a line is written where none can be rewritten.
const INTERVAL: Duration = Duration::from_secs(5);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In one line that is rewritten.
    Live,
    /// In a line each time, the last of which was written then.
    Lines(Instant),
    /// Not at all: a program reads what comes of the run, or stderr is gone.
    Silent,
}

/// What stderr says while a run goes on.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    launched: &'a Launched,
    form: Form,
    guest_bytes: u64,
}

impl<'a> Progress<'a> {
    /// `json` says that the report is for a program, which wants nothing on stderr but errors.
    pub(super) fn new(launched: &'a Launched, json: bool) -> Self {
        let form = if live::is_capable(&io::stderr()) {
            Form::Live
        } else if json {
            Form::Silent
        } else {
            Form::Lines(Instant::now())
        };
        Self { launched, form, guest_bytes: launched.memory_bytes() }
    }

    /// Shows how things are.
    pub(super) fn show(&mut self, phase: &str) {
        let shown = match self.form {
            Form::Live => live::show(&live::fit(&self.parts(phase), live::columns())),
            Form::Lines(last) if last.elapsed() >= INTERVAL => {
                self.form = Form::Lines(Instant::now());
                let line = format!("{}\n", self.parts(phase).join(", "));
                io::stderr().write_all(line.as_bytes())
            }
            Form::Lines(_) | Form::Silent => return,
        };
        // Without anything to show it on, there is nobody to miss it.
        if shown.is_err() {
            self.form = Form::Silent;
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.form == Form::Live && live::show("").is_err() {
            self.form = Form::Silent;
        }
    }

    /// What there is to say, the most important first.
    fn parts(&self, phase: &str) -> Vec<String> {
        let statuses: Vec<_> = self.launched.vms.iter().map(VmHandle::status).collect();
        let sum = |value: fn(&VmStatus) -> Option<u64>| -> u64 {
            statuses.iter().filter_map(value).sum()
        };
        let ready = sum(|vm| vm.ready_ms.map(|_| 1));
        let saved = self.launched.host.dedup().stats().ok().map(|stats| stats.saved_bytes);
        vec![
            format!("{} s {phase}", self.launched.started.elapsed().as_secs()),
            format!("{ready} of {} ready", statuses.len()),
            format!("saved {} of {}", mib(saved), mib(Some(self.guest_bytes))),
            format!("{} corrupt", sum(|vm| vm.corrupt)),
            format!("{} verified", sum(|vm| vm.verifications)),
            format!("{} writes", sum(|vm| vm.writes)),
        ]
    }
}

/// Takes the line away on every path: what is printed next begins a line of its own.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
