//! That what is counted of an arena is what is there.

use super::{Arena, CHUNK};

impl<T> Arena<T> {
    /// The numbers below [`capacity`](Self::capacity) that are not in use, ascending.
    pub(in crate::broker::index) fn free(&self) -> impl Iterator<Item = usize> + '_ {
        let is_used = |number: &usize| self.used[number / CHUNK].contains(number % CHUNK);
        (0..self.capacity()).filter(move |number| !is_used(number))
    }

    /// Verifies all counts, that chunks without entries take no memory, and that just those with free
    /// numbers are known to have some. O(numbers).
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(in crate::broker::index) fn check(&self) -> Result<(), String> {
        let mut len = 0;
        for (number, (used, entries)) in self.used.iter().zip(&self.chunks).enumerate() {
            let count = used.words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            let end = used.highest();
            if count != used.count || end.is_some_and(|end| end >= entries.len()) {
                let made = entries.len();
                return Err(format!("{count} of chunk {number}, counted {used:?}, {made} made"));
            }
            if count == 0 && entries.capacity() > 0 {
                return Err(format!("chunk {number} is empty, and takes memory"));
            }
            if self.open.contains(&number) != (count < CHUNK) {
                return Err(format!("chunk {number} has {count} entries: {:?}", self.open));
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
    /// Has a number that is in use be free, too.
    pub(in crate::broker::index) fn free_in_use(&mut self, number: usize) {
        self.used[number / CHUNK].flip(number % CHUNK);
    }
}
