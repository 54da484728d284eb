//! Passes to the command what it was built from, and by what.

use std::env;
use std::path::Path;
use std::process::Command;

/// What `pagefold --version` prints of the build.
fn main() {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    // It grows with every commit, and is not there in sources without a history.
    let log = output("git", &["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]);
    if let Some(log) = log.filter(|log| Path::new(log).is_file()) {
        println!("cargo::rerun-if-changed={log}");
    }
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    for (name, fact) in [
        ("COMMIT", commit),
        ("PROFILE", env::var("PROFILE").ok()),
        ("TARGET", env::var("TARGET").ok()),
        ("RUSTC", rustc),
    ] {
        println!("cargo::rustc-env=PAGEFOLD_{name}={}", fact.as_deref().unwrap_or("unknown"));
    }
}
