//! What stands where firmware would be: the instructions that reset the machine.
//!
//! A kernel that knows of no firmware may still jump to it for a reset, in real mode. Linux does where ACPI
//! is hardware-reduced and there is no EFI (`efi_reboot_required` makes its `reboot_type` EFI, which falls
//! back to BIOS), unless its command line has `reboot=`.

use pagefold_devices::PowerRegisters;
use pagefold_devices::acpi::power::RESET_VALUE;
use vm_memory::{Bytes, GuestAddress};

use super::layout::{POWER, RESET_VECTOR};
use crate::loader::WriteError;
use crate::memory::GuestRam;

/// Writes them.
///
/// # Errors
///
/// When there is no memory where they belong.
pub(crate) fn write_reset_vector(ram: &GuestRam) -> Result<(), WriteError> {
    let [low, high] = (POWER + PowerRegisters::RESET).to_le_bytes();
    let code = [
        [0xba, low, high].as_slice(), // mov dx, RESET
        &[0xb0, RESET_VALUE],         // mov al, RESET_VALUE
        &[0xee],                      // out dx, al
        &[0xf4],                      // hlt
        &[0xeb, 0xfd],                // jmp to the hlt
    ]
    .concat();
    ram.memory().write_slice(&code, GuestAddress(RESET_VECTOR)).map_err(|source| WriteError {
        what: "reset vector",
        address: RESET_VECTOR,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_to_the_firmware_writes_to_the_reset_register() {
        let ram = GuestRam::new(2 << 20).unwrap();
        write_reset_vector(&ram).unwrap();
        // F000:FFF0, as the PC has it.
        let code: [u8; 16] = ram.memory().read_obj(GuestAddress((0xf000 << 4) + 0xfff0)).unwrap();
        assert_eq!(code[..6], [0xba, 0x02, 0x06, 0xb0, 0x01, 0xee]);
    }

    #[test]
    fn memory_without_room_for_it_is_refused() {
        let error = write_reset_vector(&GuestRam::new(64 << 10).unwrap()).unwrap_err();
        assert!(error.to_string().contains("reset vector"), "{error}");
    }
}
