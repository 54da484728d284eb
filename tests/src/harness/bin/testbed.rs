//! A program that embeds the library as a density test does, and takes commands line by line.
//!
//! `testbed COUNT MEMORY_MIB SEED GUEST DEDUP` launches VMs; once all guests are ready it prints
//! where their RAM is. From then on each line of stdin is a command, and each answer a line of JSON
//! on stdout. It ends with stdin.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use pagefold::config::{BuiltinGuest, VmConfig};
use pagefold::{Host, HostConfig, VmHandle};
use pagefold_dedup::PAGE_SIZE;
use pagefold_guest::params::Params;
use pagefold_guest::ports::Control;
use pagefold_tests::harness::PATIENCE;
use pagefold_tests::harness::guest_ram::Interval;
use serde_json::{Value, json};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With stderr gone, the code is all that is left to report.
            let _ = writeln!(io::stderr(), "testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, memory_mib, seed, guest, dedup] = args.as_slice() else {
        return Err("testbed COUNT MEMORY_MIB SEED GUEST DEDUP".into());
    };
    let (count, memory_mib): (u32, u64) = (count.parse()?, memory_mib.parse()?);
    let (seed, preset, dedup) = (seed.parse()?, guest.parse()?, dedup.parse()?);
    let host = Host::new(HostConfig::default())?;
    let mut vms = Vec::new();
    for vm_number in 0..count {
        let guest = BuiltinGuest { preset, vm_number, seed };
        let config = VmConfig { dedup, ..VmConfig::builtin(memory_mib << 20, guest) };
        vms.push(host.vm(config).build()?);
    }
    for vm in &vms {
        vm.start()?;
    }
    for vm in &vms {
        vm.wait_ready(PATIENCE)?;
    }
    reply(&json!({ "ram": ram(&vms) }))?;
    for line in io::stdin().lines() {
        reply(&execute(&line?, &host, &vms)?)?;
    }
    Ok(())
}

fn execute(line: &str, host: &Host, vms: &[VmHandle]) -> Result<Value, Box<dyn Error>> {
    match line {
        "rest" => {
            vms.iter().try_for_each(|vm| vm.set_control(Control::Rest))?;
            vms.iter().try_for_each(|vm| vm.wait_resting(PATIENCE))?;
            Ok(json!({}))
        }
        "settle" => Ok(serde_json::to_value(host.dedup().settle(PATIENCE)?)?),
        "pause" => {
            vms.iter().try_for_each(VmHandle::pause)?;
            Ok(json!({}))
        }
        "resume" => {
            vms.iter().try_for_each(VmHandle::resume)?;
            Ok(json!({}))
        }
        "stats" => Ok(serde_json::to_value(host.dedup().stats()?)?),
        "check" => {
            host.dedup().check()??;
            Ok(json!({}))
        }
        "ideal" => Ok(ideal(vms)),
        "finish" => finish(vms),
        other => Err(format!("'{other}' is no command").into()),
    }
}

/// Where the RAM of each VM is.
fn ram(vms: &[VmHandle]) -> Vec<Interval> {
    let rams = vms.iter().filter_map(VmHandle::ram);
    rams.flat_map(|ram| {
        ram.regions()
            .iter()
            .map(|region| {
                let start = region.host_addr as u64;
                Interval { start, end: start + region.len_bytes() }
            })
            .collect::<Vec<_>>()
    })
    .collect()
}

fn ideal(vms: &[VmHandle]) -> Value {
    let params: Vec<&Params> = vms.iter().filter_map(VmHandle::params).collect();
    let saved_pages = params.first().map(|first| first.ideal_saved_pages(params.len() as u64));
    let zero_pages: u64 = params.iter().map(|params| u64::from(params.zero_pages)).sum();
    json!({
        "saved_bytes": saved_pages.map(|pages| pages * PAGE_SIZE as u64),
        "zero_pages": zero_pages,
    })
}

fn finish(vms: &[VmHandle]) -> Result<Value, Box<dyn Error>> {
    vms.iter().try_for_each(VmHandle::resume)?;
    vms.iter().try_for_each(|vm| vm.set_control(Control::Finish))?;
    for vm in vms {
        vm.wait(PATIENCE).ok_or("a guest does not finish")?;
    }
    Ok(json!({ "vms": vms.iter().map(VmHandle::status).collect::<Vec<_>>() }))
}

fn reply(answer: &Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{answer}")?;
    stdout.flush()
}
