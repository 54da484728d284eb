//! What comes with the library: no web server, no command line, nothing that makes bytes of messages, and nothing
//! that only tests need. And inside of it: its guests depend on its VMs, and not the other way round, and no module of
//! folding on one that depends on it.

use std::collections::BTreeSet;
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

#[test]
fn no_two_modules_of_folding_import_each_other_in_a_circle() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dedup/src");
    let mut imports = BTreeSet::new();
    for path in files_in(&sources) {
        let module = module_of(path.strip_prefix(&sources).expect("a file in there"));
        // Tests may import whatever they like.
        if module.iter().any(|name| name == "tests") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for line in code.lines().filter_map(|line| line.strip_prefix("use ")) {
            imports.extend(import(&sources, &module, line));
        }
    }
    assert!(imports.len() > 100, "{imports:?}");
    // What imports nothing, or is imported by nothing, is in no circle.
    let mut count = 0;
    while count != imports.len() {
        count = imports.len();
        let all = imports.clone();
        imports.retain(|(from, to)| {
            all.iter().any(|(next, _)| next == to) && all.iter().any(|(_, before)| before == from)
        });
    }
    assert!(imports.is_empty(), "{imports:#?}");
}

/// The module that is in a file of a crate.
fn module_of(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod" && name != "lib").collect()
}

/// Which two neighbours in a folder of `sources` the import of `line` by `module` is between, if it is between any: as
/// paths of modules.
fn import(sources: &Path, module: &[String], line: &str) -> Option<(Vec<String>, Vec<String>)> {
    let mut names = line.split(|sign: char| !sign.is_alphanumeric() && sign != '_');
    let mut target = match names.next()? {
        "crate" => Vec::new(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    for name in names.by_ref().filter(|name| !name.is_empty()) {
        if name == "super" {
            target.pop()?;
        } else {
            target.push(name.to_owned());
        }
    }
    let common = iter::zip(module, &target).take_while(|(one, other)| one == other).count();
    let (from, to) = (module.get(..=common)?, target.get(..=common)?);
    let file = to.iter().fold(sources.to_path_buf(), |path, name| path.join(name));
    let is_module = file.is_dir() || file.with_extension("rs").is_file();
    is_module.then(|| (from.to_vec(), to.to_vec()))
}

/// All files under `folder`.
fn files_in(folder: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(folder).expect("a folder");
    Box::new(entries.flat_map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_in(&path) } else { Box::new(iter::once(path)) }
    }))
}
