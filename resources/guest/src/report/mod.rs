//! The lines the guest prints on the serial port.
//!
//! ```text
//! READY pages=15881
//! BEAT writes=120 verifications=40960 corrupt=0
//! REST writes=130 verifications=50000 corrupt=0
//! CORRUPT page=17 offset=4 want=3f got=00 gpa=0x15f000 kind=common version=0
//! DONE writes=130 verifications=65881 corrupt=1
//! PANIC message
//! ```
//!
//! A line ends with `\n`. Fields are in this order, single spaces between them, decimal numbers
//! without leading zeroes except where shown in hexadecimal. The guest prints a [`Report`] by its
//! `Display`; the host parses it with [`Report::parse`], which takes nothing that `Display` does
//! not print: a guest is not trusted to write well.

mod parse;

use core::fmt;

use crate::pattern::ContentKind;

/// The longest line that is looked at; a longer one is [`Report::Unknown`].
pub const MAX_LINE_BYTES: usize = 256;

/// What the guest has counted since it was ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages written: with new content, with scratch content, or back.
    pub writes: u64,
    /// Pages verified.
    pub verifications: u64,
    /// Pages found wrong, each counted once: the guest repairs what it has reported.
    pub corrupt: u64,
}

/// A wrong byte, the first of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Index of the page in the heap.
    pub page: u32,
    /// Offset of the byte in the page.
    pub offset: u16,
    /// What the byte must be.
    pub want: u8,
    /// What the byte is.
    pub got: u8,
    /// Guest-physical address of the page.
    pub gpa: u64,
    /// What the page must hold.
    pub kind: ContentKind,
    /// How often the page had been rewritten.
    pub version: u32,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// All pages are written and the workload starts.
    Ready {
        /// Pages in the heap.
        pages: u32,
    },
    /// A heartbeat.
    Beat(Tally),
    /// The guest was commanded to rest, and every page now holds its resting content.
    Rest(Tally),
    /// A page was wrong.
    Corrupt(Corruption),
    /// The guest has finished; it exits next.
    Done(Tally),
    /// The guest gave up; it exits next. Printable ASCII.
    Panic(&'a str),
    /// Anything else.
    Unknown,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, verifications, corrupt } = self;
        write!(f, "writes={writes} verifications={verifications} corrupt={corrupt}")
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page, offset, want, got, gpa, kind, version } = self;
        write!(
            f,
            "page={page} offset={offset} want={want:02x} got={got:02x} gpa={gpa:#x} kind={} \
             version={version}",
            kind.name()
        )
    }
}

/// Writes the line without its `\n`; nothing for [`Report::Unknown`].
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { pages } => write!(f, "READY pages={pages}"),
            Self::Beat(tally) => write!(f, "BEAT {tally}"),
            Self::Rest(tally) => write!(f, "REST {tally}"),
            Self::Corrupt(corruption) => write!(f, "CORRUPT {corruption}"),
            Self::Done(tally) => write!(f, "DONE {tally}"),
            Self::Panic(message) => write!(f, "PANIC {message}"),
            Self::Unknown => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
