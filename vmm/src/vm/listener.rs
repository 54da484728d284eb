//! Where a guest's lines go.

use std::sync::Arc;

use crate::console::Listener;
use crate::dedup_host::FoldingWaker;
use crate::extension::GuestExtension;
use crate::watch::Watch;

/// Passes a guest's lines on to its extension, and wakes folding when the guest is ready.
pub(crate) struct GuestListener {
    pub(crate) extension: Arc<dyn GuestExtension>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) folding: FoldingWaker,
}

impl Listener for GuestListener {
    fn on_line(&mut self, line: &[u8]) {
        if self.watch.note(|| self.extension.take_line(line)) {
            self.folding.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::ReadyMarker;

    #[test]
    fn a_marker_alone_in_its_line_makes_a_guest_ready() {
        let watch = Arc::new(Watch::default());
        let mut listener = GuestListener {
            extension: Arc::new(ReadyMarker),
            watch: Arc::clone(&watch),
            folding: FoldingWaker::default(),
        };
        for line in ["", "READY to go", "not READY", "CORRUPT page=1"] {
            listener.on_line(line.as_bytes());
        }
        assert!(watch.now().ready_at.is_none());
        listener.on_line(b"READY\r");
        assert!(watch.now().ready_at.is_some());
    }
}
