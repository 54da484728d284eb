//! The states of slots, by number.

use crate::broker::ids::NodeId;

/// Slots of a chunk.
const CHUNK: usize = 1024;

/// The state of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SlotState {
    /// The node whose bytes it holds.
    pub(super) node: Option<NodeId>,
    /// Pages of VMs whose VMA maps it, sharing it or with their own copies.
    pub(super) covering_pages: u32,
}

impl SlotState {
    /// Whether its number is free, or has been handed out for a content that is not there yet.
    fn is_unused(self) -> bool {
        self == Self::default()
    }
}

/// The states of slots, in chunks that take memory only while one of their slots is in use.
#[derive(Debug, Default)]
pub(super) struct SlotTable {
    chunks: Vec<Chunk>,
    /// One above the highest number that was ever handed out.
    len: usize,
}

#[derive(Debug, Default)]
struct Chunk {
    states: Option<Box<[SlotState]>>,
    used: usize,
}

impl SlotTable {
    /// One above the highest number that was ever handed out.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds so many numbers behind the others.
    pub(super) fn extend(&mut self, count: usize) {
        self.len += count;
        let needed = self.len.div_ceil(CHUNK);
        if needed > self.chunks.capacity() {
            self.chunks.reserve_exact((needed - self.chunks.len()).max(self.chunks.len() / 8));
        }
        self.chunks.resize_with(needed, Chunk::default);
    }

    /// The state of a slot; the default one if its number was never allocated.
    pub(super) fn state(&self, number: u32) -> SlotState {
        let (chunk, position) = place(number);
        let states = self.chunks.get(chunk).and_then(|chunk| chunk.states.as_ref());
        states.map_or_else(SlotState::default, |states| states[position])
    }

    /// Changes the state of a slot whose number was allocated, and returns it. O(1).
    pub(super) fn change(&mut self, number: u32, change: impl FnOnce(&mut SlotState)) -> SlotState {
        let (chunk, position) = place(number);
        let chunk = &mut self.chunks[chunk];
        let states = chunk.states.get_or_insert_with(|| vec![SlotState::default(); CHUNK].into());
        let state = &mut states[position];
        let was_unused = state.is_unused();
        change(state);
        let state = *state;
        chunk.used = chunk.used + usize::from(was_unused) - usize::from(state.is_unused());
        if chunk.used == 0 {
            chunk.states = None;
        }
        state
    }

    /// All states, by number. O(numbers).
    pub(super) fn iter(&self) -> impl Iterator<Item = SlotState> + '_ {
        (0..self.len).map_while(|number| Some(self.state(u32::try_from(number).ok()?)))
    }

    /// Verifies that just the chunks with slots in use take memory. O(numbers).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn check(&self) -> Result<(), String> {
        for (number, chunk) in self.chunks.iter().enumerate() {
            let states = chunk.states.as_deref().unwrap_or_default();
            let used = states.iter().filter(|state| !state.is_unused()).count();
            if used != chunk.used || (used == 0) != chunk.states.is_none() {
                return Err(format!(
                    "{used} slots of chunk {number} in use, {} counted",
                    chunk.used
                ));
            }
        }
        Ok(())
    }

    /// Bytes on the heap. O(numbers / 1024).
    pub(super) fn heap_bytes(&self) -> usize {
        let made = self.chunks.iter().filter(|chunk| chunk.states.is_some()).count();
        made * CHUNK * size_of::<SlotState>() + self.chunks.capacity() * size_of::<Chunk>()
    }
}

fn place(number: u32) -> (usize, usize) {
    (number as usize / CHUNK, number as usize % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_takes_memory_only_while_one_of_its_slots_is_in_use() {
        let mut table = SlotTable::default();
        table.extend(3 * CHUNK + 1);
        let empty = table.heap_bytes();
        assert!(empty <= 4 * size_of::<Chunk>());
        let number = u32::try_from(2 * CHUNK + 5).unwrap();
        table.change(number, |state| state.covering_pages += 1);
        assert_eq!(table.state(number).covering_pages, 1);
        assert_eq!(table.state(number + 1), SlotState::default());
        table.check().unwrap();
        assert_eq!(table.heap_bytes(), empty + CHUNK * 8);
        table.change(number, |state| state.covering_pages -= 1);
        table.check().unwrap();
        assert_eq!((table.heap_bytes(), table.iter().count()), (empty, 3 * CHUNK + 1));
        assert_eq!(table.state(u32::MAX), SlotState::default());
    }
}
