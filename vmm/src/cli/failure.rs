//! A failure as a person sees it: what, why, and what to do.

use std::error::Error;
use std::fmt;

/// Why a command could not do what it was asked.
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

    /// A failure with the whole chain of its causes.
    pub(super) fn caused(
        what: impl Into<String>,
        cause: &dyn Error,
        advice: impl Into<String>,
    ) -> Self {
        let mut causes = vec![cause.to_string()];
        let mut next = cause.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self { what: what.into(), causes, advice: advice.into(), code: CANNOT }
    }

    /// The process's exit code.
    pub(super) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        write!(f, "\nhelp: {}\n", self.advice)
    }
}

/// Turns an error into a failure on the way up.
pub(super) trait Advise<T> {
    /// Says what could not be done, and what to do about it.
    fn advise(self, what: &str, advice: &str) -> Result<T, Failure>;
}

impl<T, E: Error> Advise<T> for Result<T, E> {
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
    fn the_whole_chain_is_one_line_and_the_advice_another() {
        let error = Outer(std::io::Error::other("inner"));
        let failure = Failure::caused("cannot do it", &error, "do it by hand");
        assert_eq!(failure.to_string(), "error: cannot do it: outer: inner\nhelp: do it by hand\n");
        assert_eq!(failure.code(), 1);
        assert_eq!(Failure::usage("what?", "this").code(), 2);
    }
}
