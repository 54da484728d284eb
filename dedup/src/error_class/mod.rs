//! Who can do something about an error: four classes, which every error of the crate is in.
//!
//! The classes are all in one place, `classes.rs`. An error that has another inside is in the class of that one, where
//! its own variant leaves that open.
#![forbid(unsafe_code)]

mod classes;

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The caller: the request makes no sense, or there is no such thing. The same call fails again.
    Caller,
    /// Whoever waits: something is under way or in use that has to end first. The same call may succeed later.
    Busy,
    /// Whoever runs the host: it lacks memory, mappings, descriptors, threads, privileges or a newer kernel, or some of
    /// its memory has failed.
    Host,
    /// Whoever develops this program: it contradicts itself.
    Bug,
}

/// An error that is in one of four classes.
pub trait Classified: std::error::Error {
    /// The class. O(depth of its causes).
    fn class(&self) -> ErrorClass;
}

/// Has all errors of types be in one class. For the crates of this repository only: no stable interface.
#[doc(hidden)]
#[macro_export]
macro_rules! all_in_class {
    ($class:ident: $($error:ty),+ $(,)?) => {$(
        impl $crate::Classified for $error {
            fn class(&self) -> $crate::ErrorClass {
                $crate::ErrorClass::$class
            }
        }
    )+};
}
