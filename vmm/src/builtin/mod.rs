//! The VMM's part of the built-in guest: its parameters, its reports, and the devices through which
//! they pass. Nothing else of the VMM depends on its workload: a VM has it as its
//! [`GuestExtension`]. A flat image has the same devices, and may report in the same way.
//!
//! | file | what it is |
//! |---|---|
//! | `devices` | its paravirtual block |
//! | `reports` | what it has printed so far |
//! | `status` | the same, for people and programs |
//! | `operations` | the methods of [`VmHandle`](crate::VmHandle) that only it answers to |
//!
//! How it is loaded is in [`loader`](crate::loader).

mod devices;
mod operations;
mod reports;
mod status;

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pagefold_devices::{Buses, ControlWord, InsertError};
use pagefold_guest::params::Params;
use pagefold_guest::ports::Control;
use pagefold_guest::report;

use crate::console::MAX_LINE_BYTES;
use crate::extension::GuestExtension;
use crate::status::GuestReport;
use reports::Reports;
pub use status::BuiltinStatus;

// Its lines come whole.
const _: () = assert!(report::MAX_LINE_BYTES <= MAX_LINE_BYTES);

/// What a VM has for the built-in guest alone.
#[derive(Debug)]
pub(crate) struct Builtin {
    /// What is on its parameter page; `None` of a flat image, which has none.
    params: Option<Params>,
    /// What the CONTROL register of its paravirtual block reads.
    control: ControlWord,
    /// Changed under the lock of the VM's watch, so that it can be waited for.
    reports: Mutex<Reports>,
}

impl Builtin {
    /// That of a guest with these parameters, which has reported nothing and is to run.
    pub(crate) fn new(params: Option<Params>) -> Self {
        let control = ControlWord::new(Control::Run.to_register());
        Self { params, control, reports: Mutex::default() }
    }

    /// `extension` as the built-in guest's, or a flat image's; `None` if it is another guest's.
    fn of(extension: &dyn GuestExtension) -> Option<&Self> {
        (extension as &dyn Any).downcast_ref()
    }

    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GuestExtension for Builtin {
    fn take_line(&self, line: &[u8]) -> bool {
        self.reports().take_line(line)
    }

    fn insert_devices(&self, buses: &mut Buses) -> Result<(), InsertError> {
        devices::insert(buses, self.control.clone())
    }

    fn report(&self) -> GuestReport {
        // A vCPU that has a line to add does not wait until it is JSON.
        let status = self.reports().status();
        status.into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use pagefold_dedup::VmId;
    use pagefold_devices::SerialOutput;
    use pagefold_guest::workload::Preset;

    use super::*;
    use crate::config::{BuiltinGuest, FlatImage, Guest, LinuxGuest, PcDevices, Privilege};
    use crate::console::Console;
    use crate::dedup_host::FoldingWaker;
    use crate::vm::GuestListener;
    use crate::watch::Watch;

    #[test]
    fn only_the_built_in_guest_has_parameters() {
        let of = |guest: Guest| {
            let extension = guest.extension(64 << 20, 1_000_000).unwrap();
            Builtin::of(&*extension).and_then(|builtin| builtin.params)
        };
        let guest = BuiltinGuest { preset: Preset::Mix, vm_number: 3, seed: 1 };
        let params = of(Guest::Builtin(guest));
        assert_eq!(params.map(|params| params.memory_bytes), Some(64 << 20));
        let flat = FlatImage { code: vec![0xf4], privilege: Privilege::User };
        assert!(of(Guest::Flat(flat)).is_none());
    }

    #[test]
    fn another_guest_has_no_extension_of_this_kind() {
        let (kernel, cmdline) = (PathBuf::from("/vmlinux"), String::new());
        let linux = LinuxGuest { kernel, initrd: None, cmdline, devices: PcDevices::default() };
        let extension = Guest::Linux(linux).extension(64 << 20, 1_000_000).unwrap();
        assert!(Builtin::of(&*extension).is_none());
        assert!(!extension.take_line(b"READY pages=1") && extension.take_line(b"READY"));
        assert_eq!(extension.report(), GuestReport::default());
    }

    #[test]
    fn lines_are_taken_as_they_end() {
        let (builtin, watch) = (Arc::new(Builtin::new(None)), Arc::new(Watch::default()));
        let listener = GuestListener {
            extension: Arc::clone(&builtin) as Arc<dyn GuestExtension>,
            watch: Arc::clone(&watch),
            folding: FoldingWaker::default(),
        };
        let mut console = Console::new(VmId(0), MAX_LINE_BYTES, Box::new(listener));
        let print = |console: &mut Console, text: &str| text.bytes().for_each(|b| console.byte(b));
        print(&mut console, "READY pa");
        assert!(watch.now().ready_at.is_none());
        print(&mut console, "ges=1\nPANIC why\n");
        assert!(watch.now().ready_at.is_some());
        assert_eq!(builtin.reports().panic.as_deref(), Some("why"));
    }
}
