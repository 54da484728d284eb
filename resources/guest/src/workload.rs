//! The presets behind `builtin:NAME`.

use core::error::Error;
use core::fmt;
use core::str::FromStr;

use crate::layout::{MemorySizeError, heap_pages};
use crate::params::Params;

/// What `--guest` has before a preset's name.
pub const BUILTIN_PREFIX: &str = "builtin:";

/// A named workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 60 % common, 10 % own, 30 % zero pages; never writes after its start.
    Idle,
    /// 55 % common, 20 % own, 25 % zero pages; a little of both kinds of churn.
    Mix,
    /// 50 % common, 20 % own, 30 % zero pages; thousands of writes each second.
    Churn,
}

/// The numbers of a preset; the zero pages are what is left.
struct Shape {
    common_percent: u32,
    own_percent: u32,
    churn_new_per_s: u32,
    churn_back_per_s: u32,
    verify_per_s: u32,
    heartbeat_ms: u32,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Mix, Self::Churn];

    /// The name, without `builtin:`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Mix => "mix",
            Self::Churn => "churn",
        }
    }

    /// The parameters of VM `vm_number` with `memory_bytes` of memory.
    ///
    /// Every heap page is used. Rates of writing are kept low enough for small memories that most
    /// pages are at rest most of the time.
    ///
    /// # Errors
    /// [`MemorySizeError`] if the guest cannot run in that much memory.
    pub fn params(
        self,
        seed: u64,
        vm_number: u32,
        memory_bytes: u64,
        tsc_khz: u32,
    ) -> Result<Params, MemorySizeError> {
        let shape = self.shape();
        let heap = heap_pages(memory_bytes)?;
        // At most 786,432 pages: no overflow.
        let common_pages = heap * shape.common_percent / 100;
        let own_pages = heap * shape.own_percent / 100;
        let zero_pages = heap - common_pages - own_pages;
        Ok(Params {
            seed,
            memory_bytes,
            vm_number,
            tsc_khz,
            common_pages,
            own_pages,
            zero_pages,
            churn_new_per_s: shape.churn_new_per_s.min(own_pages),
            churn_back_per_s: shape.churn_back_per_s.min((common_pages + zero_pages) / 4),
            verify_per_s: shape.verify_per_s,
            heartbeat_ms: shape.heartbeat_ms,
        })
    }

    const fn shape(self) -> Shape {
        match self {
            Self::Idle => Shape {
                common_percent: 60,
                own_percent: 10,
                churn_new_per_s: 0,
                churn_back_per_s: 0,
                verify_per_s: 2_000,
                heartbeat_ms: 1_000,
            },
            Self::Mix => Shape {
                common_percent: 55,
                own_percent: 20,
                churn_new_per_s: 50,
                churn_back_per_s: 50,
                verify_per_s: 20_000,
                heartbeat_ms: 500,
            },
            Self::Churn => Shape {
                common_percent: 50,
                own_percent: 20,
                churn_new_per_s: 2_000,
                churn_back_per_s: 2_000,
                verify_per_s: 50_000,
                heartbeat_ms: 500,
            },
        }
    }
}

/// Writes `builtin:NAME`.
impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BUILTIN_PREFIX}{}", self.name())
    }
}

/// Reads `builtin:NAME`.
impl FromStr for Preset {
    type Err = UnknownPresetError;

    fn from_str(text: &str) -> Result<Self, UnknownPresetError> {
        let name = text.strip_prefix(BUILTIN_PREFIX).ok_or(UnknownPresetError)?;
        Self::ALL.into_iter().find(|preset| preset.name() == name).ok_or(UnknownPresetError)
    }
}

/// A guest name that is not `builtin:` and the name of a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPresetError;

impl fmt::Display for UnknownPresetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such built-in guest; there are")?;
        for (index, preset) in Preset::ALL.into_iter().enumerate() {
            write!(f, "{}{preset}", if index == 0 { " " } else { ", " })?;
        }
        Ok(())
    }
}

impl Error for UnknownPresetError {}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::layout::{MAX_MEMORY_BYTES, MIN_MEMORY_BYTES};

    #[test]
    fn every_preset_is_found_by_what_it_displays() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_names() {
        for text in ["", "mix", "builtin:", "builtin:Mix", "builtin:mix ", "vmlinux"] {
            let error = text.parse::<Preset>().unwrap_err();
            assert_eq!(
                error.to_string(),
                "no such built-in guest; there are builtin:idle, builtin:mix, builtin:churn"
            );
        }
    }

    #[test]
    fn every_preset_makes_parameters_a_guest_accepts() {
        for preset in Preset::ALL {
            for memory_bytes in [MIN_MEMORY_BYTES, 64 << 20, MAX_MEMORY_BYTES] {
                let params = preset.params(7, 3, memory_bytes, 1).unwrap();
                assert_eq!(params.check(), Ok(()));
            }
            assert!(preset.params(7, 3, 1 << 20, 1).is_err());
        }
    }

    #[test]
    fn small_memories_churn_less() {
        let small = Preset::Churn.params(7, 3, MIN_MEMORY_BYTES, 1).unwrap();
        let large = Preset::Churn.params(7, 3, 64 << 20, 1).unwrap();
        assert!(small.churn_back_per_s < small.common_pages);
        assert_eq!((large.churn_new_per_s, large.churn_back_per_s), (2_000, 2_000));
    }
}
