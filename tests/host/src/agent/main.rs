//! Runs the tests that it is sent, in the host: requests on stdin, replies on stdout. With a test's arguments it
//! is a test program itself, whose tests end in all ways that there are.

use std::io::{self, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use pagefold_amd_v_host::protocol::{READY, Reply, Request};

fn main() -> ExitCode {
    if let Some(test) = env::args().skip_while(|argument| argument != "--exact").nth(1) {
        return end(&test);
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // On the console, of which the end is shown when a host has ended before its time.
            let _ = writeln!(io::stderr(), "host-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let (mut requests, mut replies) = (BufReader::new(io::stdin()), io::stdout());
    writeln!(replies, "{READY}")?;
    replies.flush()?;
    while let Some(request) = Request::receive(&mut requests)? {
        let reply = run(&request).unwrap_or_else(|error| Reply {
            passed: false,
            output: format!("cannot run {}: {error}", request.program).into_bytes(),
        });
        reply.send(&mut replies)?;
    }
    Ok(())
}

/// Runs one test to its end, with both of its outputs as one.
fn run(request: &Request) -> io::Result<Reply> {
    let (mut reader, writer) = io::pipe()?;
    let mut child = Command::new(&request.program)
        .args(["--exact", &request.test, "--include-ignored", "--nocapture"])
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let mut output = Vec::new();
    // Ends with the last process that has the pipe.
    reader.read_to_end(&mut output)?;
    Ok(Reply { passed: child.wait()?.success(), output })
}

/// Ends like a test that passes, fails, never does, or takes the host with it.
fn end(test: &str) -> ExitCode {
    match test {
        "pass" => return ExitCode::SUCCESS,
        "hang" => thread::sleep(Duration::MAX),
        "crash" => drop(fs::write("/proc/sysrq-trigger", "c")),
        _ => {}
    }
    let _ = writeln!(io::stderr(), "it failed");
    ExitCode::FAILURE
}
