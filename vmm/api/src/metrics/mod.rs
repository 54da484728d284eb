//! The counters as Prometheus metrics.

mod devices;

use pagefold_dedup::stats::{DedupStats, DomainStats, Events, VmStats};

use super::exposition::{Exposition, Kind};
use pagefold::BuiltinStatus;
use pagefold::status::{VmState, VmStatus};

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole page.
pub(super) fn text(stats: &DedupStats, vms: &[VmStatus]) -> String {
    let mut page = Exposition::default();
    totals(&mut page, stats);
    domains(&mut page, &stats.domains);
    folded_vms(&mut page, &stats.vms);
    guests(&mut page, vms);
    devices::devices(&mut page, vms);
    page.into_text()
}

fn totals(page: &mut Exposition, stats: &DedupStats) {
    let mut gauge = |name: &str, help: &str, value: Option<u64>| {
        page.family(name, Kind::Gauge, help, [(vec![], value)]);
    };
    gauge("pagefold_pages_shared", "Slots in use.", Some(stats.pages_shared));
    gauge("pagefold_pages_sharing", "Pages saved by sharing.", Some(stats.pages_sharing));
    gauge(
        "pagefold_pages_unshared",
        "Unchanged pages that share nothing.",
        Some(stats.pages_unshared),
    );
    gauge(
        "pagefold_stable_node_chains",
        "Contents with more sharers than one slot may have.",
        Some(stats.stable_node_chains),
    );
    gauge(
        "pagefold_stable_node_dups",
        "Slots of contents with more sharers than one slot may have.",
        Some(stats.stable_node_dups),
    );
    gauge(
        "pagefold_pages_volatile",
        "Pages written too recently to be looked at.",
        Some(stats.pages_volatile),
    );
    gauge("pagefold_pages_zero", "Pages saved because they are zero.", Some(stats.pages_zero));
    gauge(
        "pagefold_saved_bytes",
        "Bytes saved by sharing and by giving zero pages back.",
        Some(stats.saved_bytes),
    );
    gauge("pagefold_metadata_bytes", "Bytes of folding's own data.", Some(stats.metadata_bytes));
    gauge(
        "pagefold_page_table_bytes",
        "Bytes of page tables that only folding needs, at most.",
        Some(stats.page_table_bytes),
    );
    gauge(
        "pagefold_vma_bytes",
        "Bytes of the kernel's structures for mappings that only folding needs.",
        Some(stats.vma_bytes),
    );
    gauge(
        "pagefold_resident_bytes",
        "Bytes that the kernel holds for guest RAM, stores included.",
        stats.resident_bytes,
    );
    gauge("pagefold_vmas_used", "Mappings in use by guest RAM.", Some(stats.vmas_used));
    gauge("pagefold_vmas_budget", "Mappings that guest RAM may use.", Some(stats.vmas_budget));
    page.family(
        "pagefold_general_profit_bytes",
        Kind::Gauge,
        "Bytes saved less what folding itself costs.",
        [(vec![], Some(stats.general_profit))],
    );
    page.family(
        "pagefold_full_scans_total",
        Kind::Counter,
        "Passes over all VMs.",
        [(vec![], Some(stats.full_scans))],
    );
    page.family(
        "pagefold_cpu_seconds_total",
        Kind::Counter,
        "Processor seconds spent on folding, all threads.",
        [(vec![], Some(stats.cpu_seconds))],
    );
    for event in EVENTS {
        page.family(
            &format!("pagefold_{}_total", event.name),
            Kind::Counter,
            event.help,
            [(vec![], Some((event.value)(&stats.events)))],
        );
    }
}

fn domains(page: &mut Exposition, domains: &[DomainStats]) {
    let mut gauge = |name: &str, help: &str, value: fn(&DomainStats) -> Option<u64>| {
        let samples =
            domains.iter().map(|domain| (vec![("domain", domain.name.clone())], value(domain)));
        page.family(&format!("pagefold_domain_{name}"), Kind::Gauge, help, samples);
    };
    gauge("pages_shared", "Slots in use.", |domain| Some(domain.pages_shared));
    gauge("pages_sharing", "Pages saved by sharing.", |domain| Some(domain.pages_sharing));
    gauge("pages_unshared", "Unchanged pages that share nothing.", |domain| {
        Some(domain.pages_unshared)
    });
    gauge("stable_node_chains", "Contents with more sharers than one slot may have.", |domain| {
        Some(domain.stable_node_chains)
    });
    gauge("stable_node_dups", "Slots of such contents.", |domain| Some(domain.stable_node_dups));
    gauge("store_bytes", "Bytes that the kernel holds for the store.", |domain| domain.store_bytes);
    gauge("metadata_bytes", "Bytes of trees, items, nodes and slot tables.", |domain| {
        Some(domain.metadata_bytes)
    });
}

fn folded_vms(page: &mut Exposition, vms: &[VmStats]) {
    let labels = |vm: &VmStats| vec![("vm", vm.id.to_string()), ("domain", vm.domain.clone())];
    let mut gauge = |name: &str, help: &str, value: fn(&VmStats) -> Option<u64>| {
        let samples = vms.iter().map(|vm| (labels(vm), value(vm)));
        page.family(&format!("pagefold_vm_{name}"), Kind::Gauge, help, samples);
    };
    gauge("pages", "Pages of RAM.", |vm| Some(vm.pages));
    gauge("merging_pages", "Pages mapped onto slots.", |vm| Some(vm.merging_pages));
    gauge("zero_pages", "Pages given back because they are zero.", |vm| Some(vm.zero_pages));
    gauge("rmap_items", "Rmap items that take memory.", |vm| Some(vm.rmap_items));
    gauge("unshared_pages", "Unchanged pages that share nothing.", |vm| Some(vm.unshared_pages));
    gauge("deferred_pages", "Unchanged pages deferred because mappings were short.", |vm| {
        Some(vm.deferred_pages)
    });
    gauge("volatile_pages", "Pages written too recently to be looked at.", |vm| {
        Some(vm.volatile_pages)
    });
    gauge("extents", "Runs of pages on consecutive slots.", |vm| Some(vm.extents));
    gauge("vmas", "Mappings that the kernel holds for the RAM.", |vm| Some(vm.vmas));
    gauge("private_bytes", "Bytes of private memory that the kernel holds.", |vm| vm.private_bytes);
    page.family(
        "pagefold_vm_profit_bytes",
        Kind::Gauge,
        "Bytes saved less what folding the VM costs.",
        vms.iter().map(|vm| (labels(vm), Some(vm.profit))),
    );
    for event in EVENTS {
        page.family(
            &format!("pagefold_vm_{}_total", event.name),
            Kind::Counter,
            event.help,
            vms.iter().map(|vm| (labels(vm), Some((event.value)(&vm.events)))),
        );
    }
}

fn guests(page: &mut Exposition, vms: &[VmStatus]) {
    let labels = |vm: &VmStatus| vec![("vm", vm.id.to_string())];
    page.family(
        "pagefold_vm_running",
        Kind::Gauge,
        "1 while the vCPU runs.",
        vms.iter().map(|vm| (labels(vm), Some(u8::from(vm.state == VmState::Running)))),
    );
    let mut counter = |name: &str, help: &str, value: fn(&VmStatus) -> Option<u64>| {
        let samples = vms.iter().map(|vm| (labels(vm), value(vm)));
        page.family(&format!("pagefold_guest_{name}_total"), Kind::Counter, help, samples);
    };
    counter("writes", "Pages written, by the guest's last report.", |vm| {
        BuiltinStatus::of(vm)?.writes
    });
    counter("verifications", "Pages verified, by the guest's last report.", |vm| {
        BuiltinStatus::of(vm)?.verifications
    });
    counter("corrupt", "Pages that the guest found wrong.", |vm| BuiltinStatus::of(vm)?.corrupt);
    page.family(
        "pagefold_vm_unclaimed_accesses_total",
        Kind::Counter,
        "Accesses of the guest to ports or addresses that no device is at.",
        vms.iter().flat_map(|vm| {
            unclaimed(vm).map(|(bus, access, count)| {
                let kind = [("bus", bus.to_owned()), ("access", access.to_owned())];
                (labels(vm).into_iter().chain(kind).collect(), Some(count))
            })
        }),
    );
}

/// A VM's accesses that no device answered: which bus they were on, what they were, and how many.
fn unclaimed(vm: &VmStatus) -> [(&'static str, &'static str, u64); 4] {
    let (ports, mmio) = (vm.unclaimed_ports, vm.unclaimed_mmio);
    [
        ("port", "read", ports.reads),
        ("port", "write", ports.writes),
        ("mmio", "read", mmio.reads),
        ("mmio", "write", mmio.writes),
    ]
}

struct Event {
    name: &'static str,
    help: &'static str,
    value: fn(&Events) -> u64,
}

const EVENTS: [Event; 12] = [
    Event {
        name: "pages_scanned",
        help: "Pages read and fingerprinted.",
        value: |events| events.pages_scanned,
    },
    Event {
        name: "pages_skipped",
        help: "Pages passed over because they keep changing.",
        value: |events| events.pages_skipped,
    },
    Event { name: "merges", help: "Pages mapped onto a slot.", value: |events| events.merges },
    Event {
        name: "moves",
        help: "Pages whose slot was exchanged for another with the same bytes.",
        value: |events| events.moves,
    },
    Event {
        name: "remerges",
        help: "Pages that went back to the slot they had left.",
        value: |events| events.remerges,
    },
    Event {
        name: "breaks",
        help: "Pages that left their slot because they were written.",
        value: |events| events.breaks,
    },
    Event {
        name: "declines",
        help: "Merges that did not happen because the bytes had changed.",
        value: |events| events.declines,
    },
    Event {
        name: "zero_discards",
        help: "Pages found all zero and given back.",
        value: |events| events.zero_discards,
    },
    Event {
        name: "budget_skips",
        help: "Merges deferred because mappings were short.",
        value: |events| events.budget_skips,
    },
    Event {
        name: "unshares",
        help: "Pages made private again for want of a partner.",
        value: |events| events.unshares,
    },
    Event {
        name: "unmerges",
        help: "Pages made private again because they are not to be folded any more.",
        value: |events| events.unmerges,
    },
    Event {
        name: "errors",
        help: "Steps that the kernel refused, each undone.",
        value: |events| events.errors,
    },
];
