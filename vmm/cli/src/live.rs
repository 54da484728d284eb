//! One line at the bottom of a terminal that is rewritten, and logs above it.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::sync::{Mutex, PoisonError};

/// Goes to the start of the line and clears it.
pub(super) const CLEAR_LINE: &str = "\r\x1b[K";

/// Columns of a terminal that does not report how many it has.
const DEFAULT_COLUMNS: usize = 80;

/// What stands on the terminal's last line.
static LINE: Mutex<String> = Mutex::new(String::new());

/// Whether a stream leads to a terminal that can go back and clear what it shows.
pub(super) fn is_capable(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && takes_escapes()
}

/// Whether the terminal is of a kind that knows escape sequences.
pub(super) fn takes_escapes() -> bool {
    let term = env::var_os("TERM").unwrap_or_default();
    !term.is_empty() && term != "dumb"
}

/// Columns of the terminal that stderr leads to.
pub(super) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    // A serial line has none; some report their columns only.
    let columns = size.ok().map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0);
    columns.unwrap_or(DEFAULT_COLUMNS)
}

/// Shows a line in place of the last one; an empty one shows nothing.
///
/// # Errors
///
/// When stderr takes nothing.
pub(super) fn show(text: &str) -> io::Result<()> {
    let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    text.clone_into(&mut line);
    let mut stderr = io::stderr().lock();
    stderr.write_all(format!("{CLEAR_LINE}{text}").as_bytes())?;
    stderr.flush()
}

/// Writes lines to stderr, in place of the one that is rewritten if there is one.
///
/// # Errors
///
/// When stderr takes nothing.
pub(super) fn print(lines: &str) -> io::Result<()> {
    let line = mem::take(&mut *LINE.lock().unwrap_or_else(PoisonError::into_inner));
    let clear = if line.is_empty() { "" } else { CLEAR_LINE };
    io::stderr().write_all(format!("{clear}{lines}").as_bytes())
}

/// As many parts, separated by commas, as fit into a line of `columns`, the last column excepted: a
/// cursor that goes beyond it would begin another line.
pub(super) fn fit(parts: &[String], columns: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let separator = if line.is_empty() { "" } else { ", " };
        let len = line.chars().count() + separator.len() + part.chars().count();
        if len >= columns {
            break;
        }
        line = format!("{line}{separator}{part}");
    }
    if line.is_empty() {
        line = parts.iter().flat_map(|part| part.chars()).take(columns.saturating_sub(1)).collect();
    }
    line
}

/// Where logs go: to stderr, above the line.
pub(super) struct AboveLine;

impl Write for AboveLine {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = io::stderr().lock();
        if line.is_empty() {
            stderr.write_all(record)?;
        } else {
            let cleared = [CLEAR_LINE.as_bytes(), record, line.as_bytes()].concat();
            stderr.write_all(&cleared)?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_fills_its_last_column() {
        let parts = ["12 s running".to_owned(), "2 of 2 ready".to_owned(), "0 corrupt".to_owned()];
        let all = "12 s running, 2 of 2 ready, 0 corrupt";
        for columns in 0..100 {
            let line = fit(&parts, columns);
            assert!(line.len() < columns.max(1), "{columns}: {line}");
            assert!(all.starts_with(&line), "{line}");
        }
        assert_eq!(fit(&parts, 80), all);
        assert_eq!(fit(&parts, all.len()), "12 s running, 2 of 2 ready");
    }
}
