//! How a run is going: one line that is rewritten on a terminal, a line now and then elsewhere.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use pagefold::status::{VmState, VmStatus};
use pagefold::{BuiltinStatus, VmHandle};

use super::launched::Launched;
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

/// Where progress is shown: what stderr is for it.
#[derive(Debug)]
pub(super) struct Display {
    form: Form,
    started: Instant,
}

impl Display {
    /// `json` means that the report is for a program, and nothing but errors goes to stderr.
    pub(super) fn new(json: bool) -> Self {
        let form = if live::is_capable(&io::stderr()) {
            Form::Live
        } else if json {
            Form::Silent
        } else {
            Form::Lines(Instant::now())
        };
        Self { form, started: Instant::now() }
    }

    /// Shows how far a launch has come.
    pub(super) fn show_launch(&mut self, done: usize, all: u32, what: &str) {
        let line = format!("{} s launching", self.started.elapsed().as_secs());
        self.show(|| vec![line, format!("{done} of {all} VMs {what}")]);
    }

    /// Shows how things are, if it is time to: what there is to report, the most important first.
    fn show(&mut self, parts: impl FnOnce() -> Vec<String>) {
        let shown = match self.form {
            Form::Live => live::show(&live::fit(&parts(), live::columns())),
            Form::Lines(last) if last.elapsed() >= INTERVAL => {
                self.form = Form::Lines(Instant::now());
                let line = format!("{}\n", parts().join(", "));
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
}

/// Takes the line away on every path: what is printed next begins a line of its own.
impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What is printed while launched VMs run.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    launched: &'a Launched,
    display: &'a mut Display,
}

impl<'a> Progress<'a> {
    pub(super) fn new(launched: &'a Launched, display: &'a mut Display) -> Self {
        Self { launched, display }
    }

    /// Shows how things are.
    pub(super) fn show(&mut self, phase: &str) {
        let launched = self.launched;
        self.display.show(|| {
            let statuses: Vec<_> = launched.vms.iter().map(VmHandle::status).collect();
            let saved = launched.host.dedup().stats().ok().map(|stats| stats.saved_bytes);
            let phase = format!("{} s {phase}", launched.started.elapsed().as_secs());
            parts(&statuses, saved, phase)
        });
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        self.display.clear();
    }
}

/// What is shown of VMs; what is saved, and of how much, is of those that have not ended, as it is in the
/// report.
fn parts(statuses: &[VmStatus], saved_bytes: Option<u64>, phase: String) -> Vec<String> {
    let sum =
        |value: fn(&VmStatus) -> Option<u64>| -> u64 { statuses.iter().filter_map(value).sum() };
    let alive: Vec<_> = statuses.iter().filter(|vm| vm.state != VmState::Stopped).collect();
    let ready = alive.iter().filter(|vm| vm.ready_ms.is_some()).count();
    let memory_bytes = alive.iter().map(|vm| vm.memory_bytes).sum();
    // What the last one had saved it has taken with it.
    let of_alive = |bytes: Option<u64>| mib(bytes.filter(|_| !alive.is_empty()));
    vec![
        phase,
        format!("{ready} of {} ready", alive.len()),
        format!("saved {} of {}", of_alive(saved_bytes), of_alive(Some(memory_bytes))),
        format!("{} corrupt", sum(|vm| BuiltinStatus::of(vm)?.corrupt)),
        format!("{} verified", sum(|vm| BuiltinStatus::of(vm)?.verifications)),
        format!("{} writes", sum(|vm| BuiltinStatus::of(vm)?.writes)),
    ]
}

#[cfg(test)]
mod tests {
    use pagefold::config::DedupMode;
    use pagefold::status::Unclaimed;
    use pagefold_dedup::VmId;

    use super::*;

    #[test]
    fn vms_that_have_ended_count_with_what_they_did_and_not_with_their_memory() {
        let vm = |state| VmStatus {
            id: VmId(0),
            name: None,
            guest: "builtin:mix".to_owned(),
            dedup: DedupMode::On,
            state,
            memory_bytes: 32 << 20,
            ready_ms: Some(9),
            report: BuiltinStatus { corrupt: Some(1), ..BuiltinStatus::default() }.into(),
            devices: Vec::new(),
            unclaimed_ports: Unclaimed::default(),
            unclaimed_mmio: Unclaimed::default(),
            stop_reason: None,
            stop_message: None,
            clean: None,
        };
        let mut vms = vec![vm(VmState::Running), vm(VmState::Paused), vm(VmState::Stopped)];
        let line =
            |vms: &[VmStatus]| parts(vms, Some(3 << 20), "7 s running".to_owned()).join(", ");
        let text = line(&vms);
        let start = "7 s running, 2 of 2 ready, saved 3.0 MiB of 64.0 MiB, 3 corrupt, ";
        assert!(text.starts_with(start), "{text}");
        vms.retain(|vm| vm.state == VmState::Stopped);
        assert!(line(&vms).contains("0 of 0 ready, saved ? of ?, 1 corrupt"), "{}", line(&vms));
    }

    #[test]
    fn where_no_line_can_be_rewritten_one_is_written_now_and_then() {
        let begun = Instant::now();
        let mut display = Display { form: Form::Lines(begun), started: begun };
        display.show(|| unreachable!("it is too early for a line"));
        display.form = Form::Lines(begun.checked_sub(INTERVAL).expect("the clock is older"));
        let mut count = 0;
        for _ in 0..2 {
            display.show(|| {
                count += 1;
                vec!["7 s launching".to_owned(), "1 of 2 VMs built".to_owned()]
            });
        }
        assert_eq!(count, 1);
    }
}
