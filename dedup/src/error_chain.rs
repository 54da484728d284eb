//! An error with its causes, for a line of text.

use std::error::Error;
use std::fmt;
use std::iter;

/// An error, its cause, the cause of that, and so on. Displayed as `error: cause: cause`, in one line
/// if their messages are.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'error>(&'error (dyn Error + 'static));

impl<'error> ErrorChain<'error> {
    /// The chain that begins with `error`.
    pub fn new(error: &'error (dyn Error + 'static)) -> Self {
        Self(error)
    }

    /// The errors, each before its cause.
    pub fn errors(self) -> impl Iterator<Item = &'error (dyn Error + 'static)> {
        iter::successors(Some(self.0), |&error| error.source())
    }

    /// Their messages, without those that end the message before: some errors print their cause's.
    pub fn messages(self) -> Vec<String> {
        let mut messages: Vec<String> = self.errors().map(ToString::to_string).collect();
        messages.dedup_by(|cause, message| message.ends_with(cause.as_str()));
        messages
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages().join(": "))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("middle")]
    struct Middle(#[source] io::Error);

    /// Prints its cause's message.
    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it: {0}")]
    struct Echo(#[source] io::Error);

    #[test]
    fn an_error_is_followed_by_all_its_causes_in_order() {
        let error = Outer(Middle(io::Error::other("inner")));
        let chain = ErrorChain::new(&error);
        assert_eq!(chain.to_string(), "outer: middle: inner");
        assert_eq!(chain.messages(), ["outer", "middle", "inner"]);
        assert!(chain.errors().nth(2).is_some_and(<dyn Error>::is::<io::Error>));
        assert_eq!(chain.errors().count(), 3);
    }

    #[test]
    fn an_error_without_a_cause_is_its_message() {
        assert_eq!(ErrorChain::new(&io::Error::other("inner")).to_string(), "inner");
    }

    #[test]
    fn a_message_that_an_error_has_from_its_cause_is_there_once() {
        let error = Echo(io::Error::other("inner"));
        assert_eq!(ErrorChain::new(&error).to_string(), "cannot do it: inner");
        assert_eq!(ErrorChain::new(&error).errors().count(), 2);
    }
}
