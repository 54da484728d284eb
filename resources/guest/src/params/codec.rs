//! The parameter page's bytes.

use super::{PARAMS_BYTES, Params, ParamsError};
use crate::layout::heap_pages;

/// What a parameter page starts with: `PGFOLDGP`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"PGFOLDGP");
/// The version of the parameter page, the ports and the placement of pages.
pub const VERSION: u32 = 1;

impl Params {
    /// The parameter page.
    pub fn encode(&self) -> [u8; PARAMS_BYTES] {
        let mut page = [0; PARAMS_BYTES];
        let mut out = Cursor { page: &mut page, at: 0 };
        out.put(MAGIC.to_le_bytes());
        out.put(VERSION.to_le_bytes());
        out.put(self.vm_number.to_le_bytes());
        out.put(self.seed.to_le_bytes());
        out.put(self.memory_bytes.to_le_bytes());
        for field in [
            self.tsc_khz,
            self.common_pages,
            self.own_pages,
            self.zero_pages,
            self.churn_new_per_s,
            self.churn_back_per_s,
            self.verify_per_s,
            self.heartbeat_ms,
        ] {
            out.put(field.to_le_bytes());
        }
        page
    }

    /// Reads a parameter page and checks that a guest can do what it asks for.
    ///
    /// # Errors
    /// [`ParamsError`] names the first thing that is wrong.
    pub fn decode(page: &[u8; PARAMS_BYTES]) -> Result<Self, ParamsError> {
        let mut input = Reader { page, at: 0 };
        let found = u64::from_le_bytes(input.take());
        if found != MAGIC {
            return Err(ParamsError::Magic { found });
        }
        let found = input.u32();
        if found != VERSION {
            return Err(ParamsError::Version { found });
        }
        let params = Self {
            vm_number: input.u32(),
            seed: u64::from_le_bytes(input.take()),
            memory_bytes: u64::from_le_bytes(input.take()),
            tsc_khz: input.u32(),
            common_pages: input.u32(),
            own_pages: input.u32(),
            zero_pages: input.u32(),
            churn_new_per_s: input.u32(),
            churn_back_per_s: input.u32(),
            verify_per_s: input.u32(),
            heartbeat_ms: input.u32(),
        };
        params.check()?;
        Ok(params)
    }

    /// Whether a guest can do what these parameters ask for.
    ///
    /// # Errors
    /// [`ParamsError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), ParamsError> {
        let heap = heap_pages(self.memory_bytes)?;
        let asked = self.pages();
        if asked != u64::from(heap) {
            return Err(ParamsError::PageCount { asked, heap });
        }
        for (field, value) in [
            ("tsc_khz", self.tsc_khz),
            ("verify_per_s", self.verify_per_s),
            ("heartbeat_ms", self.heartbeat_ms),
        ] {
            if value == 0 {
                return Err(ParamsError::Zero { field });
            }
        }
        if self.churn_new_per_s > 0 && self.own_pages == 0 {
            return Err(ParamsError::NothingToWrite { field: "churn_new_per_s" });
        }
        if self.churn_back_per_s > 0 && self.common_pages == 0 && self.zero_pages == 0 {
            return Err(ParamsError::NothingToWrite { field: "churn_back_per_s" });
        }
        Ok(())
    }
}

struct Cursor<'a> {
    page: &'a mut [u8; PARAMS_BYTES],
    at: usize,
}

impl Cursor<'_> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.page[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }
}

struct Reader<'a> {
    page: &'a [u8; PARAMS_BYTES],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let bytes = core::array::from_fn(|index| self.page[self.at + index]);
        self.at += N;
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}
