//! What comes with the library: no web server, no command line, nothing that makes bytes of messages, and nothing
//! that only tests need.

use std::env;
use std::process::Command;

#[test]
fn an_embedder_builds_no_web_server_no_command_line_and_nothing_for_tests() {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["tree", "--locked", "--offline", "--package", "pagefold-examples"]);
    cargo.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}"]);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{cargo:?}: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let packages: Vec<&str> =
        tree.lines().filter_map(|line| line.split([' ', '|']).next()).collect();
    assert!(packages.contains(&"pagefold") && packages.contains(&"kvm-ioctls"), "{tree}");
    for unwanted in ["axum", "hyper", "tokio", "clap", "indicatif", "env_logger", "postcard"] {
        assert!(!packages.contains(&unwanted), "{unwanted} is in:\n{tree}");
    }
    let features =
        tree.lines().filter_map(|line| line.strip_prefix("pagefold-dedup ")?.split('|').nth(1));
    let features: Vec<&str> = features.collect();
    assert!(!features.is_empty() && features.iter().all(|names| names.is_empty()), "{tree}");
}
