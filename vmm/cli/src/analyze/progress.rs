//! How far a long analysis has come: a line on a terminal, and nothing anywhere else.

use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::live;

const STYLE: &str = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, \
                     {binary_bytes_per_sec}, {eta} left";

/// The line. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Begins to do something with so many bytes.
    pub(super) fn new(doing: &'static str, total_bytes: u64) -> Self {
        if !live::is_capable(&io::stderr()) {
            return Self::hidden();
        }
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target).with_message(doing);
        Self(match ProgressStyle::with_template(STYLE) {
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
