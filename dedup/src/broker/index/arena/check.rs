//! That what is counted of an arena is what is there.

use super::{Arena, CHUNK};

impl<T> Arena<T> {
    /// The indexes below [`capacity`](Self::capacity) that are not in use, ascending.
    pub(in crate::broker::index) fn free(&self) -> impl Iterator<Item = usize> + '_ {
        let is_used = |index: &usize| self.used[index / CHUNK].contains(index % CHUNK);
        (0..self.capacity()).filter(move |index| !is_used(index))
    }

    /// Verifies all counts, that chunks without entries take no memory, and that just those with free
    /// indexes are known to have some. O(indexes).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker::index) fn check(&self) -> Result<(), String> {
        let mut len = 0;
        for (chunk, (used, entries)) in self.used.iter().zip(&self.chunks).enumerate() {
            let count = used.words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            let end = used.highest();
            if count != used.count || end.is_some_and(|end| end >= entries.len()) {
                let made = entries.len();
                return Err(format!("{count} of chunk {chunk}, counted {used:?}, {made} made"));
            }
            if count == 0 && entries.capacity() > 0 {
                return Err(format!("chunk {chunk} is empty, and takes memory"));
            }
            if self.open.contains(&chunk) != (count < CHUNK) {
                return Err(format!("chunk {chunk} has {count} entries: {:?}", self.open));
            }
            len += count;
        }
        let ends_with_entry = self.used.last().is_none_or(|used| used.count > 0);
        let is_whole = self.used.len() == self.chunks.len()
            && self.open.last().is_none_or(|&last| last < self.chunks.len());
        match (len == self.len, is_whole && ends_with_entry) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("{len} entries, {} counted", self.len)),
            (_, false) => Err("a directory longer or shorter than its chunks".to_owned()),
        }
    }
}

#[cfg(test)]
impl<T> Arena<T> {
    /// Has an index that is in use be free, too.
    pub(in crate::broker::index) fn free_in_use(&mut self, index: usize) {
        self.used[index / CHUNK].flip(index % CHUNK);
    }
}
