//! The command line as it is read, and as errors may repeat it.

use std::borrow::Cow;
use std::env;
use std::ffi::OsString;

use clap::{ColorChoice, Parser};

use super::live::takes_escapes;
use super::text::printable;

/// Reads the process's command line.
///
/// # Errors
///
/// When it makes no sense, or asks for the help or the version. No control character of an argument is in
/// the message: clap puts arguments into text that is styled already, where they cannot be escaped any more.
pub(super) fn parse<P: Parser>() -> Result<P, clap::Error> {
    let args: Vec<OsString> = env::args_os().collect();
    try_parse(&args).map_err(|error| {
        let Some(escaped) = escaped(&args) else { return error };
        // What is wrong stays wrong when it is escaped, but for text that is not UTF-8: the message of that
        // repeats nothing.
        try_parse::<P>(&escaped).err().unwrap_or(error)
    })
}

/// Clap's own `try_parse_from`, which takes a terminal that has no name for one with colours, and any
/// terminal where `CI` is set.
fn try_parse<P: Parser>(args: &[OsString]) -> Result<P, clap::Error> {
    let is_forced = env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty());
    let color = if takes_escapes() || is_forced { ColorChoice::Auto } else { ColorChoice::Never };
    let mut command = P::command().color(color);
    let mut matches = command.try_get_matches_from_mut(args)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
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
