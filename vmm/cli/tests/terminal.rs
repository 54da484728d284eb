//! What the command writes to a terminal, one that can do nothing included.

// A failure here is a failure of its test.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

const ESCAPE: char = '\x1b';
const CLEAR_LINE: &str = "\r\x1b[K";

/// What the command writes to stderr if that is a terminal called `term`, of so many columns, that knows nothing of
/// its rows, as a serial console does not.
fn on_terminal(term: &str, columns: u16, args: &[&str]) -> String {
    let (status, written) = ended_on_terminal(term, columns, args);
    assert!(status.success(), "{written:?}");
    written
}

/// The same, with how the command ended.
fn ended_on_terminal(term: &str, columns: u16, args: &[&str]) -> (ExitStatus, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 0, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pagefold"))
        .args(args)
        .env("TERM", term)
        // Many take any terminal for one with colours where it is set.
        .env("CI", "true")
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR")
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(terminal)
        .spawn()
        .unwrap();
    let mut written = Vec::new();
    let mut master = File::from(master);
    let mut part = [0; 4096];
    // Nobody has the terminal open any more when it fails.
    while let Ok(count @ 1..) = master.read(&mut part) {
        written.extend(&part[..count]);
    }
    (child.wait().unwrap(), String::from_utf8(written).unwrap())
}

fn run_on(term: &str, columns: u16) -> String {
    let args = ["run", "-v", "-n", "2", "--memory", "8M", "--guest", "builtin:idle"];
    on_terminal(term, columns, &[&args[..], &["--for", "3s"]].concat())
}

#[test]
fn a_launch_shows_how_far_it_has_come() {
    let written = run_on("xterm", 80);
    for part in [" s launching, 1 of 2 VMs built", " s launching, 1 of 2 VMs started"] {
        assert!(written.contains(part), "{written:?}");
    }
}

#[test]
fn the_progress_line_is_rewritten_within_the_width_of_the_terminal_and_logs_stand_above_it() {
    let written = run_on("xterm", 44);
    let shown: Vec<&str> = written.split(CLEAR_LINE).collect();
    assert!(shown.iter().filter(|line| line.contains("running")).count() > 1, "{written:?}");
    for line in written.split(['\n', '\r']).map(|line| line.trim_start_matches("\x1b[K")) {
        let logged = line.starts_with(['[', ESCAPE]);
        let text: String = line.chars().filter(|&c| c != ESCAPE).collect();
        assert!(logged || text.chars().count() < 44, "{text:?} of {written:?}");
        // A record begins its line.
        assert_eq!(line.contains("pagefold::"), logged && line.contains("INFO"), "{line:?}");
    }
}

#[test]
fn a_terminal_that_can_do_nothing_gets_plain_lines() {
    let written = run_on("dumb", 80);
    assert!(!written.contains(ESCAPE) && written.contains("INFO"), "{written:?}");
}

/// An image that takes long enough to be counted for a bar to be shown: 128 MiB of pages that all differ.
fn long_image(dir: &TempDir) -> String {
    let image = dir.path().join("image");
    let pages = (0_u32..32 << 10).flat_map(|number| {
        let mut page = [0xa5; 4096];
        page[..4].copy_from_slice(&number.to_ne_bytes());
        page
    });
    fs::write(&image, pages.collect::<Vec<u8>>()).unwrap();
    image.to_str().unwrap().to_owned()
}

#[test]
fn a_long_analysis_shows_a_bar_with_rate_and_time_left_on_a_terminal_that_can_clear_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = long_image(&dir);
    let args = ["analyze", &image];
    let written = on_terminal("xterm", 100, &args);
    assert!(written.contains("of 128.00 MiB, ") && written.contains(" left"), "{written:?}");
    for columns in [5, 20, 30, 60, 80, 100] {
        let written = on_terminal("xterm", columns, &args);
        let shown: Vec<&str> = written.split(CLEAR_LINE).filter(|line| !line.is_empty()).collect();
        assert!(!shown.is_empty(), "{written:?}");
        for line in shown {
            let is_line = !line.contains([ESCAPE, '\n', '\r']) && line.contains(['%', '[', 'M']);
            assert!(is_line && line.chars().count() < columns.into(), "{columns}: {line:?}");
        }
    }
    let written = on_terminal("dumb", 100, &args);
    assert!(!written.contains(ESCAPE) && !written.contains(" left"), "{written:?}");
}

// What is read is shown as progress: see above.
#[test]
fn nothing_is_read_of_any_image_before_the_sizes_of_all_have_been_checked() {
    let dir = tempfile::tempdir().unwrap();
    let image = long_image(&dir);
    let (odd, huge) = (dir.path().join("odd"), dir.path().join("huge"));
    fs::write(&odd, [1; 4097]).unwrap();
    // All of it a hole, and, so often, more to fold than any host has room for in page tables.
    File::create(&huge).unwrap().set_len(8 << 40).unwrap();
    let often = [huge.to_str().unwrap(); 100];
    for (args, part) in [
        (&["analyze", &image, odd.to_str().unwrap()][..], "4097 bytes"),
        (&[&["analyze", "--fold", &image], &often[..]].concat(), " MiB of memory, and "),
    ] {
        let (status, written) = ended_on_terminal("xterm", 100, args);
        assert_eq!(status.code(), Some(1), "{written:?}");
        assert!(written.contains(part) && !written.contains(CLEAR_LINE), "{written:?}");
    }
}

#[test]
fn control_characters_of_arguments_do_not_reach_the_terminal() {
    for (args, shown) in [
        (&["analyze", "image", "--\x1b[2Jfold"][..], "'--\\u{1b}[2Jfold'"),
        (&["run", "x\x1b]0;title\x07"], "'x\\u{1b}]0;title\\u{7}'"),
        (&["foo\x1b[2J"], "'foo\\u{1b}[2J'"),
        (&["run", "--guest", "builtin:\x1b[8m\u{202e}"], "'builtin:\\u{1b}[8m\\u{202e}'"),
        (&["run", "-\x1b[2J"], "'-\\'"),
        (&["run", "--for", "1s\rerror: "], "'1s\\rerror: '"),
    ] {
        for term in ["xterm", "dumb"] {
            let (status, written) = ended_on_terminal(term, 80, args);
            assert_eq!(status.code(), Some(2), "{written:?}");
            // What is left is clap's own: lines, and words that are coloured or bold.
            let text = without_styles(&written).replace("\r\n", "");
            assert!(text.contains(shown), "{written:?}");
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{written:?}");
            assert_eq!(written.contains(ESCAPE), term == "xterm", "{written:?}");
        }
    }
}

#[test]
fn a_terminal_without_a_name_gets_no_colours_in_usage_errors() {
    let (status, written) = ended_on_terminal("", 80, &["run", "--no-such"]);
    assert_eq!(status.code(), Some(2), "{written:?}");
    assert!(written.contains("'--no-such'") && !written.contains(ESCAPE), "{written:?}");
    let (_, written) = ended_on_terminal("xterm", 80, &["run", "--no-such"]);
    assert!(written.contains(ESCAPE), "{written:?}");
}

/// The text without the sequences that begin and end clap's styles.
fn without_styles(text: &str) -> String {
    (0..=37).fold(text.to_owned(), |text, number| text.replace(&format!("\x1b[{number}m"), ""))
}
