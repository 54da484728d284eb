//! Test programs, built by cargo, and the tests that they have.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Programs that cargo has built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// A test's name, or a binary's.
    pub name: String,
    /// The package that it is of.
    pub package: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a test.
    pub is_test: bool,
}

/// Why there are no programs or tests.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A program did not start.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed with {status}: {stderr}")]
    Failed {
        /// The program with its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote.
        stderr: String,
    },
}

/// Builds the integration tests of the workspace, as `make vm-tests` does, so that what that has built is
/// there already.
///
/// # Errors
///
/// When they do not build.
pub fn build() -> Result<Vec<Program>, ProgramError> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["test", "--no-run", "--locked", "--quiet", "--workspace"])
        .args(["--exclude", env!("CARGO_PKG_NAME"), "--test", "*"])
        .args(["--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // TARGET/debug/deps/this_test: the same folder.
    if let Some(target_dir) =
        env::current_exe().ok().as_deref().and_then(|exe| exe.ancestors().nth(3))
    {
        cargo.arg("--target-dir").arg(target_dir);
    }
    let output = run(cargo.stderr(Stdio::inherit()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| program(&serde_json::from_str(line).ok()?)).collect())
}

/// What a message of cargo's says of a program.
fn program(message: &Value) -> Option<Program> {
    let kind = message["target"]["kind"].as_array()?.first()?.as_str()?;
    Some(Program {
        name: message["target"]["name"].as_str()?.to_owned(),
        package: package(message["package_id"].as_str()?),
        path: message["executable"].as_str()?.into(),
        is_test: kind == "test",
    })
}

/// The name in a package's id: `path+file:///…/NAME#VERSION` or `…#NAME@VERSION`.
fn package(id: &str) -> String {
    let (path, version) = id.split_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

/// The names of a program's tests, those that are ignored elsewhere, too.
///
/// # Errors
///
/// When it does not list them.
pub fn tests(program: &Path) -> Result<Vec<String>, ProgramError> {
    let output = run(Command::new(program).args(["--list", "--format", "terse"]))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
}

/// The libraries that a program is linked with.
///
/// # Errors
///
/// When `ldd` cannot be run.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>, ProgramError> {
    let mut ldd = Command::new("ldd");
    let output = ldd.arg(program).output();
    let output = output.map_err(|source| start(ldd.get_program(), source))?;
    // Of a program without any it fails, and says so.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}

/// A program without its symbols, which are most of it.
///
/// # Errors
///
/// When it cannot be read, or written to `to`.
pub fn strip(program: &Path, to: &Path) -> Result<(), ProgramError> {
    run(Command::new("strip").arg("-o").arg(to).arg(program)).map(drop)
}

fn run(command: &mut Command) -> Result<Output, ProgramError> {
    let output = command.output().map_err(|source| start(command.get_program(), source))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(ProgramError::Failed {
        command: format!("{command:?}"),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn start(program: &OsStr, source: io::Error) -> ProgramError {
    ProgramError::Start { program: program.to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn a_package_has_its_name_in_both_forms_of_its_id() {
        assert_eq!(package("path+file:///src/vmm/cli#pagefold-cli@0.1.0"), "pagefold-cli");
        assert_eq!(package("path+file:///src/pagefold-tests#0.1.0"), "pagefold-tests");
    }
}
