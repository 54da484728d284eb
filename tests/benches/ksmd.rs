//! Pagefold against ksmd: the same images, in the same minute, on the same machine.
//!
//! `cargo bench -p pagefold-tests --bench ksmd -- --help` prints what it does and what it needs.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pagefold_dedup::{EngineConfig, ErrorChain};
use pagefold_tests::contest::{Contest, Round};
use pagefold_tests::fold::{self, FoldError};
use pagefold_tests::images::{Census, Image, Shape};
use pagefold_tests::interrupt::{Interrupt, Interrupted};
use pagefold_tests::ksm::{self, Knobs, KsmError, Ksmd};

const EXIT_FAILED: u8 = 1;
const EXIT_REFUSED: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;

/// Fold the same memory images by Pagefold and by the kernel's ksmd run flat out, and compare.
///
/// Needs root: there is one ksmd for the whole machine, whose settings are changed for some seconds
/// and then put back, also after an error, a panic, Ctrl-C and SIGTERM. Refuses to run where others
/// have memory that KSM merges (QEMU has, without `-machine mem-merge=off`).
///
/// "Converged" is when the last page was saved; "settled" is when two more passes or scans have
/// found nothing. Pagefold's CPU time is that of this whole process, ksmd's that of its thread.
/// Every byte is verified after Pagefold's turn.
///
/// Exit status: 0 measured, 1 failed (a page was changed, or ksmd does not settle), 2 wrong
/// arguments, 3 refused for what this machine is like, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "ksmd")]
struct Args {
    /// Raw memory images; without any, some are generated
    #[arg(long, value_name = "FILE", num_args = 1..)]
    images: Vec<PathBuf>,
    /// Generate images of so many VMs
    #[arg(long, default_value_t = 4, conflicts_with = "images",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    vms: u32,
    /// Generate images of so many MiB each
    #[arg(long, default_value_t = 256, conflicts_with = "images",
          value_parser = clap::value_parser!(u64).range(4..=3072))]
    memory_mib: u64,
    /// What the content of generated images follows from
    #[arg(long, default_value_t = 1, conflicts_with = "images")]
    seed: u64,
    /// Fold so many times by each; who begins alternates
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads of Pagefold's [default: one a processor; ksmd has one]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Fold by Pagefold only, for a profiler: no comparison, and KSM is left alone
    #[arg(long)]
    only_pagefold: bool,
    /// One JSON object on standard output instead of tables
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`; without it, as in `cargo test --benches`, nothing is measured
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // `cargo test --benches` runs this too, and cargo-nextest asks it for a list of tests: it has
    // none, and must not touch the machine's ksmd because somebody runs tests.
    let asked = std::env::args().any(|arg| arg == "--bench" || arg == "--help" || arg == "-h");
    if !asked {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let Err(error) = measure(&args) else {
        return ExitCode::SUCCESS;
    };
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "error: {}", ErrorChain::new(error.as_ref()));
    ExitCode::from(exit_code(error.as_ref()))
}

fn exit_code(error: &(dyn Error + 'static)) -> u8 {
    let interrupted = error.is::<Interrupted>()
        || matches!(error.downcast_ref(), Some(FoldError::Interrupted(_)))
        || matches!(error.downcast_ref(), Some(KsmError::Interrupted(_)));
    let refused = error.downcast_ref().is_some_and(KsmError::is_refusal);
    match (interrupted, refused) {
        (true, _) => EXIT_INTERRUPTED,
        (_, true) => EXIT_REFUSED,
        _ => EXIT_FAILED,
    }
}

fn measure(args: &Args) -> Result<(), Box<dyn Error>> {
    let interrupt = Interrupt::by_signals()?;
    let config = EngineConfig { thread_count: args.threads.map(usize::from), ..Default::default() };
    if args.only_pagefold {
        return only_pagefold(args, config, &interrupt);
    }
    // First, so that a refusal comes at once.
    let knobs = Knobs::take()?;
    let ksmd = Ksmd::find()?;
    let images = images(args)?;
    let census = Census::of(&images);

    let mut contest = Contest { census, rounds: Vec::new() };
    for number in 1..=args.rounds {
        let pagefold = || fold::fold(&images, config, &interrupt);
        let by_ksmd = || ksm::fold(&images, &knobs, &ksmd, &interrupt);
        contest.rounds.push(if number % 2 == 1 {
            let pagefold = pagefold()?;
            Round { pagefold, ksmd: by_ksmd()? }
        } else {
            let ksmd = by_ksmd()?;
            Round { pagefold: pagefold()?, ksmd }
        });
        progress(number, args.rounds);
    }

    let mut out = io::stdout().lock();
    if args.json {
        let mut object = contest.json();
        object["images"] = images.iter().map(Image::name).collect();
        object["ksmd_cpu_source"] = ksmd.cpu_source().to_string().into();
        object["threads"] = args.threads.into();
        writeln!(out, "{object}")?;
    } else {
        images.iter().try_for_each(|image| writeln!(out, "{}", image.name()))?;
        write!(out, "{contest}")?;
        writeln!(out, "\nEvery byte was verified. ksmd's time is from {}.", ksmd.cpu_source())?;
    }
    Ok(())
}

fn only_pagefold(
    args: &Args,
    config: EngineConfig,
    interrupt: &Interrupt,
) -> Result<(), Box<dyn Error>> {
    let images = images(args)?;
    for _ in 0..args.rounds {
        let fold = fold::fold(&images, config, interrupt)?;
        let (elapsed, cpu) = (fold.converged.elapsed, fold.converged.cpu);
        writeln!(
            io::stdout(),
            "saved {} pages in {:.3} s, CPU {:.3} s",
            fold.saved_pages(),
            elapsed.as_secs_f64(),
            cpu.as_secs_f64()
        )?;
    }
    Ok(())
}

fn images(args: &Args) -> Result<Vec<Image>, Box<dyn Error>> {
    if args.images.is_empty() {
        let Args { seed, vms: vm_count, memory_mib, .. } = *args;
        return Ok(Shape { seed, vm_count, memory_bytes: memory_mib << 20 }.generate()?);
    }
    Ok(args.images.iter().map(|path| Image::read(path)).collect::<Result<_, _>>()?)
}

/// On standard error, so that standard output holds nothing but the result.
fn progress(number: u32, rounds: u32) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "round {number} of {rounds} done");
}
