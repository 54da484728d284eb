//! The command: the form of what it prints, exact figures for images whose pages are known, one
//! clear message for each bad input.

use std::fs;
use std::path::Path;
use std::process::Output;

use pagefold_tests::harness::command::{describe, output, stdout_json};
use serde_json::Value;
use tempfile::TempDir;

const PAGE_BYTES: usize = 4096;

#[test]
fn a_settled_run_prints_the_documented_object_and_nothing_else() {
    let args =
        ["run", "-n", "3", "--memory", "32M", "--guest", "builtin:mix", "--for", "1s", "--settle"];
    let output = output(&[&args[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    assert!(output.stderr.is_empty(), "{}", describe(&output));
    let report = stdout_json(&output);

    let vms = report["vms"].as_array().expect("an array");
    assert_eq!(vms.len(), 3);
    for (id, vm) in vms.iter().enumerate() {
        assert_eq!(vm["id"], id);
        assert_eq!(vm["corrupt"], 0, "{vm}");
        for field in ["ready_ms", "writes", "verifications"] {
            assert!(vm[field].as_u64().is_some_and(|count| count > 0), "{field}: {vm}");
        }
    }
    let memory = |field: &str| {
        report["memory"][field].as_u64().unwrap_or_else(|| panic!("{field}: {report}"))
    };
    assert_eq!(memory("guest_bytes"), 96 << 20);
    assert!(memory("saved_bytes") * 100 >= memory("ideal_saved_bytes") * 97, "{report}");
    assert!(memory("resident_bytes") + memory("saved_bytes") <= memory("guest_bytes"), "{report}");
    for counter in [
        "pages_shared",
        "pages_sharing",
        "pages_unshared",
        "pages_volatile",
        "pages_zero",
        "pages_scanned",
        "pages_skipped",
        "stable_node_chains",
        "stable_node_dups",
        "full_scans",
        "merges",
        "remerges",
        "breaks",
        "declines",
        "saved_bytes",
        "vmas_used",
    ] {
        assert!(report["dedup"][counter].is_u64(), "{counter}: {report}");
    }
    assert_eq!(report["dedup"]["saved_bytes"], memory("saved_bytes"));
    for figure in ["elapsed_s", "cpu_s"] {
        assert!(report[figure].as_f64().is_some_and(|seconds| seconds > 0.0), "{figure}");
    }
}

#[test]
fn an_analysis_counts_and_folds_just_the_pages_that_images_were_made_of() {
    let directory = TempDir::new().expect("a folder");
    // 1..=100 are in both; the second has them in another order, in two runs, and 41..=50 twice.
    let first: Vec<u16> = [vec![0; 40], numbers(1, 100), numbers(1001, 1030)].concat();
    let second: Vec<u16> =
        [numbers(51, 100), vec![0; 25], numbers(1, 50), numbers(41, 50), numbers(2001, 2007)]
            .concat();
    let images = [("first", &first), ("second", &second)]
        .map(|(name, pages)| image(directory.path(), name, pages));
    let output = output(&["analyze", &images[0], &images[1], "--fold", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    assert!(output.stderr.is_empty(), "{}", describe(&output));
    let report = stdout_json(&output);
    expect(
        &report["census"],
        &[
            ("pages", 170 + 142),
            ("zero_pages", 65),
            ("distinct_pages", 137),
            ("shareable_pages", 100 + 110),
            ("saveable_pages", 65 + 100 + 10),
            ("same_position_pages", 0),
            // Once whole, and in the second 51..=100, 1..=50 and again 41..=50.
            ("extents", 4),
        ],
    );
    expect(&report["images"][0], &[("pages", 170), ("zero_pages", 40), ("shareable_pages", 100)]);
    expect(&report["images"][1], &[("pages", 142), ("zero_pages", 25), ("shareable_pages", 110)]);
    expect(&report["fold"], &[("saved_pages", 175), ("saved_bytes", 175 * 4096)]);
    expect(
        &report["fold"]["dedup"],
        &[
            ("pages_shared", 100),
            ("pages_sharing", 110),
            ("pages_zero", 65),
            ("pages_unshared", 37),
            ("pages_volatile", 0),
            ("declines", 0),
            ("errors", 0),
        ],
    );
    assert_eq!(report["fold"]["verified"], true, "{report}");
}

#[test]
fn images_with_nothing_to_save_and_images_with_nothing_else_are_counted_right() {
    let directory = TempDir::new().expect("a folder");
    // Fewer than share a slot at most (`max_page_sharing`), so that one slot does for all.
    let zeroes = image(directory.path(), "zeroes", &[0; 200]);
    let same = image(directory.path(), "same", &[7; 200]);
    let unique = image(directory.path(), "unique", &numbers(1, 200));
    for (path, distinct, saveable) in [(&zeroes, 0, 200), (&same, 1, 199), (&unique, 200, 0)] {
        let report = stdout_json(&output(&["analyze", path, "--fold", "--json"]));
        expect(
            &report["census"],
            &[("pages", 200), ("distinct_pages", distinct), ("saveable_pages", saveable)],
        );
        expect(&report["fold"], &[("saved_pages", saveable)]);
        assert_eq!(report["fold"]["verified"], true, "{report}");
    }
    // The images are as they were.
    assert_eq!(fs::read(&same).expect("read"), bytes(&[7; 200]));
    let census = stdout_json(&output(&["analyze", &zeroes, &same, "--json"]));
    assert!(census["fold"].is_null(), "{census}");
}

#[test]
fn every_bad_input_has_its_exit_code_and_one_clear_message() {
    let directory = TempDir::new().expect("a folder");
    let file = |name: &str, len: usize| {
        let path = directory.path().join(name);
        fs::write(&path, vec![1; len]).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (odd, empty, whole) = (file("odd", 4097), file("empty", 0), file("whole", 8192));
    let folder = directory.path().to_str().expect("UTF-8").to_owned();
    let missing = format!("{folder}/missing/api");
    let long = format!("{folder}/{}", "x".repeat(120));
    let run = |args: &[&'static str]| [&["run", "--for", "1s"][..], args].concat();
    let serve = |socket| vec!["run", "--memory", "8M", "--for", "1s", "--api-socket", socket];
    let table: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec![], 2, "Usage"),
        (vec!["analyze"], 2, "IMAGE"),
        (vec!["analyze", &missing], 1, "No such file"),
        (vec!["analyze", &odd], 1, "4097 bytes"),
        (vec!["analyze", &empty], 1, "is empty"),
        (vec!["analyze", &folder], 1, "neither a file"),
        (vec!["analyze", "--fold", &whole, &odd], 1, "4097 bytes"),
        (run(&["--guest", "builtin:nope"]), 2, "builtin:mix"),
        (run(&["--guest", "linux"]), 2, "builtin:mix"),
        (run(&["--guest", ""]), 2, "builtin:mix"),
        (run(&["--memory", "64Q"]), 2, "64M"),
        (run(&["--memory", "5K"]), 2, "4096-byte pages"),
        (run(&["--memory", "0"]), 2, "zero"),
        (run(&["--memory", "8K"]), 2, "4 MiB"),
        (run(&["--memory", "4G"]), 2, "3072 MiB"),
        (run(&["--memory", "99999999999999999999G"]), 2, "too large"),
        (run(&["-n", "0"]), 2, "1..=4096"),
        (run(&["-n", "-1"]), 2, "-1"),
        (run(&["-n", "many"]), 2, "many"),
        (run(&["-n", "4096", "--memory", "3G"]), 1, "not enough memory"),
        (vec!["run", "--for", "20"], 2, "time unit"),
        (vec!["run", "--for", "soon"], 2, "soon"),
        (vec!["run", "--for", "0s"], 2, "1s"),
        (run(&["--dedup", "maybe"]), 2, "off, zero, on"),
        (run(&["--seed", "-3"]), 2, "-3"),
        (run(&["--frobnicate"]), 2, "--frobnicate"),
        (serve(&missing), 1, "missing"),
        (serve(&whole), 1, "is not a socket"),
        (serve(&folder), 1, "is not a socket"),
        (serve(&long), 1, "107"),
        (serve(""), 2, "value is required"),
        (vec!["stats"], 2, "--api-socket"),
        (vec!["stats", "--api-socket", &missing], 1, "cannot connect"),
        (vec!["stats", "--api-socket", &whole], 1, "cannot connect"),
        (vec!["stats", "--api-socket", &long], 1, "give a shorter path"),
        (vec!["set", "--api-socket", &long, "run=0"], 1, "give a shorter path"),
        (vec!["set", "run=0"], 2, "--api-socket"),
        (vec!["set", "--api-socket", &missing], 2, "KEY=VALUE"),
        (vec!["set", "--api-socket", &missing, "run"], 2, "KEY=VALUE"),
        (vec!["set", "--api-socket", &missing, "run=7"], 2, "0 (stop), 1 (fold) or 2"),
        (vec!["set", "--api-socket", &missing, "run=0"], 1, "cannot connect"),
        (vec!["set", "--api-socket", &missing, "--vm", "0", "dedup=off"], 1, "cannot connect"),
        (vec!["explain", "--api-socket", &missing, "--vm", "0"], 2, "--gpa"),
        (vec!["explain", "--api-socket", &missing, "--vm", "0", "--gpa", "x"], 2, "0x100000"),
        (vec!["explain", "--api-socket", &missing, "--vm", "0", "--gpa", "0"], 1, "cannot connect"),
        (vec!["compact"], 2, "--api-socket"),
        (vec!["compact", "--api-socket", &missing], 1, "cannot connect"),
        (run(&["--knob", "max_page_sharing"]), 2, "KEY=VALUE"),
        (run(&["--knob", "max_page_sharing=1"]), 2, "from 2 to 1048576"),
        (run(&["--knob", "run=1", "--knob", "run=1"]), 2, "twice"),
        (run(&["--knob", "run=2", "--settle"]), 2, "--settle"),
        (vec!["frobnicate"], 2, "frobnicate"),
    ];
    for (args, code, part) in &table {
        assert_refused(&output(args), *code, part, args);
    }
    assert_eq!(fs::read(&whole).expect("read"), [1; 8192], "a file was taken for a socket");
}

fn assert_refused(output: &Output, code: i32, part: &str, args: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    let described = describe(output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {described}");
    assert!(output.stdout.is_empty(), "{args:?}: {described}");
    assert!(text.contains(part), "{args:?} does not say '{part}': {described}");
    for noise in ["panicked", "RUST_BACKTRACE", "unwrap"] {
        assert!(!text.contains(noise), "{args:?}: {described}");
    }
    // A bare `pagefold` gets the help instead.
    if !args.is_empty() {
        assert!(text.starts_with("error: "), "{args:?}: {described}");
        assert_eq!(text.matches("error: ").count(), 1, "{args:?}: {described}");
        assert!(text.contains("\nhelp: ") || text.contains("--help"), "{args:?}: {described}");
    }
}

/// Asserts figures of a JSON object.
fn expect(object: &Value, figures: &[(&str, u64)]) {
    for (field, want) in figures {
        assert_eq!(object[*field], *want, "{field}: {object}");
    }
}

/// An image of one page for each number: that of zeroes for 0.
fn image(directory: &Path, name: &str, pages: &[u16]) -> String {
    let path = directory.join(name);
    fs::write(&path, bytes(pages)).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

fn bytes(pages: &[u16]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_le_bytes().repeat(PAGE_BYTES / 2)).collect()
}

fn numbers(first: u16, last: u16) -> Vec<u16> {
    (first..=last).collect()
}
