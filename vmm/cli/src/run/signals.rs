//! The signals that end a run.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pagefold_api::remove_sockets;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, exit, signal_name};

use crate::{live, process};

/// A signal so soon after the first is the same one: GNU `timeout` sends SIGTERM to the process and
/// at once again to its group, as a closing terminal sends SIGHUP and its shell another.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How long the last line may take to be written: a reader who does not read holds up no end.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// Those that request the end of a run.
const ENDING: [libc::c_int; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Others that end a process by default, beside the [real-time ones](libc::SIGRTMIN).
///
/// Not among them are those that report a thread's own fault, after which nothing more is to be done in
/// the process; SIGPIPE, which Rust's runtime has ignored, and SIGXFSZ, which all commands survive; and
/// SIGSTKFLT, with which the VMM takes its own threads out of their guests.
const FATAL: [libc::c_int; 9] = [
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGXCPU,
];

/// Calls `interrupted` at the first SIGINT, SIGTERM or SIGHUP, and ends the process at once at a
/// further one, or at another [that ends processes](FATAL).
///
/// A signal other than SIGINT and SIGTERM stays ignored where it is when the process starts, as SIGHUP is
/// under `nohup`, and SIGQUIT in the background of a script.
pub(super) fn listen(interrupted: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let others = [SIGHUP].into_iter().chain(FATAL).chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    let others = others.filter(|&signal| !process::ignores(signal));
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(others))?;
    thread::Builder::new().name("pagefold-signal".to_owned()).spawn(move || {
        let mut interrupted = Some(interrupted);
        let mut first = None;
        for signal in signals.forever() {
            if !ENDING.contains(&signal) {
                end_by_default(signal);
            }
            if first.get_or_insert_with(Instant::now).elapsed() >= SAME_SIGNAL {
                end_at_once(signal);
            }
            if let Some(interrupted) = interrupted.take() {
                interrupted();
            }
        }
    })?;
    Ok(())
}

/// Ends the process, whatever its other threads are at: without a report, but with nothing left
/// behind.
fn end_at_once(signal: libc::c_int) -> ! {
    remove_sockets();
    let name = name(signal);
    print_last(format!(
        "pagefold: {name} came while the run was ending: it ends at once, and without a report\n"
    ));
    exit(128 + signal)
}

/// Ends the process as the signal would have by itself, but with nothing left behind: nobody sends one of these
/// to have a report. Whoever waits for the process sees which it was, a user who wants a core dump gets one by
/// SIGQUIT, and a mistaken one (a log rotation's SIGUSR1) is not passed over in silence.
fn end_by_default(signal: libc::c_int) -> ! {
    remove_sockets();
    print_last(format!("pagefold: {} ends the run at once, and without a report\n", name(signal)));
    // It handles neither SIGPWR nor the real-time signals, and takes SIGIO for one that is ignored.
    let _ = emulate_default_handler(signal);
    exit(128 + signal)
}

fn name(signal: libc::c_int) -> String {
    signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// Writes a line to stderr, unless that takes too long.
fn print_last(line: String) {
    let (sender, said) = mpsc::channel();
    let saying = thread::Builder::new().spawn(move || {
        // With stderr gone, the code is all that is left to report.
        let _ = live::print(&line);
        let _ = sender.send(());
    });
    if saying.is_ok() {
        let _ = said.recv_timeout(LAST_WORDS_LIMIT);
    }
}
