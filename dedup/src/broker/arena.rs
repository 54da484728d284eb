//! Growing the arenas.

/// Pushes an entry onto a long-lived vector with little room to spare: an eighth at most, where
/// `push` alone would double it. The kernel moves large vectors by their page tables, so growing
/// more often costs little.
pub(super) fn push_tight<T>(arena: &mut Vec<T>, entry: T) {
    if arena.len() == arena.capacity() {
        arena.reserve_exact((arena.len() / 8).max(1024));
    }
    arena.push(entry);
}
