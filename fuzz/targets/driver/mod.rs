//! A driver's side of a virtio device with one queue: where it puts its rings, and descriptors of any shape.

use pagefold_devices::BusDevice;
use pagefold_devices::virtio::MmioTransport;
use vm_memory::GuestMemoryMmap;

pub type Memory = GuestMemoryMmap<()>;

/// Rings that a friendly driver chooses, and where its buffers begin.
pub const RINGS: [u64; 3] = [0x0, 0x1000, 0x2000];
pub const BUFFERS: u64 = 0x3000;
pub const QUEUE_SIZE: u16 = 16;

const STATUS: u64 = 0x70;
const READY: u32 = 0xf;

pub fn write(transport: &mut MmioTransport<Memory>, register: u64, value: u32) {
    transport.write(register, &value.to_le_bytes());
}

fn status(transport: &mut MmioTransport<Memory>) -> u32 {
    let mut data = [0; 4];
    transport.read(STATUS, &mut data);
    u32::from_le_bytes(data)
}

/// Resets the device, and has it be ready, as a driver does that means well.
pub fn set_up(transport: &mut MmioTransport<Memory>) {
    write(transport, STATUS, 0);
    assert_eq!(status(transport), 0);
    write(transport, STATUS, 3);
    write(transport, 0x24, 1);
    write(transport, 0x20, 1);
    write(transport, STATUS, 0xb);
    write(transport, 0x30, 0);
    write(transport, 0x38, QUEUE_SIZE.into());
    for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(RINGS) {
        write(transport, register, u32::try_from(address).unwrap());
        write(transport, register + 4, 0);
    }
    write(transport, 0x44, 1);
    write(transport, STATUS, READY);
    assert_eq!(status(transport), READY);
}

/// A descriptor whose buffer may lie across the end of a page of buffers, or nearly anywhere.
#[derive(Debug, arbitrary::Arbitrary)]
pub struct Descriptor {
    offset: u16,
    len: u16,
    is_beyond: bool,
    pub flags: u8,
    next: u8,
}

impl Descriptor {
    /// Its bytes. If it is not beyond all memory, it begins below `end` of the buffers, and is shorter than `max_len`;
    /// of its flags it has those of `flags`.
    pub fn bytes(&self, end: u16, max_len: u16, flags: u8) -> [u8; 16] {
        let address = if self.is_beyond {
            u64::MAX - u64::from(self.offset)
        } else {
            BUFFERS + u64::from(self.offset % end)
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::from(self.len % max_len).to_le_bytes());
        bytes[12..14].copy_from_slice(&u16::from(self.flags & flags).to_le_bytes());
        bytes[14..].copy_from_slice(&u16::from(self.next % 20).to_le_bytes());
        bytes
    }
}
