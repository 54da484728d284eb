//! Where a guest's lines go.

use std::sync::Arc;

use crate::console::Listener;
use crate::dedup_host::FoldingWaker;
use crate::watch::Watch;

/// Keeps what a guest reports where it is waited for, and wakes folding when the guest is ready.
pub(crate) struct ReportListener {
    pub(crate) watch: Arc<Watch>,
    pub(crate) folding: FoldingWaker,
}

impl Listener for ReportListener {
    fn on_line(&mut self, line: &[u8]) {
        if self.watch.take_line(line) {
            self.folding.wake();
        }
    }
}

/// The line by which a guest of another kind reports that it is ready.
const READY_MARKER: &[u8] = b"READY";

/// Waits for the line by which a guest reports that it is ready, and wakes folding then.
pub(crate) struct MarkerListener {
    pub(crate) watch: Arc<Watch>,
    pub(crate) folding: FoldingWaker,
}

impl Listener for MarkerListener {
    fn on_line(&mut self, line: &[u8]) {
        // A terminal's lines end with two characters.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line == READY_MARKER && self.watch.note_ready() {
            self.folding.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use pagefold_dedup::VmId;
    use pagefold_devices::SerialOutput;

    use super::*;
    use crate::builtin;
    use crate::console::Console;

    #[test]
    fn a_marker_alone_in_its_line_makes_a_guest_ready() {
        let watch = Arc::new(Watch::default());
        let mut listener =
            MarkerListener { watch: Arc::clone(&watch), folding: FoldingWaker::default() };
        for line in ["", "READY to go", "not READY", "CORRUPT page=1"] {
            listener.on_line(line.as_bytes());
        }
        assert!(watch.now().ready_at.is_none());
        listener.on_line(b"READY\r");
        assert!(watch.now().ready_at.is_some());
    }

    #[test]
    fn lines_are_taken_as_they_end() {
        let watch = Arc::new(Watch::default());
        let listener =
            ReportListener { watch: Arc::clone(&watch), folding: FoldingWaker::default() };
        let mut console = builtin::output(VmId(0), Box::new(listener));
        let print = |console: &mut Console, text: &str| text.bytes().for_each(|b| console.byte(b));
        print(&mut console, "READY pa");
        assert!(watch.now().ready_at.is_none());
        print(&mut console, "ges=1\nPANIC why\n");
        assert!(watch.now().ready_at.is_some());
        assert_eq!(watch.now().reports.panic.as_deref(), Some("why"));
    }
}
