//! Why KVM gave up on a guest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why KVM gave up on a guest (KVM API section 5, `KVM_EXIT_INTERNAL_ERROR`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternalError {
    /// `KVM_INTERNAL_ERROR_*`; 1 is an instruction that KVM cannot emulate.
    pub suberror: u32,
    /// The bytes at the instruction pointer, when KVM reports them: they name the missing instruction.
    pub instruction: Vec<u8>,
}

impl fmt::Display for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.suberror {
            1 => f.write_str("KVM cannot emulate an instruction")?,
            suberror => write!(f, "KVM internal error {suberror}")?,
        }
        for (position, byte) in self.instruction.iter().enumerate() {
            write!(f, "{}{byte:02x}", if position == 0 { ": " } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_shows_its_instruction_in_hex() {
        let error = InternalError { suberror: 1, instruction: vec![0x0f, 0xc7, 0x0e] };
        assert_eq!(error.to_string(), "KVM cannot emulate an instruction: 0f c7 0e");
        let error = InternalError { suberror: 3, instruction: Vec::new() };
        assert_eq!(error.to_string(), "KVM internal error 3");
    }
}
