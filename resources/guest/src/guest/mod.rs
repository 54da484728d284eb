//! The workload: write pages, keep rewriting some, verify all of them over and over.

mod clock;
mod pages;
mod run;
mod serial;

use core::error::Error;
use core::fmt::Write;

use pagefold_guest::layout::heap;
use pagefold_guest::params::{PARAMS_BYTES, Params};
use pagefold_guest::ports::EXIT_BAD_PARAMS;

pub(crate) use serial::PanicLine;

use crate::sys::Memory;
use pages::Pages;
use run::Run;

/// Runs the workload until the VMM commands it to finish; the exit code.
pub(crate) fn main(page: &[u8; PARAMS_BYTES]) -> u32 {
    let params = match Params::decode(page) {
        Ok(params) => params,
        Err(error) => return refuse(&error),
    };
    let heap = match heap(params.memory_bytes) {
        Ok(heap) => heap,
        Err(error) => return refuse(&error),
    };
    let Some(memory) = Memory::claim(heap) else {
        panic!("the guest was entered twice");
    };
    match Pages::write_all(&params, memory) {
        Ok(pages) => Run::new(params, pages).until_finished(),
        Err(error) => refuse(&error),
    }
}

/// Prints what is wrong and why, as far as the error knows.
fn refuse(error: &dyn Error) -> u32 {
    let mut line = PanicLine::begin();
    // Writing to the serial port cannot fail.
    let _ = write!(line, "{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    EXIT_BAD_PARAMS
}
