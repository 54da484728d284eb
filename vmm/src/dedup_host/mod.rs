//! Folding of all VMs of one program: an engine on a thread of its own, and how to talk to it.
//!
//! The thread owns the engine; everybody else sends it requests, which it answers between the steps of a
//! pass. It is not on the path of any exit; a guest's page fault waits for it only while pages near by are
//! protected, or mappings replaced, which is done by some hundred at a time.

mod error;
mod runner;
mod snapshot;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use pagefold_dedup::stats::DedupStats;
use pagefold_dedup::{
    AttachSpec, ChangeSource, CompactReport, CompactScope, DedupMode, Explanation, Knobs,
    LinearIndex, MemoryCount, SettleReport, UnfoldedVm, VmId,
};

use crate::config::DedupConfig;
use crate::memory::GuestRam;
use crate::sys::ram::FoldableRam;
use crate::sys::signal;
pub(crate) use error::ChangeModeError;
pub use error::{AttachError, DedupGone, SetKnobsError, SettleError, StartDedupError};
use runner::{Request, Runner};
use snapshot::Snapshot;

/// The domain of VMs for which none is named.
pub(crate) const DEFAULT_DOMAIN: &str = "default";

/// How often memory is counted beside the thread, before the thread counts the rest itself: VMs may be attached faster
/// than those that there are have been counted, for as long as hundreds are launched.
const MAX_ROUNDS: u32 = 3;

/// The folding of one program's VMs. Clones are the same; with the last one the thread ends.
#[derive(Debug, Clone)]
pub struct DedupHost {
    thread: Arc<FoldingThread>,
}

#[derive(Debug)]
struct FoldingThread {
    /// `None` only while the thread is being ended.
    requests: Mutex<Option<Sender<Request>>>,
    /// What was counted last.
    stats: Mutex<Snapshot<DedupStats>>,
    handle: Option<JoinHandle<()>>,
}

/// Ends the idle interval of a folding thread, if that is still there. Never waits for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoldingWaker(Weak<FoldingThread>);

impl FoldingWaker {
    /// Has the next pass begin after the busy interval at the latest.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.upgrade() {
            // Of a thread that has ended nothing is expected any more.
            let _ = DedupHost { thread }.send(Box::new(Runner::wake));
        }
    }
}

impl DedupHost {
    /// What makes passes frequent again when something is about to happen.
    pub(crate) fn waker(&self) -> FoldingWaker {
        FoldingWaker(Arc::downgrade(&self.thread))
    }

    /// Starts the folding thread.
    ///
    /// # Errors
    ///
    /// When an interval, a limit or a knob makes no sense, threads cannot be started or the host's limits
    /// are unknown.
    pub fn start(config: DedupConfig) -> Result<Self, StartDedupError> {
        config.check_intervals()?;
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
        let thread = FoldingThread {
            requests: Mutex::new(Some(requests)),
            stats: Mutex::default(),
            handle: Some(handle),
        };
        let gone = || StartDedupError::Thread(io::Error::other("it ended at once"));
        started.recv().map_err(|_| gone())??;
        Ok(Self { thread: Arc::new(thread) })
    }

    /// Begins to fold a VM, after what is being done now.
    ///
    /// # Errors
    ///
    /// When the memory or the kernel does not allow it.
    pub(crate) fn attach(
        &self,
        vm: VmId,
        memory: &Arc<GuestRam>,
        changes: Box<dyn ChangeSource>,
        mode: DedupMode,
    ) -> Result<(), AttachError> {
        let memory = Arc::new(FoldableRam::new(Arc::clone(memory)));
        let spec = AttachSpec { domain: DEFAULT_DOMAIN.to_owned(), mode, memory, changes };
        Ok(self.ask(move |runner| runner.attach(vm, spec))??)
    }

    /// Takes note of a VM that is not folded, whose memory is counted all the same.
    ///
    /// # Errors
    ///
    /// When nobody folds any more.
    pub(crate) fn leave_unfolded(
        &self,
        vm: VmId,
        memory: &Arc<GuestRam>,
    ) -> Result<(), AttachError> {
        let memory = Arc::new(FoldableRam::new(Arc::clone(memory)));
        let its = UnfoldedVm { domain: DEFAULT_DOMAIN.to_owned(), memory };
        Ok(self.ask(move |runner| runner.leave_unfolded(vm, its))?)
    }

    /// Stops folding a VM that has ended, and returns when its memory lies over no slot any more, or the
    /// kernel refuses it the mappings for that, which is tried again. Its bytes are lost. Other VMs, and
    /// other requests, do not wait for it.
    pub(crate) fn detach_and_discard(&self, vm: VmId) {
        let (answer, result) = channel();
        // Without a thread the memory simply stays as it is until it is unmapped.
        if self.send(Box::new(move |runner| runner.detach_and_discard(vm, answer))).is_ok() {
            let _ = result.recv();
        }
    }

    /// What folding does and saves, with every VM that has not stopped: those whose mode was off from the
    /// beginning too.
    ///
    /// Counting takes O(pages), most of it on the calling thread while folding goes on: who asks all the
    /// time gets the same answer again, for 50 ms or ten times as long as the counting took. It is
    /// never older than what was asked for last, be it to attach or detach a VM, to change a knob or
    /// what is folded, to settle or to compact.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub fn stats(&self) -> Result<DedupStats, DedupGone> {
        // Before the lock: many who ask wait together for the thread, which may be long in answering, and not one
        // after the other.
        let changes = self.ask(|runner| runner.changes)?;
        let mut snapshot = self.thread.stats.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.get(changes, Instant::now, || self.count_stats())
    }

    fn count_stats(&self) -> Result<DedupStats, DedupGone> {
        let mut count = MemoryCount::default();
        for _ in 0..MAX_ROUNDS {
            let stats;
            (stats, count) = self.ask(move |runner| (runner.stats(&mut count), count))?;
            if let Some(stats) = stats {
                return Ok(stats);
            }
            count.run();
        }
        self.ask(move |runner| runner.count_stats(count))
    }

    /// Waits until everything is folded that is unchanged since this call, at most for `limit`.
    /// Pages that guests go on writing are not waited for.
    ///
    /// # Errors
    ///
    /// When time is up first; or when folding is stopped, or is while this waits, and stays so.
    pub fn settle(&self, limit: Duration) -> Result<SettleReport, SettleError> {
        let (answer, result) = channel();
        self.send(Box::new(move |runner| runner.settle(limit, answer)))?;
        let report = result.recv().map_err(|_| DedupGone)?.map_err(SettleError::NotFolding)?;
        if report.settled { Ok(report) } else { Err(SettleError::TimedOut(report)) }
    }

    /// The knobs as they are.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub fn knobs(&self) -> Result<Knobs, DedupGone> {
        self.ask(|runner| runner.engine.knobs())
    }

    /// Sets knobs by their names, all of them or none, and returns what they are then.
    ///
    /// # Errors
    ///
    /// When a name or a value makes no sense, or not now; none is changed.
    pub fn set_knobs(&self, changes: Vec<(String, String)>) -> Result<Knobs, SetKnobsError> {
        Ok(self.ask(move |runner| runner.set_knobs(&changes))??)
    }

    /// Changes any number of knobs together, and returns what they are then:
    ///
    /// ```no_run
    /// # fn stop(dedup: &pagefold::dedup_host::DedupHost) -> Result<(), Box<dyn std::error::Error>> {
    /// use pagefold::Run;
    ///
    /// dedup.change_knobs(|knobs| (knobs.run, knobs.sleep_millisecs) = (Run::Fold, 0))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When a value makes no sense, or not now; none is changed.
    pub fn change_knobs(
        &self,
        change: impl FnOnce(&mut Knobs) + Send + 'static,
    ) -> Result<Knobs, SetKnobsError> {
        let change = move |runner: &mut Runner| {
            let mut knobs = runner.engine.knobs();
            change(&mut knobs);
            runner.apply_knobs(knobs)
        };
        Ok(self.ask(change)??)
    }

    /// How many pages of a VM are still to be given their own memory, because they are not to be folded
    /// any more; `None` when the VM is not attached.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub fn unmerging_pages(&self, vm: VmId) -> Result<Option<u64>, DedupGone> {
        self.ask(move |runner| runner.engine.unmerging_pages(vm))
    }

    /// Folds more or less of a VM from now on. What is not to be folded any more is made private
    /// step by step, after this has returned, as fast as it goes; [`unmerging_pages`] returns how much is
    /// left.
    ///
    /// [`unmerging_pages`]: Self::unmerging_pages
    ///
    /// # Errors
    ///
    /// When the VM is not attached.
    pub(crate) fn set_mode(&self, vm: VmId, mode: DedupMode) -> Result<(), ChangeModeError> {
        Ok(self.ask(move |runner| runner.set_mode(vm, mode))??)
    }

    /// Allows, or forbids, the folding of runs of a VM's pages: a first page and a number of pages
    /// each, all of which it has.
    ///
    /// # Errors
    ///
    /// When the VM is not attached.
    pub(crate) fn set_mergeable(
        &self,
        vm: VmId,
        runs: Vec<(LinearIndex, u32)>,
        mergeable: bool,
    ) -> Result<(), ChangeModeError> {
        Ok(self.ask(move |runner| runner.set_mergeable(vm, &runs, mergeable))??)
    }

    /// Explains of a VM's page whether it is shared, with whom, or why not; `None` when the VM is not
    /// attached or has no memory there.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub(crate) fn explain(&self, vm: VmId, gpa: u64) -> Result<Option<Explanation>, DedupGone> {
        self.ask(move |runner| runner.engine.explain(vm, gpa))
    }

    /// Moves slots so that fewer mappings are needed, group by group: guests go on, and so do other
    /// requests.
    ///
    /// # Errors
    ///
    /// When folding has stopped.
    pub fn compact(&self, scope: CompactScope) -> Result<CompactReport, DedupGone> {
        let (answer, result) = channel();
        self.send(Box::new(move |runner| runner.begin_compaction(scope, answer)))?;
        result.recv().map_err(|_| DedupGone)
    }

    /// Verifies all of folding's structures against each other and the kernel's mappings. The VMs
    /// must be paused.
    ///
    /// # Errors
    ///
    /// When folding has stopped; the inner error is the first thing that is wrong.
    pub fn check(&self) -> Result<Result<(), pagefold_dedup::CheckError>, DedupGone> {
        self.ask(|runner| runner.engine.check_breaks())
    }

    /// Has the folding thread do something between two steps, and waits for what comes of it.
    fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Runner) -> T + Send + 'static,
    ) -> Result<T, DedupGone> {
        let (answer, result): (Sender<T>, Receiver<T>) = channel();
        self.send(Box::new(move |runner| {
            // Whoever asked may have gone.
            let _ = answer.send(task(runner));
        }))?;
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

#[cfg(test)]
mod tests;
