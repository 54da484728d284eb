//! Builds the built-in guest's image and passes its path to the crate.
//!
//! The image is a freestanding program of package `pagefold-guest`, with flags of its own: it is
//! built by a second cargo in a target folder of its own, shielded from whatever flags, wrappers
//! and targets this build was started with. Its path is `env!("PAGEFOLD_GUEST_IMAGE")`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "pagefold-guest";
const IMAGE: &str = "pagefold-guest-image";
const PROFILE: &str = "guest";

/// The image is loaded at a fixed address, and may use nothing that not every x86-64 has: the guest
/// runs without XSAVE, so that `-C target-cpu=native` would end it at its first AVX instruction.
const RUSTFLAGS: &[&str] = &["-Ctarget-cpu=x86-64", "-Crelocation-model=static"];

/// What the environment may hold for this build and must not hold for the image.
const NOT_FOR_THE_IMAGE: &[&str] = &[
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

fn main() {
    match build_image() {
        Ok(image) => println!("cargo::rustc-env=PAGEFOLD_GUEST_IMAGE={}", image.display()),
        Err(why) => {
            for line in why.lines() {
                println!("cargo::error={line}");
            }
        }
    }
}

fn build_image() -> Result<PathBuf, String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    let guest = root.join("resources/guest");
    rerun_if_changed(&root, &guest);
    let target = variable("TARGET")?;
    if !(target.starts_with("x86_64-") && target.contains("-linux-")) {
        return Err(format!("pagefold runs on x86-64 Linux, not on {target}"));
    }
    let target_dir = PathBuf::from(variable("OUT_DIR")?).join(PROFILE);
    let mut cargo = Command::new(variable("CARGO")?);
    for name in NOT_FOR_THE_IMAGE {
        cargo.env_remove(name);
    }
    // The first of all places where cargo looks for flags: none in a configuration file counts.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    cargo
        .current_dir(&root)
        .args(["build", "--locked", "--package", PACKAGE, "--bin", IMAGE])
        .args(["--features", "freestanding", "--profile", PROFILE])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&target_dir);
    let output = cargo
        .output()
        .map_err(|error| format!("cannot start cargo to build the guest image: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the guest image does not build ({}): {cargo:?}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let image = target_dir.join(target).join(PROFILE).join(IMAGE);
    if image.is_file() {
        Ok(image)
    } else {
        Err(format!("cargo built the guest image, but not at {}", image.display()))
    }
}

fn rerun_if_changed(root: &Path, guest: &Path) {
    println!("cargo::rerun-if-changed=build.rs");
    for file in ["Cargo.toml", "build.rs", "guest.ld", "src"] {
        println!("cargo::rerun-if-changed={}", guest.join(file).display());
    }
    for file in ["Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(file).display());
    }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name} from cargo: {error}"))
}
