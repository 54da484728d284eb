//! How it is printed.

use crate::costs::{Cost, Costs};
use crate::measure::{Case, MAX_FILLED, Measured};

const LEGEND: &str = "\
64 VMs, 4 VMs: VMs of one image; of each 50 pages 32 are shared by all VMs (64 %), 7 are a VM's own and
wait (14 %), 11 are zero and never offered (22 %). pairs, the worst case: each page is shared by 2, and
no two neighbours lie side by side in the store.
wait: an offer without a twin. match: one that finds the first. join: one that finds a slot.
confirm: Outcome::Merged. release: Outcome::Left, the slots' memory given back included.
fill: bytes handed over, two hashes and the copy included. Millions a second, one thread.";

pub(crate) fn print_head(agent_bytes: f64) {
    println!("{LEGEND}\nbytes a page: the domain's, and the agents' ({agent_bytes:.2}).\n");
    print!("{:<7}{:>11}{:>9}", "mix", "pages", "slots");
    for (name, _) in Costs::default().all() {
        print!("{name:>9}");
    }
    println!("{:>12}{:>11}", "bytes/page", "of a page");
}

pub(crate) fn print_row(case: Case, measured: &Measured) {
    print!("{:<7}{:>11}{:>9}", case.name, measured.page_count, measured.slots);
    for (_, cost) in measured.costs.all() {
        if cost.items == 0 {
            print!("{:>9}", "-");
        } else {
            print!("{:>9.2}", cost.millions());
        }
    }
    println!("{:>12.2}{:>9.3} %", measured.bytes_per_page, measured.per_cent());
}

/// A row that would not fit.
pub(crate) fn print_left_out(case: Case, page_count: u32) {
    println!("{:<7}{page_count:>11}  needs more than {MAX_FILLED} slots", case.name);
}

pub(crate) fn print_json(case: Case, measured: &Measured) {
    let costs = measured.costs.all().map(|(name, cost)| {
        let number = |ns: fn(&Cost) -> f64| {
            if cost.items == 0 { "null".to_owned() } else { format!("{:.1}", ns(cost)) }
        };
        format!(
            "\"{name}_count\":{},\"{name}_ns\":{},\"{name}_ns_median\":{}",
            cost.items,
            number(Cost::ns),
            number(Cost::ns_median)
        )
    });
    println!(
        "{{\"mix\":\"{}\",\"pages\":{},\"slots\":{},{},\"bytes_per_page\":{:.2},\
         \"per_cent\":{:.3}}}",
        case.name,
        measured.page_count,
        measured.slots,
        costs.join(","),
        measured.bytes_per_page,
        measured.per_cent()
    );
}

/// How much more than in the first of the sizes an item takes in the others.
pub(crate) fn print_growth(measured: &[(Case, Vec<Measured>)]) {
    println!("\ntime an item (median of the batches), against the first size:");
    for (case, sizes) in measured {
        let Some((first, rest)) = sizes.split_first() else { continue };
        for larger in rest {
            print!("{:<7}{:>11} : {:<9}", case.name, larger.page_count, first.page_count);
            for ((name, cost), (_, base)) in larger.costs.all().iter().zip(first.costs.all()) {
                if base.items > 0 {
                    print!("  {name} x{:.2}", cost.ns_median() / base.ns_median());
                }
            }
            println!();
        }
    }
}
