//! Guest memory, as a device reaches it.

use vm_memory::GuestMemory;

/// Guest memory in which a device finds its requests and leaves its answers.
///
/// It is vm-memory's trait, which virtqueues are written against: the RAM of a VM implements it, and
/// so do a few pages of a test without KVM. What a device owes it:
///
/// * Addresses and lengths come from the guest, so every access may fail, and fails the request
///   alone.
/// * Writes go through it and through nothing else: it marks them in its bitmap, and KVM's dirty log
///   names only what the guest wrote. Memory written unmarked would be taken for unchanged.
/// * Pages are not pinned, and no reference to them is kept: folding replaces them at any time.
pub trait DeviceMemory: GuestMemory + Send + Sync {}

impl<M: GuestMemory + Send + Sync + ?Sized> DeviceMemory for M {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;

    /// As a device does that copies at the guest's request.
    fn copy(memory: &impl DeviceMemory, from: u64, to: u64, len: usize) -> bool {
        let mut data = vec![0; len];
        memory.read_slice(&mut data, GuestAddress(from)).is_ok()
            && memory.write_slice(&data, GuestAddress(to)).is_ok()
    }

    fn two_pages() -> GuestMemoryMmap<()> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), 0x2000)]).unwrap()
    }

    #[test]
    fn a_device_reads_and_writes_memory_without_a_vm() {
        let memory = two_pages();
        memory.write_slice(b"request", GuestAddress(0x1ffc)).unwrap();
        assert!(copy(&memory, 0x1ffc, 0x1000, 7));
        let mut data = [0; 7];
        memory.read_slice(&mut data, GuestAddress(0x1000)).unwrap();
        assert_eq!(&data, b"request");
    }

    fn address() -> impl Strategy<Value = u64> {
        prop_oneof![0_u64..0x4000, any::<u64>(), (0_u64..16).prop_map(|below| u64::MAX - below)]
    }

    proptest! {
        #[test]
        fn addresses_and_lengths_of_a_hostile_guest_fail_and_do_not_panic(
            from in address(),
            to in address(),
            len in 0_usize..0x4000,
        ) {
            let is_memory = |address: u64| {
                address >= 0x1000
                    && address.checked_add(len as u64).is_some_and(|end| end <= 0x3000)
            };
            let copied = copy(&two_pages(), from, to, len);
            prop_assert_eq!(copied, len == 0 || (is_memory(from) && is_memory(to)));
        }
    }
}
