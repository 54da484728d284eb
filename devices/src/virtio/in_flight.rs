//! Requests that are carried out beside the thread that processes their queue.

/// Requests of a device that others carry out.
pub trait InFlight: Send + Sync {
    /// Waits until none of those that were begun is in the works: after that, of a device that is paused, reset or
    /// ended, nobody touches guest memory. Whoever waits holds no lock of the transport's.
    fn wait(&self);
}

/// By which a device has its queue be processed: something is to be handed back.
pub trait QueueWaker: Send + Sync {
    /// Has the queue be processed soon. Does not wait for that.
    fn wake(&self);
}
