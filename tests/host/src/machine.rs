//! QEMU with a host in it, its console, and its end.

use std::fs;
use std::io::{self, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::protocol::{READY, Reply, Request, read_line};

const QEMU: &str = "qemu-system-x86_64";

/// How long a host may take until its agent is there, on a busy machine: it takes about ten seconds on an idle one.
const BOOT_LIMIT: Duration = Duration::from_mins(4);

/// How often it is looked whether QEMU has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Lines of the console that are shown when something went wrong: a crash of the kernel has some sixty.
const SHOWN_LINES: usize = 100;

const MEMORY_MIB: u32 = 3000;

const CMDLINE: &str = "console=ttyS0 panic=-1 quiet";

/// Has the host's timer expire over and over without being armed anew, as hosts lose interrupts.
///
/// While an interrupt waits for a guest that has them disabled (which prints what it panics of, say), KVM has `V_IRQ`
/// set whenever it enters that guest. There QEMU (7.2; `helper_vmrun`) sets a bit of `interrupt_request` with a plain
/// instruction and without its lock, as another thread of its may set the bit of the host's timer: that one is lost,
/// and the interrupt stays in the local APIC's IRR until the next one comes. A timer that is armed by its own interrupt
/// never has a next one: the host halts for good as soon as it is idle.
const PERIODIC_TICK: &str = "highres=off nohz=off";

/// How many processors a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processors {
    /// One: for guests that have interrupts.
    ///
    /// When KVM injects an interrupt into a guest, QEMU (7.2 and later ones) also leaves it in `exception_index`
    /// (`helper_vmrun`) until the guest is left. If the emulator's thread is made to leave off before that, it
    /// delivers it once more, also to a guest that has interrupts disabled, which soon waits for a lock that it
    /// holds. With one processor only that processor's own interrupts make the thread leave off, and for
    /// these the guest is left first; with several, everybody's do.
    ///
    /// It also loses interrupts of the host's own: see `PERIODIC_TICK`.
    One,
    /// Two, whose programs really race: for guests without interrupts.
    Two,
}

impl Processors {
    fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The command line of the host's kernel.
    fn cmdline(self) -> String {
        match self {
            Self::One => format!("{CMDLINE} {PERIODIC_TICK}"),
            Self::Two => CMDLINE.to_owned(),
        }
    }
}

/// A host that is up.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    agent: BufReader<UnixStream>,
    folder: TempDir,
}

/// Why a host did not boot, or did not run a test to its end.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// There is no QEMU.
    #[error("cannot run {QEMU}: install it (on Debian: qemu-system-x86 qemu-system-data seabios)")]
    Qemu(#[source] io::Error),
    /// Files or sockets for it.
    #[error("cannot prepare an emulated host")]
    Prepare(#[source] io::Error),
    /// It ended, or its agent did.
    #[error("the emulated host ended while {what}\n{console}")]
    Ended {
        /// What it was to do.
        what: String,
        /// The end of its console.
        console: String,
    },
    /// It took too long.
    #[error("the emulated host did not come to the end of {what} within {limit:?}\n{console}")]
    TimedOut {
        /// What it was to do.
        what: String,
        /// The time that it had.
        limit: Duration,
        /// The end of its console.
        console: String,
    },
    /// What came from its agent made no sense.
    #[error("the emulated host's agent failed while {what}: {source}\n{console}")]
    Agent {
        /// What it was to do.
        what: String,
        /// What is wrong.
        source: io::Error,
        /// The end of its console.
        console: String,
    },
}

impl Machine {
    /// Boots a kernel with an image on so many processors, and waits until the agent in it is there.
    ///
    /// # Errors
    ///
    /// When QEMU is missing, or the host does not boot; no process is left behind.
    pub fn boot(kernel: &Path, image: &Path, processors: Processors) -> Result<Self, MachineError> {
        let folder = tempfile::tempdir().map_err(MachineError::Prepare)?;
        let socket = folder.path().join("agent");
        let listener = UnixListener::bind(&socket).map_err(MachineError::Prepare)?;
        listener.set_nonblocking(true).map_err(MachineError::Prepare)?;
        let errors = fs::File::create(folder.path().join("qemu")).map_err(MachineError::Prepare)?;
        let mut qemu = Command::new(QEMU)
            // One thread for all processors: nothing races in the emulator itself. With a thread for each, hosts crash
            // in breakpoints that their kernel has put into its own code and taken away again.
            .args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "EPYC-v3,+svm,+npt"])
            .args(["-smp", &processors.count().to_string(), "-m", &MEMORY_MIB.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console(&folder).display()))
            .arg("-serial")
            .arg(format!("unix:{}", socket.display()))
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(image)
            .args(["-append", &processors.cmdline()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(MachineError::Qemu)?;
        let connection = match connect(&listener, &mut qemu) {
            Ok(connection) => connection,
            Err(source) => {
                let what = "connecting its serial port".to_owned();
                let _ = (qemu.kill(), qemu.wait());
                return Err(MachineError::Agent { what, source, console: end_of_console(&folder) });
            }
        };
        let mut machine = Self { qemu, agent: BufReader::new(connection), folder };
        machine.wait_for("booting", BOOT_LIMIT, |agent| match read_line(agent)? {
            Some(line) if line == READY => Ok(()),
            Some(line) => Err(io::Error::other(format!("{line:?} instead of {READY:?}"))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })?;
        Ok(machine)
    }

    /// Runs a test inside. After an error the host is of no use any more.
    ///
    /// # Errors
    ///
    /// When the host crashes, or the test has not ended after `limit`.
    pub fn run(&mut self, request: &Request, limit: Duration) -> Result<Reply, MachineError> {
        self.wait_for(&request.test, limit, |agent| {
            request.send(agent.get_mut())?;
            Reply::receive(agent)
        })
    }

    fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        talk: impl FnOnce(&mut BufReader<UnixStream>) -> io::Result<T>,
    ) -> Result<T, MachineError> {
        let stream = self.agent.get_ref();
        stream.set_read_timeout(Some(limit)).map_err(MachineError::Prepare)?;
        talk(&mut self.agent).map_err(|source| {
            let (what, console) = (what.to_owned(), end_of_console(&self.folder));
            match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    MachineError::TimedOut { what, limit, console }
                }
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                    MachineError::Ended { what, console }
                }
                _ => MachineError::Agent { what, source, console },
            }
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has nothing that could be lost.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// QEMU's end of a serial port, as soon as it is there.
fn connect(listener: &UnixListener, qemu: &mut Child) -> io::Result<UnixStream> {
    let began = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = qemu.try_wait()? {
            return Err(io::Error::other(format!("{QEMU} ended with {status}")));
        }
        if began.elapsed() > BOOT_LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

fn console(folder: &TempDir) -> PathBuf {
    folder.path().join("console")
}

/// The last lines of the console, and of what QEMU itself wrote.
fn end_of_console(folder: &TempDir) -> String {
    let lines = |name: &str| -> Vec<String> {
        let bytes = fs::read(folder.path().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].to_vec()
    };
    // Which of the processor's features TCG does not have is of no interest.
    let is_known = |line: &String| line.contains("TCG doesn't support requested feature");
    let errors = lines("qemu").into_iter().filter(|line| !is_known(line));
    lines("console").into_iter().chain(errors).collect::<Vec<_>>().join("\n")
}
