//! Documents name files, tests and other documents that are there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of the repository in which what a document names is looked for.
const FOLDERS: [&str; 8] =
    [".ci", "dedup", "devices", "docs", "examples", "resources", "tests", "vmm"];

/// Words in a name from which on it can only be one of ours: a test's, above all.
const WORDS_OF_OURS: usize = 5;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// All files of an extension, but for what was built.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|name| repository().join(name)).collect();
    let top = fs::read_dir(repository()).expect("the repository");
    found.extend(top.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension() == Some(OsStr::new(extension)));
    found
}

fn documents() -> Vec<(PathBuf, String)> {
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).expect("a document"));
    files("md").into_iter().map(read).collect()
}

/// What stands between backticks in a text's lines, but for blocks of code.
fn quoted(text: &str) -> Vec<&str> {
    let outside = text.split("\n```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn files_that_documents_name_are_there() {
    let mut count = 0;
    for (document, text) in documents() {
        for name in quoted(&text) {
            let is_path = name.split_once('/').is_some_and(|(top, _)| FOLDERS.contains(&top))
                && name.chars().all(|char| char.is_ascii_alphanumeric() || "/._-".contains(char));
            if is_path {
                count += 1;
                let is_there = repository().join(name).exists();
                assert!(is_there, "{} names {name}, which is not there", document.display());
            }
        }
    }
    assert!(count > 100, "{count} names: this has shown nothing");
}

#[test]
fn documents_that_documents_link_to_are_there() {
    let mut count = 0;
    for (document, text) in documents() {
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().expect("a part");
            if target.is_empty() || target.contains("://") {
                continue;
            }
            count += 1;
            let path = document.parent().expect("a folder").join(target);
            assert!(path.exists(), "{} links to {target}, which is not there", document.display());
        }
    }
    assert!(count > 10, "{count} links: this has shown nothing");
}

#[test]
fn tests_and_knobs_that_documents_name_are_there() {
    let sources: Vec<String> =
        files("rs").into_iter().map(|path| fs::read_to_string(path).expect("a source")).collect();
    let is_other = |char: char| !char.is_ascii_alphanumeric() && char != '_';
    let words: BTreeSet<&str> = sources.iter().flat_map(|source| source.split(is_other)).collect();
    let mut count = 0;
    for (document, text) in documents() {
        for name in quoted(&text) {
            let is_name = name.chars().all(|char| matches!(char, 'a'..='z' | '0'..='9' | '_'));
            if is_name && name.split('_').count() >= WORDS_OF_OURS {
                count += 1;
                let is_there = words.contains(name);
                assert!(is_there, "{} names {name}, which no source has", document.display());
            }
        }
    }
    assert!(count > 20, "{count} names: this has shown nothing");
}
