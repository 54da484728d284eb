//! A visit of a VM: its pages that are unchanged since the last pass are read and offered.

pub(super) mod pass;
pub(super) mod scan;
