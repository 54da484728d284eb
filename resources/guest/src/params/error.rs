//! Why a parameter page was refused.

use core::error::Error;
use core::fmt;

use crate::layout::MemorySizeError;

/// Why a parameter page was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsError {
    /// The page does not start with the magic number: nobody wrote a parameter page there.
    Magic {
        /// What it starts with.
        found: u64,
    },
    /// The page is of another version: VMM and image were not built together.
    Version {
        /// The version it claims.
        found: u32,
    },
    /// The memory size is impossible.
    Memory(MemorySizeError),
    /// Common, own and zero pages do not add up to the heap.
    PageCount {
        /// What they add up to.
        asked: u64,
        /// What the memory has room for.
        heap: u32,
    },
    /// A field that must not be zero is zero.
    Zero {
        /// The field's name.
        field: &'static str,
    },
    /// A rate of writing asks for pages of a kind there are none of.
    NothingToWrite {
        /// The rate's name.
        field: &'static str,
    },
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => {
                write!(f, "no parameter page: it starts with {found:#018x}")
            }
            Self::Version { found } => write!(
                f,
                "the parameter page is of version {found}, this side speaks version {}",
                super::VERSION
            ),
            // The source has the whole message.
            Self::Memory(_) => write!(f, "the parameter page has an impossible memory size"),
            Self::PageCount { asked, heap } => {
                write!(f, "the parameter page asks for {asked} pages, the heap has {heap}")
            }
            Self::Zero { field } => write!(f, "{field} is zero in the parameter page"),
            Self::NothingToWrite { field } => {
                write!(f, "{field} has no pages to write in the parameter page")
            }
        }
    }
}

impl Error for ParamsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory(source) => Some(source),
            _ => None,
        }
    }
}

impl From<MemorySizeError> for ParamsError {
    fn from(source: MemorySizeError) -> Self {
        Self::Memory(source)
    }
}
