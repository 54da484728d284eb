//! /dev/kvm.

use std::path::Path;

use kvm_ioctls::Kvm;
use pagefold::{Host, HostConfig, HostError};

use super::finding::{Finding, Verdict, chain};
use crate::cli::failure::limit_advice;

/// The modules that may stand behind /dev/kvm.
const MODULES: [&str; 3] = ["kvm_intel", "kvm_amd", "kvm_pvm"];

/// Whether VMs can run: device, permission, API version and the capabilities that a run needs.
pub(super) fn check() -> Finding {
    let meaning = "runs the guests; needs a processor with VMX or SVM, or KVM-PVM";
    match Host::new(HostConfig::default()) {
        Ok(_) => Finding {
            name: "/dev/kvm",
            verdict: Verdict::Good,
            found: describe(),
            meaning,
            fix: None,
        },
        // Its message says how to fix it, unless a limit was hit.
        Err(HostError::Kvm(error)) => Finding {
            name: "/dev/kvm",
            verdict: Verdict::Missing,
            found: chain(&error),
            meaning,
            fix: limit_advice(&error),
        },
        // KVM comes first, so it is there.
        Err(error) => Finding {
            name: "/dev/kvm",
            verdict: Verdict::Missing,
            found: format!("{}, but: {}", describe(), chain(&error)),
            meaning,
            fix: limit_advice(&error).or_else(|| Some("see whether /proc is mounted".to_owned())),
        },
    }
}

fn describe() -> String {
    let version =
        Kvm::new().map_or_else(|_| "?".to_owned(), |kvm| kvm.get_api_version().to_string());
    let loaded = MODULES.iter().find(|module| Path::new("/sys/module").join(module).exists());
    let module = loaded.map_or("built into the kernel", |module| *module);
    format!("permitted, API version {version}, {module}, all capabilities needed are there")
}
