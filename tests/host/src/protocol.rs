//! What goes between a test outside and the agent inside: over the second serial port, one test at a time.
//!
//! The agent begins with [`READY`]. A request is a line: the program's path, a tab, the test's name. A reply is a
//! line with `ok` or `failed`, a space and a number of bytes, and then so many bytes of output.

use std::io::{self, BufRead, Write};

/// The agent's first line.
pub const READY: &str = "READY";

/// A test to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The program that has it.
    pub program: String,
    /// Its name there.
    pub test: String,
}

/// How a test has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Whether it passed.
    pub passed: bool,
    /// What its program wrote.
    pub output: Vec<u8>,
}

impl Request {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// The port's.
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        writeln!(to, "{}\t{}", self.program, self.test)?;
        to.flush()
    }

    /// Reads the next one; `None` at the end.
    ///
    /// # Errors
    ///
    /// The port's, or that a line is no request.
    pub fn receive(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(line) = read_line(from)? else { return Ok(None) };
        let (program, test) = line.split_once('\t').ok_or_else(|| malformed("request", &line))?;
        Ok(Some(Self { program: program.to_owned(), test: test.to_owned() }))
    }
}

impl Reply {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// The port's.
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let word = if self.passed { "ok" } else { "failed" };
        writeln!(to, "{word} {}", self.output.len())?;
        to.write_all(&self.output)?;
        to.flush()
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// The port's, that it ends, or that what comes is no reply.
    pub fn receive(from: &mut impl BufRead) -> io::Result<Self> {
        let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (word, len) = line.split_once(' ').ok_or_else(|| malformed("reply", &line))?;
        let passed = match word {
            "ok" => true,
            "failed" => false,
            _ => return Err(malformed("reply", &line)),
        };
        let mut output = vec![0; len.parse().map_err(|_| malformed("reply", &line))?];
        from.read_exact(&mut output)?;
        Ok(Self { passed, output })
    }
}

/// The next line without its end; `None` when there is none.
///
/// # Errors
///
/// The port's.
pub fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = from.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end().to_owned()))
}

fn malformed(what: &str, line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no {what}: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_arrive_as_they_were_sent() {
        let request = Request { program: "/bin/x".to_owned(), test: "a::b".to_owned() };
        let replies = [
            Reply { passed: true, output: Vec::new() },
            Reply { passed: false, output: b"a\nb \xff".to_vec() },
        ];
        let mut bytes = Vec::new();
        request.send(&mut bytes).unwrap();
        for reply in &replies {
            reply.send(&mut bytes).unwrap();
        }
        let mut from = bytes.as_slice();
        assert_eq!(Request::receive(&mut from).unwrap(), Some(request));
        for reply in replies {
            assert_eq!(Reply::receive(&mut from).unwrap(), reply);
        }
        assert_eq!(Request::receive(&mut from).unwrap(), None);
        assert!(Reply::receive(&mut from).is_err());
    }

    #[test]
    fn what_is_neither_is_refused_with_what_came() {
        for line in ["hm\n", "ok\n", "ok x\n", "fine 3\nabc"] {
            let error = Reply::receive(&mut line.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("no reply"), "{error}");
        }
        assert!(Request::receive(&mut "hm\n".as_bytes()).is_err());
        assert!(Reply::receive(&mut "ok 3\nab".as_bytes()).is_err(), "it is cut short");
    }
}
