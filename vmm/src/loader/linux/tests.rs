//! Kernels that make sense, and all that do not.

use std::io::Write;
use std::path::PathBuf;

use linux_loader::bootparam::{boot_params, setup_header};
use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_start_info};
use proptest::prelude::*;
use tempfile::{NamedTempFile, TempDir};
use vm_memory::{ByteValued, Bytes, GuestAddress};

use super::memory_map::{RAM, memory_map};
use super::*;
use crate::config::PcDevices;
use crate::memory::HOLE_END;

const MIB: u64 = 1 << 20;

/// What a bzImage says of itself: that it is to be loaded at 16 MiB, and needs 4 MiB there.
fn header() -> setup_header {
    setup_header {
        setup_sects: 1,
        boot_flag: 0xaa55,
        header: 0x5372_6448,
        version: 0x020f,
        loadflags: 1,
        xloadflags: 1,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: 100,
        pref_address: 16 * MIB,
        init_size: 4 << 20,
        ..setup_header::default()
    }
}

/// A bzImage with this header, and nothing but 0x90 for a kernel.
fn bzimage(header: setup_header) -> NamedTempFile {
    let mut bytes = vec![0; 0x1f1];
    bytes.extend_from_slice(header.as_slice());
    bytes.resize(1024, 0);
    bytes.resize(4096, 0x90);
    file(&bytes)
}

/// An ELF image with one segment of 16 bytes at 1 MiB, and a note that PVH is entered 8 bytes further, if it is asked for.
fn elf(has_pvh: bool) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    let word = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    // An executable for x86-64 in version 1, entered at 1 MiB, with program headers behind this one.
    bytes.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for value in [MIB, 64, 0] {
        word(&mut bytes, value);
    }
    bytes.extend_from_slice(&[
        0,
        0,
        0,
        0,
        64,
        0,
        56,
        0,
        1 + u8::from(has_pvh),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    let mut segment = |kind: u32, offset: u64, address: u64, len: u64| {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&5_u32.to_le_bytes());
        for value in [offset, address, address, len, len, 4] {
            word(&mut bytes, value);
        }
    };
    segment(1, 256, MIB, 16);
    if has_pvh {
        segment(4, 512, 0, 20);
    }
    bytes.resize(256, 0);
    bytes.resize(272, 0x90);
    bytes.resize(512, 0);
    bytes.extend_from_slice(&[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    bytes.extend_from_slice(b"Xen\0\x08\0\x10\0");
    bytes
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn guest(kernel: &NamedTempFile) -> LinuxGuest {
    LinuxGuest {
        kernel: kernel.path().to_owned(),
        initrd: None,
        cmdline: "console=ttyS0".to_owned(),
        devices: PcDevices::default(),
    }
}

fn check(guest: &LinuxGuest, memory_bytes: u64) -> Result<(), String> {
    let layout = MemoryLayout::new(memory_bytes).unwrap();
    guest.check(layout, 1).map_err(|error| error.to_string())
}

fn text(ram: &GuestRam, address: u64, len: usize) -> String {
    let mut bytes = vec![0; len];
    ram.memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_bzimage_is_entered_in_long_mode_with_parameters_that_lead_to_all_it_is_given() {
    let (kernel, initrd) = (bzimage(header()), file(b"070701"));
    let guest = LinuxGuest { initrd: Some(initrd.path().to_owned()), ..guest(&kernel) };
    let ram = GuestRam::new(32 * MIB).unwrap();
    let entries = guest.load(&ram, 2, 1).unwrap();
    let [entry] = entries[..] else { panic!("one vCPU starts the others: {entries:?}") };
    assert_eq!((entry.instruction.0, entry.privilege), (16 * MIB + 0x200, Privilege::Kernel));
    assert!(entry.page_tables.is_some());
    let Argument::Rsi(params) = entry.argument else { panic!("{entry:?}") };
    let params: boot_params = ram.memory().read_obj(GuestAddress(params)).unwrap();
    let hdr = params.hdr;
    assert_eq!({ hdr.header }, 0x5372_6448);
    assert_eq!(text(&ram, hdr.cmd_line_ptr.into(), 14), "console=ttyS0\0");
    assert_eq!(text(&ram, hdr.ramdisk_image.into(), 6), "070701");
    assert_eq!({ hdr.ramdisk_size }, 6);
    assert_eq!(text(&ram, params.acpi_rsdp_addr, 8), "RSD PTR ");
    let last = params.e820_table[usize::from(params.e820_entries) - 1];
    assert_eq!(({ last.addr }, { last.size }, { last.r#type }), (MIB, 31 * MIB, RAM));
    // As high as there is memory, and the kernel where it wants to be.
    assert_eq!(u64::from(hdr.ramdisk_image), 32 * MIB - 4096);
    assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(16 * MIB)).unwrap(), 0x90);
}

#[test]
fn an_elf_image_is_entered_by_pvh_if_it_can_be() {
    let ram = GuestRam::new(8 * MIB).unwrap();
    let entry = guest(&file(&elf(true))).load(&ram, 1, 1).unwrap()[0];
    assert_eq!((entry.instruction.0, entry.page_tables), (MIB + 8, None));
    let Argument::Ebx(info) = entry.argument else { panic!("{entry:?}") };
    let info: hvm_start_info = ram.memory().read_obj(GuestAddress(info)).unwrap();
    assert_eq!((info.magic, info.nr_modules, info.memmap_entries), (0x336e_c578, 0, 3));
    assert_eq!(text(&ram, info.cmdline_paddr, 13), "console=ttyS0");
    assert_eq!(text(&ram, info.rsdp_paddr, 8), "RSD PTR ");
    let first: hvm_memmap_table_entry =
        ram.memory().read_obj(GuestAddress(info.memmap_paddr)).unwrap();
    assert_eq!((first.addr, first.type_), (0, RAM));

    let entry = guest(&file(&elf(false))).load(&ram, 1, 1).unwrap()[0];
    assert_eq!((entry.instruction.0, entry.page_tables.is_some()), (MIB, true));
}

#[test]
fn memory_above_the_hole_is_described_too() {
    let map = memory_map(MemoryLayout::new(6 << 30).unwrap());
    let end = map.last().unwrap();
    assert_eq!(*end, (HOLE_END..HOLE_END + (3 << 30), RAM));
    let bytes = |kind| map.iter().filter(move |(_, found)| *found == kind);
    let all: u64 = bytes(RAM).map(|(range, _)| range.end - range.start).sum();
    // But for what lies between 640 KiB and 1 MiB.
    assert_eq!(all, (6 << 30) - (384 << 10));
}

#[test]
fn what_is_no_kernel_is_refused_with_what_it_is() {
    let with = |change: fn(&mut setup_header)| {
        let mut header = header();
        change(&mut header);
        bzimage(header)
    };
    let mut arm = elf(false);
    arm[18] = 183;
    for (kernel, part) in [
        (file(b""), "is empty"),
        (file(b"#!/bin/sh\n"), "too short"),
        (file(&[0; 4096]), "neither an ELF image nor a bzImage"),
        (file(b"\x1f\x8b\x08"), "compressed by gzip"),
        (file(&arm), "64-bit AArch64"),
        (with(|header| header.version = 0x0204), "older than that of Linux 3.8"),
        (with(|header| header.loadflags = 0), "older than that of Linux 3.8"),
        (with(|header| header.xloadflags = 0), "no 64-bit entry"),
        (with(|header| header.pref_address = 0), "asks for an address that there is not"),
        (with(|header| header.pref_address = u64::MAX), "asks for an address that there is not"),
        (with(|header| header.init_size = u32::MAX), "needs memory up to 0x100ffffff"),
    ] {
        let error = check(&guest(&kernel), 64 * MIB).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
    let cut_short = file(&elf(true)[..100]);
    let error =
        guest(&cut_short).load(&GuestRam::new(8 * MIB).unwrap(), 1, 1).unwrap_err().to_string();
    assert!(error.contains("cannot be loaded"), "{error}");
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    for (path, part) in [
        (fifo, "not a regular file"),
        (PathBuf::from("/"), "not a regular file"),
        (directory.path().join("nothing"), "cannot read the kernel"),
    ] {
        let guest = LinuxGuest {
            kernel: path,
            initrd: None,
            cmdline: String::new(),
            devices: PcDevices::default(),
        };
        let error = check(&guest, 64 * MIB).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_sizes() {
    let kernel = bzimage(header());
    assert!(check(&guest(&kernel), 20 * MIB).is_ok());
    let error = check(&guest(&kernel), 19 * MIB).unwrap_err();
    assert!(error.contains("up to 0x1400000, and the VM's ends at 0x1300000"), "{error}");
    let initrd = file(&[1; 4097]);
    let guest = LinuxGuest { initrd: Some(initrd.path().to_owned()), ..guest(&kernel) };
    assert!(check(&guest, 20 * MIB + 8192).is_ok());
    let error = check(&guest, 20 * MIB + 4096).unwrap_err();
    assert!(
        error.contains("4097 bytes does not fit between") && error.contains("0x1401000"),
        "{error}"
    );
}

#[test]
fn a_command_line_is_refused_that_the_kernel_would_cut_short() {
    let kernel = bzimage(header());
    let with = |cmdline: String| LinuxGuest { cmdline, ..guest(&kernel) };
    assert!(check(&with("x".repeat(100)), 32 * MIB).is_ok());
    let error = check(&with("x".repeat(101)), 32 * MIB).unwrap_err();
    assert!(error.contains("has 101 bytes, and this kernel takes 100"), "{error}");
    let error = check(&with("a\0b".to_owned()), 32 * MIB).unwrap_err();
    assert!(error.contains("at position 1"), "{error}");
    let layout = MemoryLayout::new(32 * MIB).unwrap();
    let error = guest(&kernel).check(layout, 33).unwrap_err().to_string();
    assert!(error.contains("at most 32 vCPUs here, and 33"), "{error}");
}

proptest! {
    #[test]
    fn no_file_makes_loading_panic(
        is_elf in any::<bool>(),
        changes in prop::collection::vec((0_usize..700, any::<u8>()), 0..12),
        len in 0_usize..5000,
    ) {
        let mut bytes = if is_elf {
            elf(true)
        } else {
            std::fs::read(bzimage(header()).path()).unwrap()
        };
        for (at, byte) in changes {
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
        }
        bytes.truncate(len);
        let kernel = file(&bytes);
        let guest = guest(&kernel);
        let ram = GuestRam::new(32 * MIB).unwrap();
        // What passes the check may still be refused when it is loaded.
        if guest.check(ram.layout(), 1).is_ok() {
            let _ = guest.load(&ram, 1, 1);
        }
    }
}
