//! What VMs' virtio devices have done.

use pagefold::status::{
    BlockCounts, DeviceCounts, DeviceStatus, RngCounts, TransportCounts, VmStatus,
};

use crate::exposition::{Exposition, Kind};

/// A counter of a `C`.
struct Counter<C> {
    name: &'static str,
    help: &'static str,
    value: fn(&C) -> u64,
}

/// Adds the counters of all devices.
pub(super) fn devices(page: &mut Exposition, vms: &[VmStatus]) {
    family(page, vms, "virtio", &TRANSPORT, |device| Some(device.counts.transport));
    family(page, vms, "disk", &DISK, |device| match device.counts.device {
        DeviceCounts::Block(counts) => Some(counts),
        DeviceCounts::Rng(_) => None,
    });
    family(page, vms, "rng", &RNG, |device| match device.counts.device {
        DeviceCounts::Rng(counts) => Some(counts),
        DeviceCounts::Block(_) => None,
    });
}

/// Adds counters of those devices that `counts` finds some of.
fn family<C>(
    page: &mut Exposition,
    vms: &[VmStatus],
    kind: &str,
    counters: &[Counter<C>],
    counts: fn(&DeviceStatus) -> Option<C>,
) {
    for counter in counters {
        let devices = vms.iter().flat_map(|vm| vm.devices.iter().map(move |device| (vm, device)));
        let samples = devices.map(|(vm, device)| {
            let labels = vec![("vm", vm.id.to_string()), ("device", device.name.clone())];
            (labels, counts(device).as_ref().map(counter.value))
        });
        let name = format!("pagefold_{kind}_{}_total", counter.name);
        page.family(&name, Kind::Counter, counter.help, samples);
    }
}

const TRANSPORT: [Counter<TransportCounts>; 6] = [
    Counter {
        name: "notifications",
        help: "Times that a queue of a device was looked into.",
        value: |counts| counts.notifications,
    },
    Counter {
        name: "interrupts",
        help: "Interrupts that a device raised.",
        value: |counts| counts.interrupts,
    },
    Counter {
        name: "failed_interrupts",
        help: "Interrupts that could not be raised.",
        value: |counts| counts.failed_interrupts,
    },
    Counter {
        name: "resets",
        help: "Times that a driver has reset its device.",
        value: |counts| counts.resets,
    },
    Counter {
        name: "queue_errors",
        help: "Times that a device was out of order, as a queue made no sense.",
        value: |counts| counts.queue_errors,
    },
    Counter {
        name: "refused_accesses",
        help: "Accesses to a device's registers that no driver makes, which were refused.",
        value: |counts| counts.refused_accesses,
    },
];

const DISK: [Counter<BlockCounts>; 9] = [
    Counter {
        name: "reads",
        help: "Reads of a disk that were carried out.",
        value: |counts| counts.reads,
    },
    Counter {
        name: "writes",
        help: "Writes of a disk that were carried out.",
        value: |counts| counts.writes,
    },
    Counter {
        name: "flushes",
        help: "Flushes of a disk that were carried out.",
        value: |counts| counts.flushes,
    },
    Counter {
        name: "discards",
        help: "Discards of a disk that were carried out.",
        value: |counts| counts.discards,
    },
    Counter {
        name: "zeroes",
        help: "Requests to a disk for zeroes that were carried out.",
        value: |counts| counts.zeroes,
    },
    Counter {
        name: "read_bytes",
        help: "Bytes that were read from a disk.",
        value: |counts| counts.read_bytes,
    },
    Counter {
        name: "written_bytes",
        help: "Bytes that were written to a disk.",
        value: |counts| counts.written_bytes,
    },
    Counter {
        name: "failed_requests",
        help: "Requests to a disk that the host could not carry out.",
        value: |counts| counts.failed_requests,
    },
    Counter {
        name: "refused_requests",
        help: "Requests to a disk that made no sense, or that it does not know.",
        value: |counts| counts.refused_requests,
    },
];

const RNG: [Counter<RngCounts>; 3] = [
    Counter {
        name: "requests",
        help: "Requests to an entropy source that were carried out.",
        value: |counts| counts.requests,
    },
    Counter {
        name: "failed_requests",
        help: "Requests to an entropy source that made no sense, or found no random bytes.",
        value: |counts| counts.failed_requests,
    },
    Counter {
        name: "bytes",
        help: "Random bytes that a guest was given.",
        value: |counts| counts.bytes,
    },
];
