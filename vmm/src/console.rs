//! What a guest prints, taken apart into lines and read.

use std::sync::Arc;
use std::time::Instant;

use pagefold_dedup::VmId;
use pagefold_devices::SerialOutput;
use pagefold_guest::report::{MAX_LINE_BYTES, Report, Tally};

use crate::dedup_host::FoldingWaker;
use crate::watch::Watch;

/// How many findings of wrong bytes are kept word for word: the first ones tell the most.
const MAX_CORRUPT_LINES: usize = 16;

/// What a guest has said so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct GuestWords {
    pub(crate) ready_at: Option<Instant>,
    pub(crate) tally: Option<Tally>,
    pub(crate) resting: bool,
    pub(crate) corrupt_lines: Vec<String>,
    /// Findings seen, whether kept or not.
    pub(crate) corrupt_seen: u64,
    pub(crate) panic: Option<String>,
}

impl GuestWords {
    /// Takes one line, said at `now`.
    pub(crate) fn hear(&mut self, line: &[u8], now: Instant) {
        match Report::parse(line) {
            Report::Ready { .. } => {
                self.ready_at.get_or_insert(now);
            }
            Report::Beat(tally) | Report::Done(tally) => self.tally = Some(tally),
            Report::Rest(tally) => {
                self.tally = Some(tally);
                self.resting = true;
            }
            Report::Corrupt(_) => {
                self.corrupt_seen = self.corrupt_seen.saturating_add(1);
                if self.corrupt_lines.len() < MAX_CORRUPT_LINES {
                    self.corrupt_lines.push(String::from_utf8_lossy(line).into_owned());
                }
            }
            Report::Panic(message) => self.panic = Some(message.to_owned()),
            Report::Unknown => {}
        }
    }

    /// Wrong pages: the guest's own count, or what it has already reported since.
    pub(crate) fn corrupt(&self) -> Option<u64> {
        let counted = self.tally.map(|tally| tally.corrupt);
        counted.max((self.corrupt_seen > 0).then_some(self.corrupt_seen))
    }
}

/// The output of a VM's serial port.
pub(crate) struct Console {
    vm: VmId,
    watch: Arc<Watch>,
    /// Woken when the guest is ready.
    folding: FoldingWaker,
    /// The line so far, or its beginning: a guest cannot make us keep more than that.
    line: Vec<u8>,
}

impl Console {
    pub(crate) fn new(vm: VmId, watch: Arc<Watch>, folding: FoldingWaker) -> Self {
        Self { vm, watch, folding, line: Vec::new() }
    }
}

impl SerialOutput for Console {
    fn byte(&mut self, byte: u8) {
        if byte != b'\n' {
            // One byte more than the longest line makes a line too long, which is all there is to
            // know about it.
            if self.line.len() <= MAX_LINE_BYTES {
                self.line.push(byte);
            }
            return;
        }
        log::debug!("VM {} says {}", self.vm, self.line.escape_ascii());
        if self.watch.hear(&self.line) {
            self.folding.wake();
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> GuestWords {
        let mut words = GuestWords::default();
        for line in lines {
            words.hear(line.as_bytes(), Instant::now());
        }
        words
    }

    const WRONG: &str =
        "CORRUPT page=17 offset=4 want=3f got=00 gpa=0x15f000 kind=common version=0";

    #[test]
    fn nothing_is_known_before_the_guest_says_it() {
        let words = heard(&["READY pages=12", "hello"]);
        assert!(words.ready_at.is_some());
        assert_eq!((words.tally, words.corrupt()), (None, None));
    }

    #[test]
    fn the_last_tally_counts_and_findings_since_then_too() {
        let words = heard(&["BEAT writes=1 verifications=2 corrupt=0"]);
        assert_eq!(words.corrupt(), Some(0));
        let words = heard(&[WRONG]);
        assert_eq!(words.corrupt(), Some(1));
        let words = heard(&["BEAT writes=1 verifications=2 corrupt=1", WRONG, WRONG]);
        assert_eq!(words.corrupt(), Some(2));
        assert_eq!(words.corrupt_lines, [WRONG, WRONG]);
    }

    #[test]
    fn a_guest_cannot_fill_our_memory() {
        let words = heard(&[WRONG; 100]);
        assert_eq!((words.corrupt_lines.len(), words.corrupt()), (MAX_CORRUPT_LINES, Some(100)));
        let mut console = Console::new(VmId(0), Arc::default(), FoldingWaker::default());
        for _ in 0..100_000 {
            console.byte(b'x');
        }
        assert_eq!(console.line.len(), MAX_LINE_BYTES + 1);
    }

    #[test]
    fn lines_are_heard_as_they_end() {
        let watch = Arc::new(Watch::default());
        let mut console = Console::new(VmId(0), Arc::clone(&watch), FoldingWaker::default());
        let say = |console: &mut Console, text: &str| text.bytes().for_each(|b| console.byte(b));
        say(&mut console, "READY pa");
        assert!(watch.words().ready_at.is_none());
        say(&mut console, "ges=1\nPANIC why\n");
        assert!(watch.words().ready_at.is_some());
        assert_eq!(watch.words().panic.as_deref(), Some("why"));
    }
}
