//! The terminal that stderr leads to, for a bar: as wide as it is, whatever stdout leads to.

use std::io::{self, Write};

use indicatif::TermLike;

use crate::live;

/// Standard error. What is written to it is one line, so there is nowhere to move to but its start.
#[derive(Debug)]
pub(super) struct Terminal;

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        // A cursor that goes beyond the last column would begin another line.
        u16::try_from(live::columns() - 1).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, rows: usize) -> io::Result<()> {
        self.moved(rows, 'A')
    }

    fn move_cursor_down(&self, rows: usize) -> io::Result<()> {
        self.moved(rows, 'B')
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.moved(columns, 'C')
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.moved(columns, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stderr(), "{text}")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        write!(io::stderr(), "{text}")
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str(live::CLEAR_LINE)
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl Terminal {
    fn moved(&self, count: usize, direction: char) -> io::Result<()> {
        if count > 0 { self.write_str(&format!("\x1b[{count}{direction}")) } else { Ok(()) }
    }
}
