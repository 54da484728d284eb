//! The index by itself: what a page of a VM costs in time and in memory, at 1, 10 and 60 million.
//!
//! Nothing here is guest memory: the VMs are page numbers, driven through `protocol::Broker` as
//! agents do it. What is shared is real: each slot is filled with a page of its own in the store.
//!
//! `cargo bench -p pagefold-dedup --bench index [-- [--json] [PAGES...]]`

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints rounded figures, its counts are small, and a failure is a panic"
)]

mod costs;
mod measure;
#[path = "../population/mod.rs"]
mod population;
mod table;

use measure::{Case, Measured};

const SIZES: [u32; 3] = [1_000_000, 10_000_000, 60_000_000];

/// What the index may cost of the 64-VM mix's memory, and KSM's 64 bytes an item is not within.
const MAX_PER_CENT: f64 = 0.5;

const CASES: [Case; 3] = [
    Case { name: "64 VMs", vm_count: 64, max_pages: u32::MAX, pairs: false },
    Case { name: "4 VMs", vm_count: 4, max_pages: u32::MAX, pairs: false },
    Case { name: "pairs", vm_count: 2, max_pages: 1_000_000, pairs: true },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if !has("--bench") {
        // `cargo test --benches`: it compiles, and that is all there is to test.
        return;
    }
    let json = has("--json");
    let mut sizes: Vec<u32> =
        arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let agent_bytes = measure::agent_bytes_per_page();
    if !json {
        table::print_head(agent_bytes);
    }
    let measured = CASES.map(|case| (case, measure_sizes(case, &sizes, agent_bytes, json)));
    if !json {
        table::print_growth(&measured);
    }
}

/// Measures a case with each of the numbers of pages, and prints a row for each.
fn measure_sizes(case: Case, sizes: &[u32], agent_bytes: f64, json: bool) -> Vec<Measured> {
    let mut all = Vec::new();
    for &page_count in sizes.iter().filter(|&&page_count| page_count <= case.max_pages) {
        let Some(measured) = measure::measure(case, page_count, agent_bytes) else {
            if !json {
                table::print_left_out(case, page_count);
            }
            continue;
        };
        if json {
            table::print_json(case, &measured);
        } else {
            table::print_row(case, &measured);
        }
        let per_cent = measured.per_cent();
        assert!(case.vm_count != 64 || per_cent < MAX_PER_CENT, "{per_cent} % of a page");
        all.push(measured);
    }
    all
}
