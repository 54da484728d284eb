//! A failure as a person sees it: what, why, and what to do.

use std::error::Error;
use std::fmt;
use std::io;

use pagefold::limits::{self, RoomError};
use pagefold_dedup::ErrorChain;
use vm_memory::mmap::MmapRegionError;

use super::text::printable;

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    what: String,
    causes: Vec<String>,
    advice: String,
    code: u8,
}

/// The exit code of a command that could not do it.
const CANNOT: u8 = 1;
/// The exit code of a command line that makes no sense.
const USAGE: u8 = 2;

impl Failure {
    /// A failure whose cause is `what` itself.
    pub(super) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), advice: advice.into(), code: CANNOT }
    }

    /// A failure of whoever wrote the command line.
    pub(super) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(what, advice) }
    }

    /// A failure for want of something that is limited.
    pub(super) fn limited(what: impl Into<String>, lacking: &RoomError) -> Self {
        Self { causes: vec![lacking.to_string()], ..Self::new(what, lacking.advice()) }
    }

    /// A failure with the whole chain of its causes. If the kernel refused something for a limit of
    /// this process, the advice is about that limit instead.
    pub(super) fn caused(
        what: impl Into<String>,
        cause: &(dyn Error + 'static),
        advice: impl Into<String>,
    ) -> Self {
        let causes = ErrorChain::new(cause).messages();
        let advice = limit_advice(cause).unwrap_or_else(|| advice.into());
        Self { what: what.into(), causes, advice, code: CANNOT }
    }

    /// The process's exit code.
    pub(super) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of files and answers of other processes are in there.
        write!(f, "error: {}", printable(&self.what))?;
        for cause in &self.causes {
            write!(f, ": {}", printable(cause))?;
        }
        write!(f, "\nhelp: {}\n", printable(&self.advice))
    }
}

/// What to do about an error that comes from a limit of this process.
pub(super) fn limit_advice(error: &(dyn Error + 'static)) -> Option<String> {
    ErrorChain::new(error).errors().find_map(|error| limits::advice(of_system(error)?))
}

/// The kernel's error, also where it is not the cause of what has it (vm-memory's).
fn of_system<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error io::Error> {
    match error.downcast_ref() {
        Some(MmapRegionError::Mmap(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// Turns an error into a failure on the way up.
pub(super) trait Advise<T> {
    /// Adds what could not be done, and what to do about it.
    fn advise(self, what: &str, advice: &str) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> Advise<T> for Result<T, E> {
    fn advise(self, what: &str, advice: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::caused(what, &error, advice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn advice_is_about_the_limit_that_an_error_comes_from() {
        let error = Outer(io::Error::from_raw_os_error(24));
        let failure = Failure::caused("cannot do it", &error, "lower something").to_string();
        assert!(failure.contains("help: raise the limit on open files"), "{failure}");
    }

    #[test]
    fn control_characters_reach_no_terminal() {
        let failure = Failure::new("cannot open a\x1b[31m\nb", "give c\u{9b}d");
        assert_eq!(
            failure.to_string(),
            "error: cannot open a\\u{1b}[31m\\nb\nhelp: give c\\u{9b}d\n"
        );
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Echo(#[source] std::io::Error);

    #[test]
    fn an_error_that_says_what_its_cause_says_is_said_once() {
        let failure = Failure::caused("no", &Echo(std::io::Error::other("inner")), "yes");
        assert_eq!(failure.to_string(), "error: no: inner\nhelp: yes\n");
    }

    #[test]
    fn the_whole_chain_is_one_line_and_the_advice_another() {
        let error = Outer(std::io::Error::other("inner"));
        let failure = Failure::caused("cannot do it", &error, "do it by hand");
        assert_eq!(failure.to_string(), "error: cannot do it: outer: inner\nhelp: do it by hand\n");
        assert_eq!(failure.code(), 1);
        assert_eq!(Failure::usage("what?", "this").code(), 2);
    }
}
