//! What the built-in guest has reported so far.

use pagefold_guest::report::{Report, Tally};

use super::BuiltinStatus;

/// How many findings of wrong bytes are kept word for word: the first ones tell the most.
const MAX_CORRUPT_LINES: usize = 16;

/// What a guest has reported so far.
#[derive(Debug, Default)]
pub(super) struct Reports {
    tally: Option<Tally>,
    pub(super) resting: bool,
    corrupt_lines: Vec<String>,
    /// Findings seen, whether kept or not.
    corrupt_seen: u64,
    pub(super) panic: Option<String>,
}

impl Reports {
    /// Takes one line; true if it reports that the guest is ready.
    pub(super) fn take_line(&mut self, line: &[u8]) -> bool {
        match Report::parse(line) {
            Report::Ready { .. } => return true,
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
        false
    }

    /// Wrong pages: the guest's own count, or what it has already reported since.
    fn corrupt(&self) -> Option<u64> {
        let counted = self.tally.map(|tally| tally.corrupt);
        counted.max((self.corrupt_seen > 0).then_some(self.corrupt_seen))
    }

    /// All of it, for a VM's status.
    pub(super) fn status(&self) -> BuiltinStatus {
        BuiltinStatus {
            resting: self.resting,
            writes: self.tally.map(|tally| tally.writes),
            verifications: self.tally.map(|tally| tally.verifications),
            corrupt: self.corrupt(),
            corrupt_lines: self.corrupt_lines.clone(),
            panic: self.panic.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known after these lines, and whether the guest is ready.
    fn after(lines: &[&str]) -> (Reports, bool) {
        let mut reports = Reports::default();
        let ready_count = lines.iter().filter(|line| reports.take_line(line.as_bytes())).count();
        (reports, ready_count > 0)
    }

    const WRONG: &str =
        "CORRUPT page=17 offset=4 want=3f got=00 gpa=0x15f000 kind=common version=0";

    #[test]
    fn nothing_is_known_before_the_guest_reports_it() {
        let (reports, is_ready) = after(&["READY pages=12", "hello"]);
        assert!(is_ready);
        assert_eq!((reports.tally, reports.corrupt()), (None, None));
        assert_eq!(reports.status(), BuiltinStatus::default());
    }

    #[test]
    fn the_last_tally_counts_and_findings_since_then_too() {
        let (reports, is_ready) = after(&["BEAT writes=1 verifications=2 corrupt=0"]);
        assert_eq!((reports.corrupt(), is_ready), (Some(0), false));
        let (reports, _) = after(&[WRONG]);
        assert_eq!(reports.corrupt(), Some(1));
        let (reports, _) = after(&["BEAT writes=1 verifications=2 corrupt=1", WRONG, WRONG]);
        assert_eq!(reports.corrupt(), Some(2));
        assert_eq!(reports.corrupt_lines, [WRONG, WRONG]);
    }

    #[test]
    fn findings_of_a_guest_cannot_fill_our_memory() {
        let (reports, _) = after(&[WRONG; 100]);
        assert_eq!(
            (reports.corrupt_lines.len(), reports.corrupt()),
            (MAX_CORRUPT_LINES, Some(100))
        );
    }
}
