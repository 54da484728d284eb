//! Pretended VMs: what is tested is the socket, and what it does with their answers.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use pagefold_dedup::stats::{DedupStats, DomainStats, Events, VmStats};
use pagefold_dedup::{SettleReport, VmId};

use crate::api::{Control, ControlError};
use crate::config::DedupMode;
use crate::status::{VmState, VmStatus};
use crate::vcpu::StopReason;

/// Two VMs, and a settle that ends when the test says so.
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

    fn settle(&self, limit: Duration) -> Result<SettleReport, ControlError> {
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
        resting: false,
        writes: Some(34),
        verifications: Some(56),
        corrupt: None,
        corrupt_lines: Vec::new(),
        panic: None,
        stop_message: stop_reason.as_ref().map(ToString::to_string),
        clean: stop_reason.as_ref().map(StopReason::is_clean),
        stop_reason,
    }
}

fn stats() -> DedupStats {
    let events = Events { merges: 7, ..Events::default() };
    let vm = |id, private_bytes| VmStats {
        id,
        domain: "user \"0\"".to_owned(),
        mode: "on".to_owned(),
        pages: 16_384,
        merging_pages: 5,
        zero_pages: 4,
        unshared_pages: 3,
        volatile_pages: 2,
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
        full_scans: 60,
        events,
        saved_bytes: 70 * 4096,
        metadata_bytes: 80,
        page_table_bytes: 90,
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
