//! A run's result for people.

use super::report::{Report, Settling, VmReport, saveable_bytes};
use crate::size::{mib, signed_mib};
use crate::stats;
use crate::table::{count, list, per_cent, table};

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let vms = (!report.vms.is_empty()).then(|| vms(&report.vms));
    let details = report.dedup.as_ref().map(stats::details);
    let sections: Vec<String> = vms.into_iter().chain(details).chain([summary(report)]).collect();
    let mut text = sections.join("\n");
    for line in report.vms.iter().flat_map(|vm| vm.builtin().corrupt_lines) {
        text = format!("{text}{line}\n");
    }
    text
}

fn vms(vms: &[VmReport]) -> String {
    let rows: Vec<Vec<String>> = vms
        .iter()
        .map(|vm| {
            let (status, builtin) = (&vm.status, vm.builtin());
            vec![
                status.id.to_string(),
                status.ready_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms")),
                count(builtin.writes),
                count(builtin.verifications),
                count(builtin.corrupt),
                vm.end(),
            ]
        })
        .collect();
    table(&["vm", "ready", "writes", "verified", "corrupt", "end"], &rows)
}

fn summary(report: &Report) -> String {
    let memory = &report.memory;
    let saved = match (memory.saved_bytes, &report.dedup) {
        (Some(saved), dedup) => {
            let net = dedup.as_ref().map(|dedup| signed_mib(dedup.general_profit));
            let net = net.map(|net| format!("; net {net}")).unwrap_or_default();
            format!("{}{net}", savings(saved, memory.workload_saved_bytes))
        }
        (None, Some(_)) => "unknown: all VMs had ended before the numbers were taken".to_owned(),
        (None, None) => mib(None),
    };
    let mut lines = vec![
        ("guest memory", mib(memory.guest_bytes)),
        ("held for it", mib(memory.resident_bytes)),
        ("saved", saved),
        ("process in all", mib(memory.process_pss_bytes)),
    ];
    if report.settling != Settling::NotAsked {
        let settled = match report.settling {
            Settling::Ended(settle) if settle.settled => {
                format!("after {} passes, {} ms", settle.passes, settle.elapsed_ms)
            }
            Settling::Ended(settle) => format!("NO: not within {} ms", settle.elapsed_ms),
            Settling::Stopped => "NO: folding was stopped".to_owned(),
            Settling::CutShort | Settling::NotAsked => "NO: cut short".to_owned(),
        };
        lines.push(("settled", settled));
    }
    let cpu = report.cpu_s.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.2} s"));
    lines.push(("time", format!("{:.1} s, {cpu} of processor time", report.elapsed_s)));
    list(&lines)
}

/// What is saved of what could be: of what the workload's own parameters give, if that is all.
fn savings(saved: u64, workload: Option<u64>) -> String {
    let all = mib(Some(saved));
    let Some(workload) = workload else { return all };
    let ideal = saveable_bytes(saved, workload);
    if ideal == workload {
        format!("{all} of {} that could be ({})", mib(Some(ideal)), per_cent(saved, ideal))
    } else {
        format!("{all}: all of the workload's {}, and of the guests' programs", mib(Some(workload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_all_is_saved() {
        let mib = |count: u64| count << 20;
        assert_eq!(savings(mib(1), Some(mib(4))), "1.0 MiB of 4.0 MiB that could be (25.0 %)");
        assert_eq!(savings(mib(4), Some(mib(4))), "4.0 MiB of 4.0 MiB that could be (100.0 %)");
        for (saved, ideal) in [(mib(5), mib(4)), (mib(1), 0)] {
            let text = savings(saved, Some(ideal));
            assert!(text.contains(": all of the workload's ") && !text.contains('%'), "{text}");
        }
        assert_eq!(savings(mib(5), None), "5.0 MiB");
    }
}
