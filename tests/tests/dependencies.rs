//! What comes with the library: no web server, no command line, nothing that makes bytes of messages, and nothing
//! that only tests need. And inside of it: its guests depend on its VMs, and not the other way round.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, iter};

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

#[test]
fn the_library_imports_its_built_in_guest_only_where_it_lists_its_guests() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/src");
    // What re-exports its status, and the list.
    let importers = ["lib.rs", "guest_kinds.rs"].map(|name| sources.join(name));
    let own = sources.join("builtin");
    let files = files_in(&sources).filter(|path| !path.starts_with(&own));
    let (importers, others): (Vec<_>, Vec<_>) = files.partition(|path| importers.contains(path));
    assert!(importers.len() == 2 && others.len() > 50, "{importers:?} {others:?}");
    for path in others {
        let text = fs::read_to_string(&path).expect("a source file");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let imports: Vec<_> = code.filter(|line| line.contains("crate::builtin")).collect();
        assert!(imports.is_empty(), "{}: {imports:?}", path.display());
    }
}

/// All files under `folder`.
fn files_in(folder: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(folder).expect("a folder");
    Box::new(entries.flat_map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_in(&path) } else { Box::new(iter::once(path)) }
    }))
}
