//! How far a long analysis has come: a line on a terminal, and nothing anywhere else.

use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::Terminal;
use crate::live;

/// What the line is on terminals of at least so many columns: what does not fit is left out, and the bar takes what the
/// rest leaves.
const STYLES: [(usize, &str); 4] = [
    (
        78,
        "{msg} [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, \
         {eta} left",
    ),
    (54, "{msg} {binary_bytes} of {binary_total_bytes}, {eta} left"),
    (27, "{msg} {percent}%, {eta} left"),
    (5, "{percent}%"),
];

/// The line. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins to do something with so many bytes.
    pub(super) fn new(doing: &'static str, total_bytes: u64) -> Self {
        if !live::is_capable(&io::stderr()) {
            return Self::hidden();
        }
        let target = ProgressDrawTarget::term_like(Box::new(Terminal));
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_message(doing);
        let columns = live::columns();
        let fitting = STYLES.iter().find(|&&(least, _)| columns >= least);
        let style = fitting.map_or("", |&(_, style)| style);
        Self(match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            // The library's own does as well.
            Err(_) => bar,
        })
    }

    /// One that nobody sees.
    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// So many bytes more have been done.
    pub(super) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

#[cfg(test)]
impl Progress {
    /// How many bytes have been done.
    pub(super) fn done_bytes(&self) -> u64 {
        self.0.position()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
