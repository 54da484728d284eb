//! The result of a run.

use pagefold::status::VmStatus;
use pagefold::{BuiltinStatus, StopReason};
use pagefold_dedup::SettleReport;
use pagefold_dedup::stats::DedupStats;
use pagefold_guest::ports::EXIT_CORRUPT;
use serde::Serialize;

use crate::Outcome;

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Each VM, at its end.
    pub(super) vms: Vec<VmReport>,
    /// The counters, before the guests were commanded to finish; `None` if folding is gone. Where all VMs had
    /// ended by then, what they shared is not in there any more.
    pub(super) dedup: Option<DedupStats>,
    /// Memory at the same moment.
    pub(super) memory: Memory,
    /// How settling ended; `None` if it was not requested, or cut short.
    pub(super) settle: Option<SettleReport>,
    /// The same, with why there is no report.
    #[serde(skip)]
    pub(super) settling: Settling,
    /// Seconds from the launch until the numbers were taken.
    pub(super) elapsed_s: f64,
    /// Processor seconds of the whole process until then, guests included; `None` if the kernel did
    /// not report it.
    pub(super) cpu_s: Option<f64>,
}

/// What became of the wish that folding settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settling {
    /// Nobody had it.
    NotAsked,
    /// A signal, or the end of all VMs, came first.
    CutShort,
    /// Folding was stopped through the control socket, or has ended.
    Stopped,
    /// It settled, or its time was over.
    Ended(SettleReport),
}

impl Settling {
    pub(super) fn report(self) -> Option<SettleReport> {
        match self {
            Self::Ended(report) => Some(report),
            Self::NotAsked | Self::CutShort | Self::Stopped => None,
        }
    }

    /// Whether folding was to settle and did not, though it had the time.
    fn has_failed(self) -> bool {
        self == Self::Stopped || self.report().is_some_and(|report| !report.settled)
    }
}

/// One VM at its end.
#[derive(Debug, Serialize)]
pub(super) struct VmReport {
    #[serde(flatten)]
    pub(super) status: VmStatus,
    /// Whether it ended without having to be stopped.
    pub(super) finished: bool,
}

/// All guests' memory. What is not known is `None`.
#[expect(clippy::struct_field_names, reason = "these are the fields of the JSON")]
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// What the guests have, those that have ended excepted; this and what folding saves are not known once
    /// all have ended.
    pub(super) guest_bytes: Option<u64>,
    /// What the kernel holds for that.
    pub(super) resident_bytes: Option<u64>,
    /// What folding saves.
    pub(super) saved_bytes: Option<u64>,
    /// What folding could save: [`saveable_bytes`] of the next.
    pub(super) ideal_saved_bytes: Option<u64>,
    /// What it could by the workload's own parameters.
    #[serde(skip)]
    pub(super) workload_saved_bytes: Option<u64>,
    /// The kernel's proportional set size of this process.
    pub(super) process_pss_bytes: Option<u64>,
}

/// What folding could save: what the workload's own parameters give, or, if that is more, what it does save. Guests
/// have their program and page tables in common, too.
pub(super) fn saveable_bytes(saved_bytes: u64, workload_bytes: u64) -> u64 {
    workload_bytes.max(saved_bytes)
}

impl VmReport {
    /// Whether it ended otherwise than it should have; having found a wrong byte is another matter.
    fn has_crashed(&self) -> bool {
        match &self.status.stop_reason {
            Some(StopReason::Exited { code }) if *code == EXIT_CORRUPT && self.is_corrupt() => {
                false
            }
            Some(reason) => !self.finished || !reason.is_clean(),
            None => true,
        }
    }

    fn is_corrupt(&self) -> bool {
        self.builtin().corrupt.is_some_and(|count| count > 0)
    }

    /// What its guest has reported.
    pub(super) fn builtin(&self) -> BuiltinStatus {
        BuiltinStatus::of(&self.status).unwrap_or_default()
    }

    /// How it ended, in words.
    pub(super) fn end(&self) -> String {
        let mut end = match (&self.status.stop_message, self.finished) {
            (Some(message), true) => message.clone(),
            (_, false) => "did not finish in time, and was stopped".to_owned(),
            (None, true) => "unknown".to_owned(),
        };
        if let Some(panic) = self.builtin().panic {
            end = format!("{end}: {panic}");
        }
        end
    }
}

impl Report {
    /// What the process ends with: a wrong byte weighs more than a crash, and that more than folding
    /// that did not settle.
    pub(super) fn outcome(&self) -> Outcome {
        if self.vms.iter().any(VmReport::is_corrupt) {
            Outcome::Corrupt
        } else if self.vms.iter().any(VmReport::has_crashed) {
            Outcome::Crashed
        } else if self.settling.has_failed() {
            Outcome::Unsettled
        } else {
            Outcome::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use pagefold::config::DedupMode;
    use pagefold::status::{Unclaimed, VmState};
    use pagefold_dedup::VmId;

    use super::*;

    fn report(vms: &[(Option<u64>, StopReason, bool)]) -> Report {
        let vms = vms
            .iter()
            .map(|(corrupt, reason, finished)| VmReport {
                status: VmStatus {
                    id: VmId(0),
                    name: None,
                    guest: "builtin:mix".to_owned(),
                    dedup: DedupMode::On,
                    state: VmState::Stopped,
                    memory_bytes: 64 << 20,
                    ready_ms: Some(9),
                    report: BuiltinStatus {
                        writes: Some(1),
                        verifications: Some(2),
                        corrupt: *corrupt,
                        ..BuiltinStatus::default()
                    }
                    .into(),
                    devices: Vec::new(),
                    unclaimed_ports: Unclaimed::default(),
                    unclaimed_mmio: Unclaimed::default(),
                    stop_message: Some(reason.to_string()),
                    clean: Some(reason.is_clean()),
                    stop_reason: Some(reason.clone()),
                },
                finished: *finished,
            })
            .collect();
        Report {
            vms,
            dedup: None,
            memory: Memory {
                guest_bytes: Some(1),
                resident_bytes: None,
                saved_bytes: None,
                ideal_saved_bytes: None,
                workload_saved_bytes: None,
                process_pss_bytes: None,
            },
            settle: None,
            settling: Settling::NotAsked,
            elapsed_s: 1.0,
            cpu_s: None,
        }
    }

    const FINE: (Option<u64>, StopReason, bool) = (Some(0), StopReason::Exited { code: 0 }, true);

    #[test]
    fn a_wrong_byte_weighs_more_than_a_crash_and_a_crash_more_than_nothing() {
        let crashed = (None, StopReason::TripleFault, true);
        let corrupt = (Some(1), StopReason::Exited { code: EXIT_CORRUPT }, true);
        assert_eq!(report(&[FINE, FINE]).outcome(), Outcome::Fine);
        assert_eq!(report(&[FINE, crashed.clone()]).outcome(), Outcome::Crashed);
        assert_eq!(report(&[crashed, FINE, corrupt]).outcome(), Outcome::Corrupt);
    }

    #[test]
    fn folding_that_did_not_settle_is_a_failure_unless_it_was_cut_short() {
        let crashed = (None, StopReason::TripleFault, true);
        let ended = |settled| Settling::Ended(SettleReport { settled, passes: 1, elapsed_ms: 1 });
        for (settling, outcome) in [
            (Settling::NotAsked, Outcome::Fine),
            (Settling::CutShort, Outcome::Fine),
            (Settling::Stopped, Outcome::Unsettled),
            (ended(true), Outcome::Fine),
            (ended(false), Outcome::Unsettled),
        ] {
            assert_eq!(Report { settling, ..report(&[FINE]) }.outcome(), outcome, "{settling:?}");
            let worse = Report { settling, ..report(slice::from_ref(&crashed)) };
            assert_eq!(worse.outcome(), Outcome::Crashed);
        }
    }

    #[test]
    fn a_vm_that_had_to_be_stopped_did_not_finish() {
        let stopped = (Some(0), StopReason::Requested, false);
        assert_eq!(report(&[stopped]).outcome(), Outcome::Crashed);
        // Through the control socket, it ended as it was commanded to.
        assert_eq!(report(&[(Some(0), StopReason::Requested, true)]).outcome(), Outcome::Fine);
    }

    #[test]
    fn the_json_has_the_documented_form() {
        let json = serde_json::to_value(report(&[FINE])).expect("JSON");
        let vm = &json["vms"][0];
        for (field, value) in
            [("id", 0), ("ready_ms", 9), ("writes", 1), ("verifications", 2), ("corrupt", 0)]
        {
            assert_eq!(vm[field], value, "{field}");
        }
        let memory = json["memory"].as_object().expect("an object");
        for field in ["guest_bytes", "resident_bytes", "saved_bytes", "ideal_saved_bytes"] {
            assert!(memory.contains_key(field), "{field}");
        }
        assert!(json["dedup"].is_null() && json["cpu_s"].is_null());
        assert_eq!(json["elapsed_s"], 1.0);
    }
}
