use std::fs;

use super::*;

/// A disk of 16 sectors that must be as it is after whatever is requested.
fn unchanged(check: impl FnOnce(&mut Machine)) {
    let file = file(16);
    let before = fs::read(file.path()).unwrap();
    let mut machine = Machine::new(open(&file, false));
    check(&mut machine);
    // The device goes on.
    assert_eq!(machine.request(IN, 1, &[], 512).1, DONE);
    assert_eq!(machine.read(0x70), 0xf);
    assert!(fs::read(file.path()).unwrap() == before, "the disk has changed");
}

#[test]
fn sectors_that_there_are_not_and_parts_of_sectors_are_refused() {
    unchanged(|machine| {
        for (sector, len) in [
            (16, 512),
            (15, 1024),
            (17, 0),
            (u64::MAX, 512),
            (1 << 55, 512),
            (0, 511),
            (0, 513),
            (0, 1),
        ] {
            assert_eq!(machine.request(OUT, sector, &vec![0xff; len], 0).1, FAILED, "{sector}");
            let (used, status, filled) = machine.request(IN, sector, &[], len);
            assert_eq!((used, status), (u32::from(len == 0), FAILED), "{sector} {len}");
            assert_eq!(filled, if len == 0 { vec![] } else { machine.get(BUFFERS + 0x1000, len) });
        }
        assert_eq!(machine.request(IN, 16, &[], 0), (1, DONE, vec![]));
        let counts = machine.counts();
        assert_eq!((counts.refused_requests, counts.failed_requests, counts.reads), (16, 0, 1));
    });
}

#[test]
fn requests_that_there_are_not_are_unsupported() {
    unchanged(|machine| {
        for kind in [2, 3, 5, 14, 15, 26, u32::MAX] {
            assert_eq!(machine.request(kind, 0, &[0xff; 512], 0), (1, UNSUPPORTED, vec![]));
        }
        assert_eq!(machine.counts().refused_requests, 7);
    });
}

#[test]
fn ranges_that_make_no_sense_are_refused_before_any_is_given_up() {
    unchanged(|machine| {
        let good = range(0, 8, 0);
        for (kind, sent, status) in [
            (DISCARD, vec![], FAILED),
            (DISCARD, good[..15].to_vec(), FAILED),
            (DISCARD, [&good[..], &[0]].concat(), FAILED),
            (DISCARD, good.repeat(17), FAILED),
            (DISCARD, range(0, 8, 1), UNSUPPORTED),
            (DISCARD, [good.clone(), range(8, 8, 2)].concat(), UNSUPPORTED),
            (DISCARD, [good.clone(), range(9, 8, 0)].concat(), FAILED),
            (DISCARD, range(u64::MAX, 2, 0), FAILED),
            (DISCARD, range(0, u32::MAX, 0), FAILED),
            (WRITE_ZEROES, range(0, (1 << 16) + 1, 0), FAILED),
            (WRITE_ZEROES, good.repeat(2), FAILED),
            (WRITE_ZEROES, range(0, 8, 2), UNSUPPORTED),
            (WRITE_ZEROES, range(12, 8, 1), FAILED),
        ] {
            assert_eq!(machine.request(kind, 0, &sent, 0), (1, status, vec![]), "{kind} {sent:?}");
        }
    });
}

#[test]
fn chains_without_a_status_or_an_end_come_back_empty() {
    unchanged(|machine| {
        let data = BUFFERS + 0x1000;
        machine.put(&header(OUT, 0), BUFFERS);
        machine.put(&[0xff; 512], data);
        for chain in [
            // Nothing to be written, an empty buffer, one beyond memory, one whose end is.
            &[(BUFFERS, 16, false), (data, 512, false)][..],
            &[(BUFFERS, 16, false), (data, 512, false), (data, 0, true)],
            &[(BUFFERS, 16, false), (data, 512, false), (u64::MAX, 1, true)],
            &[(BUFFERS, 16, false), (data, 512, false), (MEMORY_BYTES as u64 - 1, 2, true)],
        ] {
            assert_eq!(machine.carry_out(chain), 0, "{chain:?}");
        }
        // In a circle, and to a descriptor that there is not.
        for next in [None, Some(QUEUE_SIZE), Some(u16::MAX)] {
            let status = machine.describe((data, 1, true), Some(0));
            let next = next.unwrap_or(status);
            let head = machine.describe((BUFFERS, 16, false), Some(next));
            machine.describe((data, 1, true), Some(next));
            machine.offer(head);
            assert_eq!(machine.wait_for(1), [(head.into(), 0)]);
        }
        assert_eq!(machine.counts().refused_requests, 7);
    });
}

#[test]
fn headers_that_make_no_sense_fail_with_a_status() {
    unchanged(|machine| {
        let (data, status) = (BUFFERS + 0x1000, BUFFERS + 0x2000);
        machine.put(&header(OUT, 0), BUFFERS);
        machine.put(&[0xff; 512], data);
        for chain in [
            // Too short, to be written, behind what is written, beyond memory; data beyond memory.
            &[(BUFFERS, 15, false), (status, 1, true)][..],
            &[(BUFFERS, 16, true), (data, 512, true), (status, 1, true)],
            &[(status, 1, true), (BUFFERS, 16, false), (data, 512, false)],
            &[(status, 1, true)],
            &[(MEMORY_BYTES as u64 - 8, 16, false), (data, 512, false), (status, 1, true)],
            &[(BUFFERS, 16, false), (MEMORY_BYTES as u64, 512, false), (status, 1, true)],
            &[(BUFFERS, 16, false), (u64::MAX - 511, 512, false), (status, 1, true)],
            &[(BUFFERS, 16, false), (data, 1 << 31, false), (status, 1, true)],
        ] {
            machine.put(&[NO_STATUS], status);
            machine.carry_out(chain);
            assert_eq!(machine.get(status, 1), [FAILED], "{chain:?}");
        }
        assert_eq!(machine.counts().refused_requests, 8);
        assert!(machine.get(data, 512).iter().all(|&byte| byte == 0xff));
    });
}

#[test]
fn a_disk_to_be_read_only_is_not_written() {
    let file = file(16);
    let before = fs::read(file.path()).unwrap();
    let mut machine = Machine::new(open(&file, true));
    assert_eq!(machine.request(OUT, 0, &[0xff; 512], 0), (1, FAILED, vec![]));
    assert_eq!(machine.request(DISCARD, 0, &range(0, 8, 0), 0), (1, UNSUPPORTED, vec![]));
    assert_eq!(machine.request(WRITE_ZEROES, 0, &range(0, 8, 0), 0), (1, UNSUPPORTED, vec![]));
    assert_eq!(machine.request(IN, 2, &[], 512), (513, DONE, vec![2; 512]));
    assert_eq!(machine.counts().refused_requests, 3);
    assert_eq!(fs::read(file.path()).unwrap(), before);
}

#[test]
fn indirect_descriptors_are_followed_once() {
    const INDIRECT: u16 = 4;
    unchanged(|machine| {
        let (table, data) = (BUFFERS + 0x4000, BUFFERS + 0x1000);
        machine.put(&header(IN, 5), BUFFERS);
        let put = |machine: &mut Machine, at: u64, descriptor: Descriptor| {
            machine.memory.write_obj(descriptor, GuestAddress(table + 16 * at)).unwrap();
        };
        put(machine, 0, Descriptor::new(BUFFERS, 16, 1, 1));
        put(machine, 1, Descriptor::new(data, 512, 3, 2));
        put(machine, 2, Descriptor::new(data + 512, 1, 2, 0));
        let offer = |machine: &mut Machine, len: u32| {
            let at = GuestAddress(RINGS[0] + 16 * 9);
            machine.memory.write_obj(Descriptor::new(table, len, INDIRECT, 0), at).unwrap();
            machine.offer(9);
            machine.wait_for(1)
        };
        assert_eq!(offer(machine, 48), [(9, 513)]);
        assert_eq!(machine.get(data, 513), [vec![5; 512], vec![DONE]].concat());
        // A part of a descriptor, no descriptors, a table in a table, a circle.
        assert_eq!(offer(machine, 47), [(9, 0)]);
        assert_eq!(offer(machine, 0), [(9, 0)]);
        put(machine, 1, Descriptor::new(table, 48, INDIRECT, 0));
        assert_eq!(offer(machine, 48), [(9, 0)]);
        put(machine, 1, Descriptor::new(data, 512, 3, 0));
        assert_eq!(offer(machine, 48), [(9, 0)]);
    });
}

#[test]
fn a_head_that_there_is_not_puts_the_device_out_of_order_until_it_is_reset() {
    let file = file(16);
    let mut machine = Machine::new(open(&file, false));
    machine.offer(QUEUE_SIZE);
    machine.process();
    while machine.transport.process_queue(0).is_ok() && machine.read(0x70) == 0xf {
        std::thread::yield_now();
    }
    assert_eq!(machine.read(0x70), 0xf | 64);
    machine.set_up(F_FLUSH);
    assert_eq!(machine.request(IN, 1, &[], 512).1, DONE);
}
