//! `pagefold set`: change knobs, or what of a VM is folded, while VMs run.

use pagefold_api::types::GuestPhys;
use pagefold_api::types::request::VmChange;
use pagefold_dedup::{DedupMode, Knobs, Run, VmId};

use super::failure::Failure;
use super::knobs::{Setting, check_distinct, check_each, differences, help};
use super::number::small;
use super::size::Size;
use super::socket::{Socket, no_answer};
use super::table::list;
use super::{Outcome, print, wait};

/// What `pagefold set` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Change this VM, and not all folding: dedup=off, dedup=zero or dedup=on
    #[arg(long, value_name = "ID", value_parser = small)]
    vm: Option<u32>,
    /// Where a range of the VM's memory begins that is not to be folded (dedup=off), or may be again
    /// (dedup=on)
    #[arg(long, value_name = "ADDRESS", requires_all = ["vm", "bytes"])]
    gpa: Option<GuestPhys>,
    /// How long the range is
    #[arg(long, value_name = "SIZE", requires = "gpa")]
    bytes: Option<Size>,
    /// Do not wait until what is not to be folded any more (run=2, dedup=off, dedup=zero) has been
    /// given its own memory
    #[arg(long)]
    no_wait: bool,
    /// Knobs and their values, all of which are set, or none: see below
    #[arg(value_name = "KEY=VALUE", required = true)]
    settings: Vec<Setting>,
}

/// Sets, and prints what is different.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    match args.vm {
        Some(vm) => set_vm(args, VmId(vm)),
        None => set_knobs(args),
    }
}

fn set_knobs(args: &Args) -> Result<Outcome, Failure> {
    check_each(&args.settings)?;
    let client = args.socket.client()?;
    let failure = |error| no_answer("cannot set the knobs", &error);
    let before = client.dedup().map_err(failure)?.knobs;
    let settings = args.settings.iter().cloned();
    let changes: Vec<_> = settings.map(|Setting { key, value }| (key, value)).collect();
    let after = client.set_knobs(&changes).map_err(failure)?;
    if !args.no_wait && is_unmerging(&args.settings) {
        wait::for_all(&client)?;
    }
    let lines: Vec<_> = differences(&before, &after)
        .into_iter()
        .map(|(name, before, after)| (name, format!("{before} → {after}")))
        .collect();
    print(&if lines.is_empty() { "nothing has changed\n".to_owned() } else { list(&lines) })?;
    Ok(Outcome::Fine)
}

fn set_vm(args: &Args, vm: VmId) -> Result<Outcome, Failure> {
    let mode = mode(&args.settings)?;
    let change = match (args.gpa, args.bytes) {
        (Some(_), Some(_)) if mode == DedupMode::Zero => {
            return Err(Failure::usage("a range has no mode zero", "give dedup=off or dedup=on"));
        }
        (Some(gpa), Some(bytes)) => VmChange { dedup: mode, gpa: Some(gpa), bytes: Some(bytes.0) },
        _ => VmChange { dedup: mode, gpa: None, bytes: None },
    };
    let client = args.socket.client()?;
    let what = format!("cannot change VM {vm}");
    client.set_dedup(vm, &change).map_err(|error| no_answer(&what, &error))?;
    if !args.no_wait && mode != DedupMode::On {
        wait::for_vm(&client, vm)?;
    }
    let what = match (args.gpa, args.bytes) {
        (Some(gpa), Some(bytes)) => format!("{bytes} at {gpa} of VM {vm}"),
        _ => format!("VM {vm}"),
    };
    print(&format!("{what}: dedup={mode}\n"))?;
    Ok(Outcome::Fine)
}

/// Whether everything is to be given its own memory.
fn is_unmerging(settings: &[Setting]) -> bool {
    settings.iter().any(|Setting { key, value }| {
        let mut knobs = Knobs::default();
        key == "run" && knobs.set(key, value).is_ok() && knobs.run == Run::Unmerge
    })
}

fn mode(settings: &[Setting]) -> Result<DedupMode, Failure> {
    let advice = "with --vm, give one of dedup=off, dedup=zero and dedup=on";
    check_distinct(settings)?;
    match settings {
        [Setting { key, value }] if key == "dedup" => {
            value.parse().map_err(|error| Failure::usage(format!("{error}"), advice))
        }
        _ => Err(Failure::usage("a VM has no such knobs", advice)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use clap::Parser;
    use pagefold_dedup::stats::DedupStats;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Sets `run=2` where so many pages are shared at each look, the first of which is before it is set. Returns how
    /// many looks there were.
    fn looks(more: &[&str], pages_shared: &'static [u64]) -> usize {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("api");
        let listener = UnixListener::bind(&path).expect("a listener");
        let server = thread::spawn(move || {
            let knobs = Knobs { run: Run::Unmerge, ..Knobs::default() };
            let (mut looks, mut pages_shared) = (0, pages_shared.iter());
            loop {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut method = [0; 4];
                stream.read_exact(&mut method).expect("a request");
                let body = match &method {
                    b"PATC" => serde_json::to_string(&knobs),
                    b"GET " => {
                        looks += 1;
                        let pages_shared = *pages_shared.next().expect("no look more");
                        let stats = DedupStats { knobs, pages_shared, ..DedupStats::default() };
                        serde_json::to_string(&stats)
                    }
                    _ => return looks,
                };
                let body = body.expect("JSON");
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
                    .expect("sent");
                // All of the request is taken, so that closing is no reset.
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        });
        let line =
            [&["set", "--api-socket", path.to_str().expect("a path"), "run=2"], more].concat();
        run(&Line::try_parse_from(line).expect("a command line").args).expect("set");
        let mut end = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        end.write_all(b"end.").expect("sent");
        server.join().expect("no panic: no more was asked for than there is")
    }

    #[test]
    fn the_end_of_unmerging_is_waited_for_unless_it_is_not_to_be() {
        assert_eq!(looks(&[], &[9, 9, 5, 0]), 4);
        assert_eq!(looks(&["--no-wait"], &[9]), 1);
    }
}
