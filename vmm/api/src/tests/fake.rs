//! Pretended VMs: what is tested is the socket, and what it does with their answers.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use pagefold_dedup::stats::{DedupStats, DomainStats, Events, VmStats};
use pagefold_dedup::{
    CompactReport, CompactScope, Explanation, KnobError, Knobs, LinearIndex, PageState, Reason,
    Run, SettleReport, VmId, WalkReport,
};

use pagefold_api_types::GuestPhys;

use crate::{Control, ControlError};
use pagefold::config::DedupMode;
use pagefold::status::{
    BlockCounts, DeviceCounts, DeviceStatus, RngCounts, TransportCounts, Unclaimed, VirtioCounts,
    VmState, VmStatus,
};
use pagefold::{BuiltinStatus, StopReason};

/// Two VMs, and a settle that ends when the test ends it.
#[derive(Debug)]
pub(super) struct Fake {
    vms: Mutex<Vec<VmStatus>>,
    pub(super) stats: Mutex<DedupStats>,
    pub(super) gone: Mutex<bool>,
    /// Whether each settle reports success; without one it waits for the sender's.
    settled: Mutex<Receiver<bool>>,
    pub(super) settle: Sender<bool>,
    /// The limits that settles were called with.
    pub(super) limits: Mutex<Vec<Duration>>,
    /// Whether anything is shared, so that some knobs cannot be changed.
    pub(super) busy: Mutex<bool>,
    /// The ranges that were opted out or in, with their address and length in bytes.
    pub(super) ranges: Mutex<Vec<(VmId, u64, u64, bool)>>,
    /// What compactions were called with.
    pub(super) scopes: Mutex<Vec<CompactScope>>,
}

impl Default for Fake {
    fn default() -> Self {
        let (settle, settled) = mpsc::channel();
        Self {
            vms: Mutex::new(vec![vm(1, VmState::Running), vm(2, VmState::Stopped)]),
            stats: Mutex::new(stats()),
            gone: Mutex::new(false),
            settled: Mutex::new(settled),
            settle,
            limits: Mutex::default(),
            busy: Mutex::new(false),
            ranges: Mutex::default(),
            scopes: Mutex::default(),
        }
    }
}

impl Fake {
    fn change(&self, id: VmId, from: &[VmState], to: VmState) -> Result<(), ControlError> {
        let mut vms = self.vms.lock().expect("unpoisoned");
        let vm = vms.iter_mut().find(|vm| vm.id == id).ok_or(ControlError::NoSuchVm(id))?;
        if !from.contains(&vm.state) {
            return Err(ControlError::Conflict(format!("VM {id} is {:?}", vm.state)));
        }
        vm.state = to;
        Ok(())
    }
}

impl Control for Fake {
    fn vms(&self) -> Vec<VmStatus> {
        self.vms.lock().expect("unpoisoned").clone()
    }

    fn vm(&self, id: VmId) -> Result<VmStatus, ControlError> {
        let vms = self.vms.lock().expect("unpoisoned");
        vms.iter().find(|vm| vm.id == id).cloned().ok_or(ControlError::NoSuchVm(id))
    }

    fn pause(&self, id: VmId) -> Result<(), ControlError> {
        self.change(id, &[VmState::Running], VmState::Paused)
    }

    fn resume(&self, id: VmId) -> Result<(), ControlError> {
        self.change(id, &[VmState::Paused], VmState::Running)
    }

    fn stop(&self, id: VmId) -> Result<(), ControlError> {
        let from = [VmState::Running, VmState::Paused, VmState::Stopped];
        self.change(id, &from, VmState::Stopped)
    }

    fn dedup(&self) -> Result<DedupStats, ControlError> {
        if *self.gone.lock().expect("unpoisoned") {
            return Err(ControlError::Gone("folding has ended".to_owned()));
        }
        Ok(self.stats.lock().expect("unpoisoned").clone())
    }

    fn set_dedup(&self, id: VmId, mode: DedupMode) -> Result<(), ControlError> {
        let state = self.vm(id)?.state;
        self.change(id, &[VmState::Running, VmState::Paused], state)?;
        let mut vms = self.vms.lock().expect("unpoisoned");
        vms.iter_mut().filter(|vm| vm.id == id).for_each(|vm| vm.dedup = mode);
        Ok(())
    }

    fn unmerging_pages(&self, id: VmId) -> Option<u64> {
        let vm = self.vm(id).ok()?;
        Some(if vm.dedup == DedupMode::Off { 7 } else { 0 })
    }

    fn set_mergeable(
        &self,
        id: VmId,
        gpa: GuestPhys,
        len_bytes: u64,
        mergeable: bool,
    ) -> Result<(), ControlError> {
        let memory_bytes = self.vm(id)?.memory_bytes;
        if len_bytes == 0 || !len_bytes.is_multiple_of(4096) {
            return Err(ControlError::NotPages("not pages".to_owned()));
        }
        if gpa.0 + len_bytes > memory_bytes {
            return Err(ControlError::NoMemory { vm: id, gpa: GuestPhys(memory_bytes) });
        }
        self.ranges.lock().expect("unpoisoned").push((id, gpa.0, len_bytes, mergeable));
        Ok(())
    }

    fn set_knobs(&self, changes: Vec<(String, String)>) -> Result<Knobs, ControlError> {
        let mut stats = self.stats.lock().expect("unpoisoned");
        let mut knobs = stats.knobs;
        for (key, value) in &changes {
            knobs.set(key, value)?;
        }
        knobs.check()?;
        if *self.busy.lock().expect("unpoisoned") {
            let busy = |key| Err(KnobError::Busy { key, slots: 10 }.into());
            if knobs.max_page_sharing != stats.knobs.max_page_sharing {
                return busy("max_page_sharing");
            }
            if knobs.merge_across_nodes != stats.knobs.merge_across_nodes {
                return busy("merge_across_nodes");
            }
        }
        stats.knobs = knobs;
        Ok(knobs)
    }

    fn explain(&self, id: VmId, gpa: GuestPhys) -> Result<Explanation, ControlError> {
        let memory_bytes = self.vm(id)?.memory_bytes;
        if gpa.0 >= memory_bytes {
            return Err(ControlError::NoMemory { vm: id, gpa });
        }
        Ok(Explanation {
            vm: id,
            gpa: gpa.0,
            linear: LinearIndex(u32::try_from(gpa.0 / 4096).expect("a page")),
            domain: "default".to_owned(),
            state: PageState::Unshared,
            reason: Reason::NoTwin,
            mappings: Vec::new(),
            dups: Vec::new(),
            walk: WalkReport::default(),
        })
    }

    fn compact(&self, scope: CompactScope) -> Result<CompactReport, ControlError> {
        assert!(!*self.gone.lock().expect("unpoisoned"), "as asked");
        self.scopes.lock().expect("unpoisoned").push(scope);
        Ok(CompactReport { extents_before: 9, extents_after: 4, ..CompactReport::default() })
    }

    fn settle(&self, limit: Duration) -> Result<SettleReport, ControlError> {
        let run = self.stats.lock().expect("unpoisoned").knobs.run;
        if run != Run::Fold {
            return Err(ControlError::NotFolding(run));
        }
        self.limits.lock().expect("unpoisoned").push(limit);
        let settled = self.settled.lock().expect("unpoisoned").recv();
        let settled = settled.map_err(|_| ControlError::Gone("no test any more".to_owned()))?;
        Ok(SettleReport { settled, passes: 3, elapsed_ms: 17 })
    }
}

fn vm(id: u32, state: VmState) -> VmStatus {
    let stop_reason = (state == VmState::Stopped).then_some(StopReason::Requested);
    VmStatus {
        id: VmId(id),
        name: None,
        guest: "builtin:mix".to_owned(),
        dedup: DedupMode::On,
        state,
        memory_bytes: 64 << 20,
        ready_ms: Some(12),
        report: BuiltinStatus {
            writes: Some(34),
            verifications: Some(56),
            ..BuiltinStatus::default()
        }
        .into(),
        unclaimed_ports: Unclaimed { reads: 5, writes: 6 },
        unclaimed_mmio: Unclaimed { reads: 7, writes: 8 },
        devices: devices(),
        stop_message: stop_reason.as_ref().map(ToString::to_string),
        clean: stop_reason.as_ref().map(StopReason::is_clean),
        stop_reason,
    }
}

fn devices() -> Vec<DeviceStatus> {
    let transport = TransportCounts { notifications: 9, interrupts: 10, ..Default::default() };
    let device = |name: &str, device| DeviceStatus {
        name: name.to_owned(),
        counts: VirtioCounts { device, transport },
    };
    let disk = BlockCounts { reads: 11, written_bytes: 12, ..Default::default() };
    let rng = RngCounts { requests: 13, bytes: 14, ..Default::default() };
    vec![device("disk0", DeviceCounts::Block(disk)), device("rng", DeviceCounts::Rng(rng))]
}

fn stats() -> DedupStats {
    let events = Events { merges: 7, pages_skipped: 6, ..Events::default() };
    let vm = |id, private_bytes| VmStats {
        id,
        domain: "user \"0\"".to_owned(),
        mode: "on".to_owned(),
        pages: 16_384,
        merging_pages: 5,
        zero_pages: 4,
        rmap_items: 8,
        profit: -7,
        unshared_pages: 3,
        deferred_pages: 9,
        volatile_pages: 2,
        swapped_pages: Some(3),
        unmerging_pages: 0,
        extents: 1,
        vmas: 6,
        private_bytes,
        events,
    };
    DedupStats {
        pages_shared: 10,
        pages_sharing: 20,
        pages_unshared: 30,
        stable_node_chains: 2,
        stable_node_dups: 5,
        pages_volatile: 40,
        pages_zero: 50,
        knobs: Knobs::default(),
        full_scans: 60,
        events,
        saved_bytes: 70 * 4096,
        metadata_bytes: 80,
        page_table_bytes: 90,
        vma_bytes: 95,
        general_profit: -100,
        resident_bytes: None,
        vmas_used: 110,
        vmas_budget: 120,
        cpu_seconds: 1.5,
        domains: vec![DomainStats {
            name: "user \"0\"".to_owned(),
            pages_shared: 10,
            pages_sharing: 20,
            pages_unshared: 30,
            stable_node_chains: 2,
            stable_node_dups: 5,
            store_bytes: Some(40_960),
            metadata_bytes: 80,
        }],
        vms: vec![vm(1, Some(4096)), vm(2, None)],
    }
}
