use std::fs;

use proptest::prelude::*;

use super::*;

const SECTORS: u64 = 24;

/// A request that may make no sense.
#[derive(Debug, Clone)]
struct Step {
    kind: u32,
    sector: u64,
    sectors: u32,
    flags: u32,
    byte: u8,
    /// Where the data is cut into buffers.
    cuts: Vec<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![IN, OUT, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 99]);
    let cuts = prop::collection::vec(0_usize..2048, 0..6);
    (kind, 0_u64..SECTORS + 4, 0_u32..5, 0_u32..3, 1_u8.., cuts).prop_map(
        |(kind, sector, sectors, flags, byte, cuts)| Step {
            kind,
            sector,
            sectors,
            flags,
            byte,
            cuts,
        },
    )
}

/// What is to come of a step: its status, and what it reads.
fn expected(step: &Step, disk: &mut [u8]) -> (u8, Option<Vec<u8>>) {
    let range = |sectors: u32| {
        let start = usize::try_from(step.sector * 512).unwrap();
        let end = start + sectors as usize * 512;
        (end <= disk.len()).then_some(start..end)
    };
    match step.kind {
        FLUSH | GET_ID => (DONE, None),
        DISCARD if step.flags != 0 => (UNSUPPORTED, None),
        WRITE_ZEROES if step.flags > 1 => (UNSUPPORTED, None),
        IN | OUT | DISCARD | WRITE_ZEROES => match range(step.sectors) {
            None => (FAILED, None),
            Some(range) => {
                let part = &mut disk[range];
                match step.kind {
                    OUT => part.fill(step.byte),
                    // The file system that tests have gives zeroes back.
                    DISCARD | WRITE_ZEROES => part.fill(0),
                    _ => return (DONE, Some(part.to_vec())),
                }
                (DONE, None)
            }
        },
        _ => (UNSUPPORTED, None),
    }
}

/// `len` bytes from `start` on in buffers that end at the cuts.
fn cut(start: u64, len: u32, cuts: &[usize], is_written: bool) -> Vec<Buffer> {
    let mut ends: Vec<u32> = cuts.iter().map(|&at| u32::try_from(at).unwrap().min(len)).collect();
    ends.sort_unstable();
    ends.push(len);
    let mut at = 0;
    let mut buffers = Vec::new();
    for end in ends {
        buffers.push((start + u64::from(at), end - at, is_written));
        at = end;
    }
    buffers
}

fn chain(machine: &Machine, step: &Step) -> Vec<Buffer> {
    let (data, status) = (BUFFERS + 0x1000, BUFFERS + 16);
    machine.put(&header(step.kind, step.sector), BUFFERS);
    machine.put(&[NO_STATUS], status);
    let bytes = step.sectors * 512;
    let mut chain = cut(BUFFERS, 16, &step.cuts, false);
    match step.kind {
        IN => chain.extend(cut(data, bytes, &step.cuts, true)),
        GET_ID => chain.extend(cut(data, 20, &step.cuts, true)),
        OUT => {
            machine.put(&vec![step.byte; bytes as usize], data);
            chain.extend(cut(data, bytes, &step.cuts, false));
        }
        DISCARD | WRITE_ZEROES => {
            machine.put(&range(step.sector, step.sectors, step.flags), data);
            chain.extend(cut(data, 16, &step.cuts, false));
        }
        _ => {}
    }
    chain.push((status, 1, true));
    chain
}

proptest! {
    #[test]
    fn a_disk_is_what_was_written_to_it(steps in prop::collection::vec(step(), 1..32)) {
        let file = file(u8::try_from(SECTORS).unwrap());
        let mut disk = fs::read(file.path()).unwrap();
        let mut machine = Machine::new(open(&file, false));
        for step in &steps {
            let chain = chain(&machine, step);
            machine.carry_out(&chain);
            let (status, read) = expected(step, &mut disk);
            prop_assert_eq!(machine.get(BUFFERS + 16, 1)[0], status, "{:?}", step);
            if let Some(read) = read {
                let found = machine.get(BUFFERS + 0x1000, read.len());
                prop_assert!(found == read, "{:?}", step);
            }
        }
        prop_assert!(fs::read(file.path()).unwrap() == disk);
    }

    #[test]
    fn no_chain_makes_a_device_panic_or_writes_what_is_not_named(
        buffers in prop::collection::vec(
            (prop_oneof![4 => BUFFERS..BUFFERS + 0x2000, 1 => any::<u64>()], 0_u32..2048, any::<bool>()),
            1..8,
        ),
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), 0_u8..14, any::<u8>()], 64),
    ) {
        let file = file(8);
        let mut machine = Machine::new(open(&file, false));
        for at in 0..0x2000 / 64 {
            machine.put(&bytes, BUFFERS + at * 64);
        }
        let before = machine.get(BUFFERS, 0x3000);
        machine.carry_out(&buffers);
        let after = machine.get(BUFFERS, 0x3000);
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            let at = BUFFERS + at as u64;
            let is_named = buffers.iter().any(|&(start, len, is_written)| {
                is_written && at >= start && at - start < len.into()
            });
            prop_assert!(is_named || before == after, "{at:#x}");
        }
        prop_assert_eq!(file.as_file().metadata().unwrap().len(), 4096);
        prop_assert_eq!(machine.request(FLUSH, 0, &[], 0).1, DONE);
    }
}
