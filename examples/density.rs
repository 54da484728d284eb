//! A density test: how much of the memory of equal services is saved.

use std::error::Error;
use std::time::Duration;

use pagefold::{BuiltinGuest, BuiltinStatus, Control, Host, HostConfig, Preset, VmConfig};

#[test]
fn half_of_the_memory_of_four_services_is_saved() -> Result<(), Box<dyn Error>> {
    const MEMORY_BYTES: u64 = 16 << 20;
    let patience = Duration::from_mins(1);
    let host = Host::new(HostConfig::default())?;
    for vm_number in 0..4 {
        let guest = BuiltinGuest { preset: Preset::Idle, vm_number, seed: 1 };
        host.vm(VmConfig::builtin(MEMORY_BYTES, guest)).build()?.start()?;
    }
    for vm in host.vms() {
        vm.wait_ready(patience)?;
        vm.set_control(Control::Rest)?;
        vm.wait_resting(patience)?;
    }
    host.dedup().settle(patience)?;
    let stats = host.dedup().stats()?;
    assert!(stats.saved_bytes >= 4 * MEMORY_BYTES / 2, "{stats:#?}");
    for vm in host.vms() {
        assert_eq!(BuiltinStatus::of(&vm.status()).and_then(|guest| guest.corrupt), Some(0));
        println!("VM {}: {}", vm.id(), vm.stop());
    }
    host.forget_stopped();
    Ok(())
}
