//! Tests that need hardware virtualization, and tests that are to pass on it as they do on any other KVM: on the
//! machine itself if it has that, and otherwise in an emulated host.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use pagefold_amd_v_host::guest;
use pagefold_amd_v_host::hardware::has_hardware_virtualization;
use pagefold_amd_v_host::host::Host;
use pagefold_amd_v_host::image::{self, AGENT, Contents};
use pagefold_amd_v_host::machine::{MachineError, Processors};
use pagefold_amd_v_host::packages::Packages;
use pagefold_amd_v_host::programs::{self, Program};
use pagefold_amd_v_host::protocol::{Reply, Request};
use pagefold_dedup::ErrorChain;
use pagefold_tests::harness::command;

/// Test programs of `pagefold-tests`, all of whose tests are run.
const PROGRAMS: [&str; 5] = ["bytes_unchanged", "churn", "corruption_is_seen", "hardware", "linux"];

/// A test of theirs that is not run in an emulated host: the guests do too little in the time that one has.
const LEFT_OUT: [&str; 1] = ["no_write_is_lost_while_slots_are_moved_and_every_knob_is_turned"];

/// Those whose guests have interrupts.
const WITH_INTERRUPTS: [&str; 1] = ["linux"];

/// How long a test may take in an emulated host.
const LIMIT: Duration = Duration::from_mins(4);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A host runs one test at a time, and there is no use in two that share the machine.
    arguments.test_threads = Some(1);
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let programs = programs::build()?;
    let is_ours = |program: &&Program| program.package == "pagefold-tests";
    let ours: Vec<&Program> = programs.iter().filter(is_ours).collect();
    let is_emulated = !has_hardware_virtualization();
    // Kept until the tests are over.
    let scratch = tempfile::tempdir()?;
    let mut hosts = None;
    if !arguments.list {
        let packages = Packages::get()?;
        guest::write(&packages, scratch.path())?;
        if is_emulated {
            hosts = Some(Arc::new(Hosts::new(&packages, &ours, scratch.path())?));
        }
    }
    let mut trials = Vec::new();
    for program in ours.iter().filter(|program| PROGRAMS.contains(&program.name.as_str())) {
        let mut tests = programs::tests(&program.path)?;
        tests.retain(|test| !is_emulated || !LEFT_OUT.contains(&test.as_str()));
        for test in tests {
            let request = Request { program: program.path.display().to_string(), test };
            let name = format!("{}::{}", program.name, request.test);
            let (hosts, guest) = (hosts.clone(), scratch.path().to_owned());
            let has_interrupts = WITH_INTERRUPTS.contains(&program.name.as_str());
            trials.push(Trial::test(name, move || {
                let host = hosts.as_deref().map(|hosts| hosts.of(has_interrupts));
                verdict(host, &guest, &request)
            }));
        }
    }
    if is_emulated {
        trials.push(Trial::test("emulated_host::its_ends_are_failures_of_one_test", move || {
            hosts.as_deref().map_or(Ok(()), |hosts| ends_are_failures(&hosts.two))
        }));
    }
    Ok(libtest_mimic::run(arguments, trials).exit_code())
}

/// That a host that crashes or hangs fails the test that it ran, with its console, and not the next.
fn ends_are_failures(host: &Host) -> Result<(), Failed> {
    let run = |test: &str, limit| {
        host.run(&Request { program: AGENT.to_owned(), test: test.to_owned() }, limit)
    };
    let failed = run("fail", LIMIT)?;
    assert!(!failed.passed && failed.output.starts_with(b"it failed"), "{failed:?}");
    let crashed = run("crash", LIMIT);
    let Err(MachineError::Ended { what, console }) = &crashed else { panic!("{crashed:?}") };
    assert!(what == "crash" && console.contains("Kernel panic"), "{crashed:?}");
    let hung = run("hang", Duration::from_secs(1));
    assert!(matches!(hung, Err(MachineError::TimedOut { .. })), "{hung:?}");
    assert!(run("pass", LIMIT)?.passed);
    Ok(())
}

/// Emulated hosts, by how many processors they have.
struct Hosts {
    one: Host,
    two: Host,
}

impl Hosts {
    /// Hosts with these programs in them, which are not up yet; what guests boot from is in `scratch`.
    fn new(
        packages: &Packages,
        programs: &[&Program],
        scratch: &Path,
    ) -> Result<Self, Box<dyn Error>> {
        let image = write_image(packages, programs, scratch)?;
        let kernel = packages.host_kernel()?;
        let one = Host::new(kernel.clone(), image.clone(), Processors::One);
        Ok(Self { one, two: Host::new(kernel, image, Processors::Two) })
    }

    /// The one for guests that have interrupts, or none.
    fn of(&self, has_interrupts: bool) -> &Host {
        if has_interrupts { &self.one } else { &self.two }
    }
}

/// Writes the image that hosts boot from to `scratch`, and returns its path.
fn write_image(
    packages: &Packages,
    programs: &[&Program],
    scratch: &Path,
) -> Result<PathBuf, Box<dyn Error>> {
    let is_needed =
        |program: &&&Program| !program.is_test || PROGRAMS.contains(&program.name.as_str());
    let others: Vec<&Path> =
        programs.iter().filter(is_needed).map(|program| program.path.as_path()).collect();
    let agent = Path::new(env!("CARGO_BIN_EXE_host-agent"));
    let contents =
        Contents { agent, pagefold: command::executable(), guest: scratch, others: &others };
    let to = scratch.join("image");
    image::write(packages, &contents, &to)?;
    Ok(to)
}

fn verdict(host: Option<&Host>, guest: &Path, request: &Request) -> Result<(), Failed> {
    let reply = match host {
        Some(host) => host.run(request, LIMIT)?,
        None => here(guest, request)?,
    };
    if reply.passed {
        return Ok(());
    }
    Err(Failed::from(String::from_utf8_lossy(&reply.output)))
}

/// Runs a test on this machine.
fn here(guest: &Path, request: &Request) -> io::Result<Reply> {
    let mut program = Command::new(&request.program);
    program.env(guest::FOLDER, guest);
    program.args(["--exact", &request.test, "--include-ignored", "--nocapture"]);
    let output = program.output()?;
    Ok(Reply { passed: output.status.success(), output: [output.stdout, output.stderr].concat() })
}
