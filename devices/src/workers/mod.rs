//! Threads that carry out what devices must not wait for.
//!
//! | file | what it is |
//! |---|---|
//! | `work` | what threads do |
//! | `turns` | which work is next |
//! | `pool` | the threads |
//!
//! A disk that does not answer keeps as many threads as it has requests in the works. So a device has few of them at a
//! time, and those beyond its first are begun only while half of the threads are not busy with such: as many devices
//! as the other half has threads would have to hang before a further device waits for any of them.

mod pool;
mod turns;
mod work;

pub use pool::WorkerPool;
pub use work::Work;

#[cfg(test)]
mod tests;
