use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::virtio::{Processed, VirtioDevice};

type Memory = GuestMemoryMmap<()>;

const MEMORY_BYTES: usize = 0x2_0000;
const BUFFER: u64 = 0x1_0000;
const SIZE: u16 = 16;

fn memory() -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap()
}

fn buffer(addr: u64, len: u32, flags: u32, next: u16) -> RawDescriptor {
    RawDescriptor::from(Descriptor::new(addr, len, u16::try_from(flags).unwrap(), next))
}

/// Has a device carry out requests, of one chain each; returns what came of them, and the lengths in the used ring.
fn requested(memory: &Memory, chains: &[RawDescriptor]) -> (Rng, Processed, Vec<u32>) {
    let driver = MockSplitQueue::new(memory, SIZE);
    driver.build_multiple_desc_chains(chains).unwrap();
    let mut queue = driver.create_queue().unwrap();
    let mut device = Rng::default();
    let processed = device.process(0, &mut queue, memory).unwrap();
    let count = u16::from_le(driver.used().idx().load());
    let used = |at| driver.used().ring().ref_at(at).unwrap().load().len();
    (device, processed, (0..count.into()).map(used).collect())
}

#[test]
fn every_buffer_of_a_request_is_filled_with_random_bytes() {
    let memory = memory();
    let chain = [
        buffer(BUFFER, 64, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1),
        buffer(BUFFER + 0x1000, 32, VRING_DESC_F_WRITE, 0),
    ];
    let (device, processed, used) = requested(&memory, &chain);
    assert_eq!(used, [96]);
    assert_eq!(processed, Processed { is_interrupt_needed: true, is_more: false });
    assert_eq!(device.metrics().counts(), RngCounts { requests: 1, failed_requests: 0, bytes: 96 });
    for (address, len) in [(BUFFER, 64), (BUFFER + 0x1000, 32)] {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        assert!(bytes.iter().filter(|&&byte| byte != 0).count() > len / 2, "{bytes:?}");
    }
    let mut after = [1; 8];
    memory.read_slice(&mut after, GuestAddress(BUFFER + 64)).unwrap();
    assert_eq!(after, [0; 8]);
}

#[test]
fn a_request_is_given_a_page_at_most() {
    let (.., used) = requested(&memory(), &[buffer(BUFFER, 0x8000, VRING_DESC_F_WRITE, 0)]);
    assert_eq!(used, [4096]);
}

#[test]
fn requests_that_make_no_sense_fail_alone_and_come_back_empty() {
    let memory = memory();
    let chains = [
        // Not to be written to, empty, beyond memory, across its end, in a loop.
        buffer(BUFFER, 64, 0, 0),
        buffer(BUFFER, 0, VRING_DESC_F_WRITE, 0),
        buffer(u64::MAX - 7, 64, VRING_DESC_F_WRITE, 0),
        buffer(MEMORY_BYTES as u64 - 8, 64, VRING_DESC_F_WRITE, 0),
        buffer(BUFFER, 64, VRING_DESC_F_WRITE, 0),
    ];
    let (device, processed, used) = requested(&memory, &chains);
    assert_eq!(used, [0, 0, 0, 0, 64]);
    assert!(processed.is_interrupt_needed);
    let counts = device.metrics().counts();
    assert_eq!((counts.requests, counts.failed_requests), (1, 4));
}
