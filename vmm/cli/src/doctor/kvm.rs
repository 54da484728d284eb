//! /dev/kvm.

use std::error::Error;
use std::path::Path;

use kvm_ioctls::Kvm;
use pagefold::{Host, HostConfig, HostError, OpenKvmError};
use pagefold_dedup::ErrorChain;

use super::finding::{Finding, Verdict};
use crate::failure::limit_advice;

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
        Err(HostError::Kvm(error)) => {
            let (found, advice) = found_and_advice(&error);
            let fix = limit_advice(&error).or(advice);
            Finding { name: "/dev/kvm", verdict: Verdict::Missing, found, meaning, fix }
        }
        // KVM comes first, so it is there.
        Err(error) => Finding {
            name: "/dev/kvm",
            verdict: Verdict::Missing,
            found: format!("{}, but: {}", describe(), ErrorChain::new(&error)),
            meaning,
            fix: limit_advice(&error).or_else(|| Some("see whether /proc is mounted".to_owned())),
        },
    }
}

/// What is wrong, and how to fix it, both of which the message has: before a colon and after it.
fn found_and_advice(error: &OpenKvmError) -> (String, Option<String>) {
    let message = error.to_string();
    let Some((what, advice)) = message.split_once(": ") else {
        return (ErrorChain::new(error).to_string(), None);
    };
    let found = match error.source() {
        Some(cause) => format!("{what}: {}", ErrorChain::new(cause)),
        None => what.to_owned(),
    };
    (found, Some(advice.to_owned()))
}

fn describe() -> String {
    let version =
        Kvm::new().map_or_else(|_| "?".to_owned(), |kvm| kvm.get_api_version().to_string());
    let loaded = MODULES.iter().find(|module| Path::new("/sys/module").join(module).exists());
    let module = loaded.map_or("built into the kernel", |module| *module);
    format!("permitted, API version {version}, {module}, all capabilities needed are there")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_kvm_lacks_is_kept_apart_from_how_to_fix_it() {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let (found, advice) = found_and_advice(&OpenKvmError::NoPermission(refused));
        assert_eq!(found, "no permission to use /dev/kvm: permission denied");
        assert!(advice.is_some_and(|advice| advice.contains("usermod")));
        let (found, advice) = found_and_advice(&OpenKvmError::ApiVersion { found: 11 });
        assert!(found.ends_with("is needed"), "{found}");
        assert_eq!(advice.as_deref(), Some("use Linux 2.6.22 or later"));
        let (_, advice) = found_and_advice(&OpenKvmError::Open(io::Error::from_raw_os_error(24)));
        assert_eq!(advice, None);
    }
}
