//! The counters as text for people.

use std::time::Duration;

use pagefold::limits::{Tree, mappings as mappings_limit};
use pagefold_dedup::Knobs;
use pagefold_dedup::stats::{DedupStats, VmStats};

use crate::knobs::differences;
use crate::size::{mib, signed_mib};
use crate::table::{list, table};

/// What else there is to know of the command that allows VMs more mappings.
pub(crate) const OF_VMS: &str = " (it takes effect at once), or run fewer VMs in a process";

/// The mappings in use, with what to do if they do not suffice: that, and `then`.
pub(crate) fn mappings_text(stats: &DedupStats, then: &str) -> String {
    match mappings(stats) {
        (in_use, Some(command)) => format!("{in_use}: {command}{then}"),
        (in_use, None) => in_use,
    }
}

/// The mappings in use, and what is put off for want of more, if anything is; and the command that allows them then.
pub(crate) fn mappings(stats: &DedupStats) -> (String, Option<String>) {
    let in_use = format!("{} of {}", stats.vmas_used, stats.vmas_budget);
    let deferred: u64 = stats.vms.iter().map(|vm| vm.deferred_pages).sum();
    if deferred == 0 {
        return (in_use, None);
    }
    // Each may take two, if it lies apart from all others.
    let max = mappings_limit::max(&Tree::real());
    let value = max.map(|max| mappings_limit::enough_for(max, deferred.saturating_mul(2)));
    let value = value.map(|value| format!("={value}")).unwrap_or_default();
    let command = format!("sysctl {}{value}", mappings_limit::NAME);
    (format!("{in_use}; {deferred} pages are put off for want of more"), Some(command))
}

/// What has happened in a second, on an average over `time`.
pub(super) fn rates(before: &DedupStats, after: &DedupStats, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(f64::MIN_POSITIVE);
    let rate = |count: fn(&DedupStats) -> u64| {
        // Counters do not go back, but for those of another run at the same socket.
        let difference = count(after).saturating_sub(count(before));
        #[expect(clippy::cast_precision_loss, reason = "it is rounded all the same")]
        let difference = difference as f64;
        difference / seconds
    };
    let cpu = (after.cpu_seconds - before.cpu_seconds).max(0.0) / seconds * 100.0;
    format!(
        "{:.0} merges, {:.0} breaks, {:.0} pages scanned, {:.1} passes, {cpu:.1} % of a processor",
        rate(|stats| stats.events.merges),
        rate(|stats| stats.events.breaks),
        rate(|stats| stats.events.pages_scanned),
        rate(|stats| stats.full_scans),
    )
}

/// The counters for people, and how fast they change.
pub(super) fn text(stats: &DedupStats, rates: Option<String>) -> String {
    let saved = mib(Some(stats.saved_bytes));
    let mut lines = vec![
        ("saved", format!("{saved} (net {})", signed_mib(stats.general_profit))),
        ("resident", mib(stats.resident_bytes)),
    ];
    lines.extend(totals(stats));
    lines.extend(rates.map(|rates| ("a second", rates)));
    with_vms(list(&lines), stats)
}

/// The counters without what a report has in sum.
pub(crate) fn details(stats: &DedupStats) -> String {
    with_vms(list(&totals(stats)), stats)
}

/// Some text, and below it a table of the VMs, if there are any.
fn with_vms(text: String, stats: &DedupStats) -> String {
    if stats.vms.is_empty() { text } else { format!("{text}\n{}", vms(stats)) }
}

fn totals(stats: &DedupStats) -> Vec<(&'static str, String)> {
    let unmerging: u64 = stats.vms.iter().map(|vm| vm.unmerging_pages).sum();
    let unmerging = (unmerging > 0)
        .then(|| ("unmerging", format!("{unmerging} pages are still to get their own memory")));
    let mut lines = vec![
        (
            "pages",
            format!(
                "{} sharing {} slots, {} zero, {} unshared, {} volatile",
                stats.pages_sharing,
                stats.pages_shared,
                stats.pages_zero,
                stats.pages_unshared,
                stats.pages_volatile
            ),
        ),
        ("chains", format!("{} of {} dups", stats.stable_node_chains, stats.stable_node_dups)),
        (
            "events",
            format!(
                "{} merges, {} again, {} breaks, {} declines, {} unmerges, {} errors",
                stats.events.merges,
                stats.events.remerges,
                stats.events.breaks,
                stats.events.declines,
                stats.events.unmerges,
                stats.events.errors
            ),
        ),
        (
            "scanned",
            format!(
                "{} pages, {} skipped because they keep changing",
                stats.events.pages_scanned, stats.events.pages_skipped
            ),
        ),
        ("mappings", mappings_text(stats, OF_VMS)),
        ("passes", format!("{} in {:.2} s of processor time", stats.full_scans, stats.cpu_seconds)),
        ("knobs", knobs(&stats.knobs)),
    ];
    lines.extend(unmerging);
    lines
}

fn vms(stats: &DedupStats) -> String {
    let headings = [
        "vm", "mode", "pages", "merged", "zero", "unshared", "volatile", "deferred", "other",
        "vmas", "private", "net",
    ];
    let row = |vm: &VmStats| {
        let kinds = [
            vm.merging_pages,
            vm.zero_pages,
            vm.unshared_pages,
            vm.volatile_pages,
            vm.deferred_pages,
        ];
        let other = vm.pages.saturating_sub(kinds.iter().sum());
        let mut row = vec![vm.id.to_string(), vm.mode.clone(), vm.pages.to_string()];
        row.extend(kinds.into_iter().chain([other, vm.vmas]).map(|number| number.to_string()));
        row.extend([mib(vm.private_bytes), signed_mib(vm.profit)]);
        row
    };
    table(&headings, &stats.vms.iter().map(row).collect::<Vec<_>>())
}

/// The knobs that are not as by default.
fn knobs(knobs: &Knobs) -> String {
    let set: Vec<String> = differences(&Knobs::default(), knobs)
        .into_iter()
        .map(|(name, _, value)| format!("{name}={value}"))
        .collect();
    if set.is_empty() { "as by default".to_owned() } else { set.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(pages_scanned: u64, cpu_seconds: f64) -> DedupStats {
        let json = serde_json::json!({
            "id": 3, "domain": "default", "mode": "on", "pages": 100, "merging_pages": 40,
            "zero_pages": 20, "rmap_items": 0, "profit": -1, "unshared_pages": 10,
            "deferred_pages": 4, "volatile_pages": 5, "swapped_pages": 1, "unmerging_pages": 0,
            "extents": 1, "vmas": 2, "private_bytes": null,
            "events": pagefold_dedup::stats::Events::default(),
        });
        let vm: VmStats = serde_json::from_value(json).expect("a VM");
        let mut stats = DedupStats { vms: vec![vm], cpu_seconds, ..DedupStats::default() };
        stats.events.pages_scanned = pages_scanned;
        stats
    }

    #[test]
    fn a_table_without_rows_is_left_out() {
        let some = stats(0, 0.0);
        let none = DedupStats { vms: Vec::new(), ..some.clone() };
        for (stats, has_table) in [(some, true), (none, false)] {
            for text in [details(&stats), text(&stats, None)] {
                assert_eq!(text.contains("volatile  deferred"), has_table, "{text}");
            }
        }
    }

    #[test]
    fn the_pages_of_a_vm_add_up() {
        let table = vms(&stats(0, 0.0));
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (headings, row) = (lines.next().expect("headings"), lines.next().expect("a row"));
        let of = |name: &str| headings.iter().position(|heading| *heading == name).expect("there");
        let number = |name| row[of(name)].parse::<u64>().expect("a number");
        let kinds = ["merged", "zero", "unshared", "volatile", "deferred", "other"];
        assert_eq!(kinds.map(number), [40, 20, 10, 5, 4, 21]);
        assert_eq!(kinds.map(number).iter().sum::<u64>(), number("pages"));
        assert!(table.ends_with("0.0 MiB\n") && !table.contains("-0.0"), "{table}");
    }

    #[test]
    fn what_mappings_are_short_for_comes_with_the_setting_that_is_enough() {
        let mut stats = stats(0, 0.0);
        let text = mappings_text(&stats, OF_VMS);
        let (_, advice) = text.split_once("4 pages are put off").expect("it says so");
        let (_, value) = advice.split_once("sysctl vm.max_map_count=").expect("a command");
        let digits = value.find(|c: char| !c.is_ascii_digit()).expect("more text");
        let max = mappings_limit::max(&Tree::real()).expect("a limit");
        assert!(value[..digits].parse::<u64>().expect("a number") >= max + 8, "{text}");
        stats.vms[0].deferred_pages = 0;
        assert_eq!(mappings_text(&stats, OF_VMS), "0 of 0");
    }

    #[test]
    fn rates_are_a_seconds() {
        let rates = rates(&stats(100, 1.0), &stats(300, 1.5), Duration::from_secs(2));
        assert!(rates.contains("100 pages scanned") && rates.contains("25.0 % of"), "{rates}");
        let again = super::rates(&stats(300, 1.5), &stats(0, 0.0), Duration::ZERO);
        assert!(again.contains("0 pages scanned"), "{again}");
    }
}
