//! Folding of all VMs of one program: an engine on a thread of its own, and how to talk to it.
//!
//! The thread owns the engine; everybody else sends it requests, which it answers between passes.
//! A guest never waits for it: it is not on the path of any exit.

mod runner;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AttachSpec, ChangeSource, DedupMode, EngineConfig, EngineError, SettleReport, VmId,
};

use crate::memory::GuestRam;
use crate::sys::ram::FoldableRam;
use crate::sys::signal;
use runner::{Request, Runner};

/// The domain of VMs for which none is named.
const DEFAULT_DOMAIN: &str = "default";

/// How VMs are folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupConfig {
    /// The time between passes while there is something to fold, or somebody waits for the end of
    /// folding: a page must rest for so long to be shared.
    pub busy_interval: Duration,
    /// The time between passes once nothing has been folded for a while.
    pub idle_interval: Duration,
    /// The engine's limits.
    pub engine: EngineConfig,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            busy_interval: Duration::from_millis(150),
            idle_interval: Duration::from_secs(1),
            engine: EngineConfig::default(),
        }
    }
}

/// Why folding cannot begin; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartDedupError {
    /// There is no thread for it.
    #[error("cannot start the folding thread")]
    Thread(#[source] io::Error),
    /// The engine cannot be made.
    #[error("cannot set up folding")]
    Engine(#[source] EngineError),
}

/// The folding thread has ended, which it does only when it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("folding has stopped; guests run on, and keep what they share")]
pub struct DedupGone;

/// Why a VM's memory is not folded; it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] pagefold_dedup::AttachError),
    /// Nobody folds any more.
    #[error(transparent)]
    Gone(#[from] DedupGone),
}

/// The folding of one program's VMs. Clones are the same; with the last one the thread ends.
#[derive(Debug, Clone)]
pub struct DedupHost {
    thread: Arc<FoldingThread>,
}

#[derive(Debug)]
struct FoldingThread {
    /// `None` only while the thread is being ended.
    requests: Mutex<Option<Sender<Request>>>,
    handle: Option<JoinHandle<()>>,
}

impl DedupHost {
    /// Starts the folding thread.
    ///
    /// # Errors
    ///
    /// When threads cannot be started or the host's limits are unknown.
    pub fn start(config: DedupConfig) -> Result<Self, StartDedupError> {
        let (requests, inbox) = channel();
        let (ready, started) = channel();
        let handle = thread::Builder::new()
            .name("pagefold-dedup".to_owned())
            .spawn(move || {
                // Here, so that the engine's own threads inherit the mask.
                let runner = signal::block_in_this_thread()
                    .map_err(StartDedupError::Thread)
                    .and_then(|()| Runner::new(config, inbox).map_err(StartDedupError::Engine));
                let (runner, result) = match runner {
                    Ok(runner) => (Some(runner), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // The receiver waits for this message, so it is there.
                let _ = ready.send(result);
                runner.into_iter().for_each(Runner::run);
            })
            .map_err(StartDedupError::Thread)?;
        let thread = FoldingThread { requests: Mutex::new(Some(requests)), handle: Some(handle) };
        let gone = || StartDedupError::Thread(io::Error::other("it ended at once"));
        started.recv().map_err(|_| gone())??;
        Ok(Self { thread: Arc::new(thread) })
    }

    /// Begins to fold a VM, after what is being done now. A VM whose mode is off is not touched.
    ///
    /// # Errors
    ///
    /// When the memory or the kernel does not allow it.
    pub fn attach(
        &self,
        vm: VmId,
        memory: &Arc<GuestRam>,
        changes: Box<dyn ChangeSource>,
        mode: DedupMode,
    ) -> Result<(), AttachError> {
        if mode == DedupMode::Off {
            return Ok(());
        }
        let memory = Arc::new(FoldableRam::new(Arc::clone(memory)));
        let spec = AttachSpec { domain: DEFAULT_DOMAIN.to_owned(), mode, memory, changes };
        let (answer, result) = channel();
        self.send(Request::Attach { vm, spec: Box::new(spec), answer })?;
        Ok(result.recv().map_err(|_| DedupGone)??)
    }

    /// Stops folding a VM that has ended, and returns when its memory lies over no slot any more.
    /// Its bytes are lost.
    pub fn detach(&self, vm: VmId) {
        // Without a thread the memory simply stays as it is until it is unmapped.
        let _ = self.ask(|answer| Request::Detach { vm, answer });
    }

    /// What folding does and saves.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub fn stats(&self) -> Result<DedupStats, DedupGone> {
        self.ask(|answer| Request::Stats { answer })
    }

    /// Waits until everything is folded that has been at rest since this call, at most for `limit`.
    /// Pages that guests go on writing are not waited for.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub fn settle(&self, limit: Duration) -> Result<SettleReport, DedupGone> {
        self.ask(|answer| Request::Settle { limit, answer })
    }

    /// Verifies all of folding's structures against each other and the kernel's mappings. The VMs
    /// must be paused.
    ///
    /// # Errors
    ///
    /// When folding has stopped; the inner error is the first thing that is wrong.
    pub fn check(&self) -> Result<Result<(), pagefold_dedup::CheckError>, DedupGone> {
        self.ask(|answer| Request::Check { answer })
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T, DedupGone> {
        let (answer, result): (_, Receiver<T>) = channel();
        self.send(request(answer))?;
        result.recv().map_err(|_| DedupGone)
    }

    fn send(&self, request: Request) -> Result<(), DedupGone> {
        let requests = self.thread.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.as_ref().and_then(|requests| requests.send(request).ok()).ok_or(DedupGone)
    }
}

impl Drop for FoldingThread {
    fn drop(&mut self) {
        // The thread ends when nobody can ask it anything any more.
        self.requests.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            log::error!("the folding thread panicked");
        }
    }
}
