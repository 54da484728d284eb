//! Where logs go, and how much of them.

use std::env;
use std::fs::{self, File, FileType};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use env_logger::{Builder, Env, Target, WriteStyle};
use log::LevelFilter;

use super::failure::{Advise, Failure};
use super::live::{self, AboveLine};

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Log more: -v what happens, -vv and -vvv details (`RUST_LOG` says it for each module)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Append logs to a file, and not to stderr
    #[arg(long, global = true, value_name = "PATH")]
    log_file: Option<PathBuf>,
}

/// Begins to log.
pub(super) fn init(args: &Args) -> Result<(), Failure> {
    let mut builder = Builder::from_env(Env::default().default_filter_or("warn"));
    let level = match args.verbose {
        0 => None,
        1 => Some(LevelFilter::Info),
        2 => Some(LevelFilter::Debug),
        _ => Some(LevelFilter::Trace),
    };
    if let Some(level) = level {
        builder.filter_level(LevelFilter::Warn).filter_module("pagefold", level);
    }
    if let Some(path) = &args.log_file {
        builder.target(Target::Pipe(Box::new(append(path)?))).write_style(WriteStyle::Never);
    } else {
        builder.target(Target::Pipe(Box::new(AboveLine)));
        if env::var_os("RUST_LOG_STYLE").is_none() {
            let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let is_colored = live::is_capable(&io::stderr()) && !no_color;
            let style = if is_colored { WriteStyle::Always } else { WriteStyle::Never };
            builder.write_style(style);
        }
    }
    builder.init();
    Ok(())
}

/// Whether a file of this kind takes what is written without a reader.
fn takes_all(kind: FileType) -> bool {
    // A terminal and /dev/null are character devices.
    kind.is_file() || kind.is_char_device()
}

/// A file that logs are appended to. The first record that it does not take is reported on stderr: the command
/// goes on.
struct LogFile {
    file: File,
    path: PathBuf,
    has_failed: bool,
}

impl Write for LogFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.file.write(record).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted
                && !mem::replace(&mut self.has_failed, true)
            {
                let what = format!("cannot write to the log file {}", self.path.display());
                let advice = "logs are lost until it can be; without --log-file they go to stderr";
                // With stderr gone, too, nobody is left.
                let _ = live::print(&Failure::caused(what, error, advice).to_string());
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> Result<LogFile, Failure> {
    // A pipe that nobody reads would be waited for, or hold up whoever logs when it is full.
    if fs::metadata(path).is_ok_and(|metadata| !takes_all(metadata.file_type())) {
        return Err(Failure::new(
            format!("cannot log to {}: it is not a regular file", path.display()),
            "give a file; without --log-file logs go to stderr, which may be a pipe",
        ));
    }
    let what = format!("cannot open the log file {}", path.display());
    let advice = "give a file that can be written, in a directory that is there";
    let file = File::options().append(true).create(true).open(path).advise(&what, advice)?;
    Ok(LogFile { file, path: path.to_owned(), has_failed: false })
}
