//! The folding thread: passes, and requests between them.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AttachError, AttachSpec, CheckError, Engine, EngineError, SettleReport, Settling, VmId,
};

use super::DedupConfig;

/// Passes in a row that fold nothing after which passes become rare: what changed during the first
/// has been looked at by the second.
const IDLE_PASSES: u32 = 2;

/// What the folding thread can be asked. Whoever asks may have gone when it answers.
pub(super) enum Request {
    Attach { vm: VmId, spec: Box<AttachSpec>, answer: Sender<Result<(), AttachError>> },
    Detach { vm: VmId, answer: Sender<()> },
    Stats { answer: Sender<DedupStats> },
    Settle { limit: Duration, answer: Sender<SettleReport> },
    Check { answer: Sender<Result<(), CheckError>> },
}

/// Somebody who waits for folding to settle.
struct Waiter {
    settling: Settling,
    answer: Sender<SettleReport>,
}

/// The engine and when it works.
pub(super) struct Runner {
    engine: Engine,
    config: DedupConfig,
    inbox: Receiver<Request>,
    waiters: Vec<Waiter>,
    /// Passes in a row that folded nothing.
    idle: u32,
}

impl Runner {
    pub(super) fn new(config: DedupConfig, inbox: Receiver<Request>) -> Result<Self, EngineError> {
        let engine = Engine::new(config.engine)?;
        Ok(Self { engine, config, inbox, waiters: Vec::new(), idle: 0 })
    }

    /// Works until nobody can ask for anything any more.
    pub(super) fn run(mut self) {
        let mut last_pass = Instant::now();
        loop {
            let rest = self.interval().saturating_sub(last_pass.elapsed());
            match self.inbox.recv_timeout(rest) {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => {
                    self.pass();
                    last_pass = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// How long to rest after a pass: nothing is calm that was not left alone for as long.
    fn interval(&self) -> Duration {
        if self.idle < IDLE_PASSES || !self.waiters.is_empty() {
            self.config.busy_interval
        } else {
            self.config.idle_interval
        }
    }

    fn pass(&mut self) {
        let report = self.engine.pass();
        self.idle = if report.folded_pages == 0 { self.idle.saturating_add(1) } else { 0 };
        self.waiters.retain_mut(|waiter| match waiter.settling.note(&report) {
            Some(end) => {
                let _ = waiter.answer.send(end);
                false
            }
            None => true,
        });
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Attach { vm, spec, answer } => {
                self.idle = 0;
                let _ = answer.send(self.engine.attach(vm, *spec));
            }
            Request::Detach { vm, answer } => {
                self.engine.detach(vm);
                let _ = answer.send(());
            }
            Request::Stats { answer } => {
                let _ = answer.send(self.engine.stats());
            }
            Request::Settle { limit, answer } => {
                self.engine.mark();
                self.waiters.push(Waiter { settling: Settling::new(limit), answer });
            }
            Request::Check { answer } => {
                let _ = answer.send(self.engine.check());
            }
        }
    }
}
