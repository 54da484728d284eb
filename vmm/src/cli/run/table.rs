//! A run's result for people.

use super::report::{Report, VmReport};
use crate::cli::size::mib;
use crate::cli::stats;
use crate::cli::table::{count, list, per_cent, table};

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut text = vms(&report.vms);
    if let Some(dedup) = &report.dedup {
        text = format!("{text}\n{}", stats::text(dedup));
    }
    text = format!("{text}\n{}", summary(report));
    for line in report.vms.iter().flat_map(|vm| &vm.status.corrupt_lines) {
        text = format!("{text}{line}\n");
    }
    text
}

fn vms(vms: &[VmReport]) -> String {
    let rows: Vec<Vec<String>> = vms
        .iter()
        .map(|vm| {
            let status = &vm.status;
            vec![
                status.id.to_string(),
                status.ready_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms")),
                count(status.writes),
                count(status.verifications),
                count(status.corrupt),
                vm.end(),
            ]
        })
        .collect();
    table(&["vm", "ready", "writes", "verified", "corrupt", "end"], &rows)
}

fn summary(report: &Report) -> String {
    let memory = &report.memory;
    let saved = match (memory.saved_bytes, memory.ideal_saved_bytes) {
        (Some(saved), Some(ideal)) => format!(
            "{} of {} that could be ({})",
            mib(Some(saved)),
            mib(Some(ideal)),
            per_cent(saved, ideal)
        ),
        (saved, _) => mib(saved),
    };
    let mut lines = vec![
        ("guest memory", mib(Some(memory.guest_bytes))),
        ("held for it", mib(memory.resident_bytes)),
        ("saved", saved),
        ("process in all", mib(memory.process_pss_bytes)),
    ];
    if report.asked_to_settle {
        let settled = match report.settle {
            Some(settle) if settle.settled => {
                format!("after {} passes, {} ms", settle.passes, settle.elapsed_ms)
            }
            Some(settle) => format!("NO: not within {} ms", settle.elapsed_ms),
            None => "NO: cut short".to_owned(),
        };
        lines.push(("settled", settled));
    }
    let cpu = report.cpu_s.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2} s"));
    lines.push(("time", format!("{:.1} s, {cpu} of processor time", report.elapsed_s)));
    list(&lines)
}
