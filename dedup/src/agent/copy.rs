//! Copying one VM's memory to another's.

use super::changes::linear_index;
use super::{Agent, AgentSetupError};

impl Agent {
    /// Copies every page that `parent` has, its slots' bytes included, to the same page of this VM.
    ///
    /// # Errors
    ///
    /// When the kernel does not say what is there; a part may have been copied.
    pub(crate) fn copy_from(&self, parent: &Self) -> Result<(), AgentSetupError> {
        // A page over a slot that is not mapped at the moment is its parent's all the same.
        let mut present = parent.shared.clone();
        for piece in parent.space.pieces() {
            let first = piece.linear.0;
            let scanned =
                parent.process.pagemap.scan(parent.space.whole(piece), |skip, count_pages, _| {
                    let start = (first + skip) as usize;
                    present.insert_range(start..start + count_pages as usize);
                });
            scanned.map_err(AgentSetupError::Pagemap)?;
        }
        for page in present.iter() {
            let bytes = parent.copy(linear_index(page));
            self.space.span(linear_index(page), 1).write_page(&bytes);
        }
        Ok(())
    }
}
