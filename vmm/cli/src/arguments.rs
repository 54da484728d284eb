//! The command line as it is read, and as errors may repeat it.

use std::borrow::Cow;
use std::env;
use std::ffi::OsString;

use clap::Parser;

use super::text::printable;

/// Reads the process's command line.
///
/// # Errors
///
/// When it makes no sense, or asks for the help or the version. No control character of an argument is in
/// the message: clap puts arguments into text that is styled already, where they cannot be escaped any more.
pub(super) fn parse<P: Parser>() -> Result<P, clap::Error> {
    let args: Vec<OsString> = env::args_os().collect();
    P::try_parse_from(&args).map_err(|error| {
        let Some(escaped) = escaped(&args) else { return error };
        // What is wrong stays wrong when it is escaped, but for text that is not UTF-8: the message of that
        // repeats nothing.
        P::try_parse_from(escaped).err().unwrap_or(error)
    })
}

/// The arguments with their control characters escaped; `None` if they have none.
fn escaped(args: &[OsString]) -> Option<Vec<OsString>> {
    let escape = |arg: &OsString| match printable(&arg.to_string_lossy()) {
        Cow::Borrowed(_) => arg.clone(),
        Cow::Owned(escaped) => escaped.into(),
    };
    let escaped: Vec<OsString> = args.iter().map(escape).collect();
    (escaped != args).then_some(escaped)
}
