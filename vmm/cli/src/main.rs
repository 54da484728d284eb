//! The `pagefold` command: what it takes, and what it ends with.

mod analyze;
mod arguments;
mod compact;
mod demand;
mod doctor;
mod explain;
mod failure;
mod knobs;
mod live;
mod logs;
mod number;
mod process;
mod run;
mod set;
mod settle;
mod size;
mod socket;
mod stats;
mod table;
mod text;
mod vms;
mod wait;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use failure::{Advise, Failure};
use vms::Change;

/// What the help prints below the options of what it is true of.
const EXIT_CODES: &str = "\
Exit codes:
  0  all went well (a run that a signal ended early, too)
  1  it could not be done; the last lines say why and what to do
  2  the command line makes no sense
  3  a guest found a wrong byte in its memory
  4  a guest crashed, or did not finish
  5  folding was to settle, and did not within its time
  128 + N  a signal N ended the process at once: SIGINT, SIGTERM or SIGHUP a second or more
           after the first of them; or SIGQUIT, USR1, USR2, ALRM, VTALRM, PROF, IO, PWR,
           XCPU, or a real-time signal

Logs go to stderr; -v, or RUST_LOG=info or RUST_LOG=pagefold=debug, shows more of them.
See what this machine can do with: pagefold doctor";

/// What `--version` prints: the version, and what was built.
const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit   ",
    env!("PAGEFOLD_COMMIT"),
    "\nprofile  ",
    env!("PAGEFOLD_PROFILE"),
    "\ntarget   ",
    env!("PAGEFOLD_TARGET"),
    "\nbuilt by ",
    env!("PAGEFOLD_RUSTC"),
);

/// A small KVM VMM that holds identical pages of its guests only once
#[derive(Debug, Parser)]
#[command(name = "pagefold", version, long_version = BUILD, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    logs: logs::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Launch VMs, fold their memory, and say what that saved
    #[command(after_help = EXIT_CODES)]
    Run(run::Args),
    /// Show the folding of a `run --api-socket`
    Stats(stats::Args),
    /// List the VMs of a `run --api-socket`
    Vms(vms::Args),
    /// Hold VMs until they are resumed
    Pause(vms::ChangeArgs),
    /// Let VMs run on that were paused
    Resume(vms::ChangeArgs),
    /// End VMs
    Stop(vms::ChangeArgs),
    /// Wait until nothing is left to fold
    #[command(after_help = EXIT_CODES)]
    Settle(settle::Args),
    /// Change knobs of folding, or what of a VM is folded, while VMs run
    Set(set::Args),
    /// Say of a guest's page whether it is shared, with whom, or why not
    Explain(explain::Args),
    /// Move shared pages so that they need fewer mappings
    Compact(compact::Args),
    /// Count, and with --fold fold, identical pages of raw memory images
    Analyze(analyze::Args),
    /// Check what this machine offers, and say how to fix what is missing
    Doctor(doctor::Args),
}

/// How a command ends that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All went well.
    Fine,
    /// It was done, and the answer is that something is missing.
    Lacking,
    /// A guest found a wrong byte in its memory.
    Corrupt,
    /// A guest crashed, or did not finish.
    Crashed,
    /// Folding did not settle in the time that it had.
    Unsettled,
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Lacking => 1,
            Self::Corrupt => 3,
            Self::Crashed => 4,
            Self::Unsettled => 5,
        }
    }
}

/// Has a write beyond the limit on file lengths fail, which is reported, instead of ending the process.
fn survive_file_limit() {
    // A handler and not SIG_IGN, which no safe interface sets; nobody looks at the flag.
    if let Err(error) = signal_hook::flag::register(libc::SIGXFSZ, Arc::default()) {
        log::warn!("cannot take SIGXFSZ: {error}");
    }
}

/// Executes the command line. Clap ends the process itself for usage errors.
fn main() -> ExitCode {
    survive_file_limit();
    let result = match arguments::parse::<Cli>() {
        Ok(cli) => logs::init(&cli.logs).and_then(|()| command(cli.command)),
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => print_help(&help),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(failure) => {
            // With stderr gone, the code is all that is left to report.
            let _ = live::print(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

fn command(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Vms(args) => vms::list(&args),
        Command::Pause(args) => vms::change(&args, Change::Pause),
        Command::Resume(args) => vms::change(&args, Change::Resume),
        Command::Stop(args) => vms::change(&args, Change::Stop),
        Command::Settle(args) => settle::run(&args),
        Command::Set(args) => set::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Whoever reads a command's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// Has it, and may be given more.
    There,
    /// Has closed the pipe, as `head` does when it has read enough.
    Gone,
}

/// Writes the text of `--help` and `--version`. Clap's own way to do that does not report when it fails.
fn print_help(help: &clap::Error) -> Result<Outcome, Failure> {
    written(help.print().and_then(|()| io::stdout().flush())).map(|_| Outcome::Fine)
}

/// Writes a command's result to stdout. A reader that has closed its end is no failure.
fn print(text: &str) -> Result<(), Failure> {
    print_to_reader(text).map(drop)
}

/// The same, for what goes on for as long as somebody reads it.
fn print_to_reader(text: &str) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// What came of writing to stdout.
fn written(result: io::Result<()>) -> Result<Reader, Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        result => result
            .advise("cannot write the result", "look at what stdout leads to")
            .map(|()| Reader::There),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        for outcome in [Outcome::Fine, Outcome::Corrupt, Outcome::Crashed, Outcome::Unsettled] {
            assert!(help.contains(&format!("\n  {}  ", outcome.code())), "{help}");
        }
    }
}
