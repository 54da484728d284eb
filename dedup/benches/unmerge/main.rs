//! Unmerging everything, `run` = 2: how long any other request waits meanwhile, and how fast it is.
//!
//! First the index by itself, as large as fits: VMs of one image, whose pages are numbers, are taken
//! out of the trees a batch at a time, with another request between any two batches. Then real
//! memory: 2 GiB of pages are folded and get their own memory again, step by step. Then the same
//! memory once more, in huge pages when folding begins: what the kernel's `ksm_tests -P`, `-D` and
//! `-H` measure. How long pieces of other work take on the same machine, which has nothing to do with folding,
//! is printed before: a machine that is interrupted lengthens both.
//!
//! `cargo bench -p pagefold-dedup --bench unmerge [-- [--json] [--full] [VMS]]`
//! `--full` makes 1 TiB of VMs of 256 MiB, an index of 268 million items, instead of 1/8 of that.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, its counts are small, and a failure is a panic"
)]

mod guests;
mod host;
mod huge;
mod index;
mod memory;
#[path = "../population/mod.rs"]
mod population;
#[path = "../sys/mod.rs"]
mod sys;
mod times;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !has("--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let json = has("--json");
    let given = arguments.iter().find_map(|argument| argument.parse().ok());
    let vm_count =
        given.unwrap_or(if has("--full") { index::FULL_VMS } else { index::DEFAULT_VMS });
    index::measure(vm_count, json);
    memory::measure(json);
}
