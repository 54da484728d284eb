//! The folding thread: passes, and requests between them.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AttachError, AttachSpec, CheckError, Engine, EngineError, SettleReport, VmId,
};

use super::DedupConfig;

/// Passes in a row without work after which passes become rare, and settling ends: what changed
/// during the first has been looked at by the second.
const QUIET_PASSES: u32 = 2;

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
    since: Instant,
    limit: Duration,
    passes: u64,
    quiet: u32,
    answer: Sender<SettleReport>,
}

impl Waiter {
    /// Takes note of a pass; says whether the waiter has been answered.
    fn note(&mut self, was_quiet: bool) -> bool {
        self.passes += 1;
        self.quiet = if was_quiet { self.quiet + 1 } else { 0 };
        let settled = self.quiet == QUIET_PASSES;
        if settled || self.since.elapsed() >= self.limit {
            let report = SettleReport::new(settled, self.passes, self.since.elapsed());
            let _ = self.answer.send(report);
            return true;
        }
        false
    }
}

/// The engine and when it works.
pub(super) struct Runner {
    engine: Engine,
    config: DedupConfig,
    inbox: Receiver<Request>,
    waiters: Vec<Waiter>,
    /// Passes in a row that found nothing to do.
    quiet: u32,
}

impl Runner {
    pub(super) fn new(config: DedupConfig, inbox: Receiver<Request>) -> Result<Self, EngineError> {
        let engine = Engine::new(config.engine)?;
        Ok(Self { engine, config, inbox, waiters: Vec::new(), quiet: 0 })
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
        if self.quiet < QUIET_PASSES || !self.waiters.is_empty() {
            self.config.busy_interval
        } else {
            self.config.idle_interval
        }
    }

    fn pass(&mut self) {
        let report = self.engine.pass();
        self.quiet = if report.folded_pages == 0 { self.quiet.saturating_add(1) } else { 0 };
        self.waiters.retain_mut(|waiter| !waiter.note(report.is_quiet()));
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Attach { vm, spec, answer } => {
                self.quiet = 0;
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
                let since = Instant::now();
                self.engine.mark();
                self.waiters.push(Waiter { since, limit, passes: 0, quiet: 0, answer });
            }
            Request::Check { answer } => {
                let _ = answer.send(self.engine.check());
            }
        }
    }
}
