//! The signals that end a run.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pagefold_api::remove_sockets;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{exit, signal_name};

use crate::{live, process};

/// A signal so soon after the first is the same one: GNU `timeout` sends SIGTERM to the process and
/// at once again to its group, as a closing terminal sends SIGHUP and its shell another.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How long the last line may take to be written: a reader who does not read holds up no end.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// Calls `interrupted` at the first SIGINT, SIGTERM or SIGHUP, and ends the process at once at a
/// further one.
///
/// SIGHUP stays ignored where it is when the process starts, as it is under `nohup`.
pub(super) fn listen(interrupted: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let hangup = (!process::ignores(SIGHUP)).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
    thread::Builder::new().name("pagefold-signal".to_owned()).spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_none() {
            return;
        }
        let first = Instant::now();
        interrupted();
        if let Some(second) = signals.find(|_| first.elapsed() >= SAME_SIGNAL) {
            end_at_once(second);
        }
    })?;
    Ok(())
}

/// Ends the process, whatever its other threads are at: without a report, but with nothing left
/// behind.
fn end_at_once(signal: libc::c_int) -> ! {
    remove_sockets();
    let name = signal_name(signal).unwrap_or("a signal");
    let line = format!(
        "pagefold: {name} came while the run was ending: it ends at once, and without a report\n"
    );
    let (sender, said) = mpsc::channel();
    let saying = thread::Builder::new().spawn(move || {
        // With stderr gone, the code is all that is left to say.
        let _ = live::say(&line);
        let _ = sender.send(());
    });
    if saying.is_ok() {
        let _ = said.recv_timeout(LAST_WORDS_LIMIT);
    }
    exit(128 + signal)
}
