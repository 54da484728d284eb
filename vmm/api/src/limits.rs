//! How long clients, and the server itself, may take.

use std::time::Duration;

/// All of them; tests have shorter ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a request's head to arrive, and for a connection to stay idle.
    pub(super) head: Duration,
    /// For a client to go on with whatever is waited for: an answer to be read, above all. Longer
    /// than what heads and bodies are given, which are answered when their time is over.
    pub(super) stall: Duration,
    /// After which a client that is waited for has to make room if others find none.
    pub(super) make_room: Duration,
    /// The same where others find no descriptor: these can be so few that one second for each who comes would
    /// be minutes for the last. As long as a client may take to begin a request once it is connected.
    pub(super) free_descriptor: Duration,
    /// For one of too many requests to find others answered, before it is refused.
    pub(super) request: Duration,
    /// For all that are connected to get their last answers when the server stops.
    pub(super) stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            stall: Duration::from_secs(40),
            make_room: Duration::from_secs(1),
            free_descriptor: Duration::from_millis(50),
            request: Duration::from_secs(1),
            stop: Duration::from_secs(1),
        }
    }
}
