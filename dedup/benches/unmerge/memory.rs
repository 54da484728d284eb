//! Real memory: how fast it is folded, in small pages and in huge ones, and unmerged.

use crate::guests::{BYTES, Guests, PAGES};
use crate::host;
use crate::sys;
use crate::times::Times;

/// Each with fresh memory of both kinds; ratios are taken within a round, so that a noisy machine
/// disturbs both kinds alike.
const ROUNDS: usize = 5;

/// What must be huge for memory to count as such, as a part of 100: at the ends of each VM's there
/// may be pages that no huge one has room for.
const HUGE_PER_CENT: u64 = 99;

const HUGE: &str = "merge huge step";

/// Folds and unmerges real memory, and prints the round in the middle of each kind.
pub(crate) fn measure(json: bool) {
    let (mut alone, mut merging) = (Vec::new(), Vec::new());
    let (mut unmerging, mut huge) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(Times::of("host alone", host::measure()));
        let (merge, unmerge) = fold_small();
        merging.push(merge);
        unmerging.push(unmerge);
        huge.push(fold_huge());
    }
    let huge: Result<Vec<Huge>, String> = huge.into_iter().collect();
    let huge = huge.map(|rounds| {
        let ratios = ratios(&merging, &rounds);
        (middle(rounds, |huge| &huge.merging), ratios)
    });
    middle(alone, |times| times).print(host::PAGES, json);
    for times in [middle(merging, |times| times), middle(unmerging, |times| times)] {
        print(&times, json);
    }
    match huge {
        Ok((huge, ratios)) => {
            print(&huge.merging, json);
            if !json {
                print_huge(&huge, &ratios);
            }
        }
        Err(reason) if json => println!("{{\"what\":\"{HUGE}\",\"skipped\":\"{reason}\"}}"),
        Err(reason) => println!("{HUGE:<16}left out: {reason}"),
    }
}

/// Folds and unmerges small pages; returns what each took.
fn fold_small() -> (Times, Times) {
    let mut guests = Guests::filled(sys::forbid_huge_pages).unwrap();
    assert_eq!(guests.huge_bytes(), 0, "small pages only");
    guests.attach();
    let merging = Times::of("merge step", guests.fold());
    let unmerging = Times::of("unmerge step", guests.unmerge());
    guests.verify();
    (merging, unmerging)
}

/// How memory in huge pages was folded.
struct Huge {
    merging: Times,
    /// Bytes in huge pages when it began.
    before: u64,
    /// Bytes in huge pages when all was folded.
    after: u64,
}

/// Folds huge pages, or says why there are none. That they can be unmerged is known afterwards, but
/// not timed: they are small by then.
///
/// As with `ksm_tests -H`, all of each huge page is folded, so the kernel takes it away whole; one of
/// which a page stays private would be split first.
fn fold_huge() -> Result<Huge, String> {
    let mut guests = Guests::filled(|memory| sys::advise(memory, libc::MADV_HUGEPAGE))
        .map_err(|error| format!("the kernel has no huge pages: {error}"))?;
    let before = guests.huge_bytes();
    if before < BYTES / 100 * HUGE_PER_CENT {
        return Err(format!("only {} of {} MiB are in huge pages", before >> 20, BYTES >> 20));
    }
    guests.attach();
    let merging = Times::of(HUGE, guests.fold());
    let after = guests.huge_bytes();
    guests.verify();
    guests.unmerge();
    guests.verify();
    Ok(Huge { merging, before, after })
}

fn print(times: &Times, json: bool) {
    times.print(PAGES, json);
    if !json {
        let rate = (BYTES >> 20) as f64 / times.total.as_secs_f64();
        println!("{:>16}: {rate:.0} MiB/s", times.what);
    }
}

fn print_huge(huge: &Huge, ratios: &[f64]) {
    let (min, median, max) = (ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);
    println!(
        "{:>16}  {median:.2} times as fast as merge step, from {min:.2} to {max:.2} in {ROUNDS} rounds;\n\
         {:>16}  of {} MiB {} were in huge pages before, {} after",
        "",
        "",
        BYTES >> 20,
        huge.before >> 20,
        huge.after >> 20
    );
}

/// How much faster than small pages huge ones were in each round, in ascending order.
fn ratios(small: &[Times], huge: &[Huge]) -> Vec<f64> {
    let ratio = |(small, huge): (&Times, &Huge)| {
        small.total.as_secs_f64() / huge.merging.total.as_secs_f64()
    };
    let mut ratios: Vec<f64> = small.iter().zip(huge).map(ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios
}

/// The round of which half of the others took longer.
fn middle<T>(mut rounds: Vec<T>, times: impl Fn(&T) -> &Times) -> T {
    rounds.sort_unstable_by_key(|round| times(round).total);
    rounds.swap_remove(rounds.len() / 2)
}
