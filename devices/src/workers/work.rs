//! What threads do.

/// What threads do for a device. It may block for long.
pub trait Work: Send + Sync {
    /// Carries one piece out, if there is any. Returns whether there may be more, for which this is called again when
    /// others have had their turn.
    fn carry_out(&self) -> bool;
}
