//! Folds two guests with knobs of its own, then gives every page its own memory again.
#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use std::error::Error;
use std::time::Duration;

use pagefold::{
    BuiltinGuest, DedupConfig, EngineConfig, Host, HostConfig, Knobs, Preset, Run, VmConfig,
};

fn main() -> Result<(), Box<dyn Error>> {
    let knobs = Knobs { max_page_sharing: 64, sleep_millisecs: 5, ..Knobs::default() };
    let engine = EngineConfig { knobs, ..EngineConfig::default() };
    let dedup = DedupConfig { engine, ..DedupConfig::default() };
    let host = Host::new(HostConfig { dedup, ..HostConfig::default() })?;
    for vm_number in 0..2 {
        let guest = BuiltinGuest { preset: Preset::Mix, vm_number, seed: 1 };
        host.vm(VmConfig::builtin(16 << 20, guest)).build()?.start()?;
    }
    for vm in host.vms() {
        println!("VM {} was ready after {} ms", vm.id(), vm.wait_ready(Duration::from_mins(1))?);
    }
    let report = host.dedup().settle(Duration::from_mins(1))?;
    let saved_bytes = host.dedup().stats()?.saved_bytes;
    println!("{saved_bytes} bytes are saved after {} ms", report.elapsed_ms);

    host.dedup().change_knobs(|knobs| knobs.run = Run::Unmerge)?;
    while host.dedup().stats()?.pages_shared > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("every page has its own memory");
    host.stop_all();
    Ok(())
}
