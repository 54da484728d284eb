//! How many passes go by before something is tried again that has failed.
#![forbid(unsafe_code)]

/// Passes that are waited for after many failures.
const MOST_PASSES: u8 = 63;

/// Passes that have to go by: 1 after the first failure, 3 after the second, and so on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RetryDelay {
    /// After the last try; 0 if it succeeded.
    passes: u8,
    /// Those of them that have not gone by.
    left: u8,
}

impl RetryDelay {
    /// Begins a pass; returns whether it is one in which to try.
    pub(super) fn begin_pass(&mut self) -> bool {
        let is_over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_over
    }

    /// Notes how a try ended.
    pub(super) fn note(&mut self, is_ok: bool) {
        self.passes = if is_ok { 0 } else { (2 * self.passes + 1).min(MOST_PASSES) };
        self.left = self.passes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_more_passes_go_by_and_none_once_it_has_worked() {
        let mut delay = RetryDelay::default();
        let tried: Vec<u32> = (0..200)
            .filter(|_| {
                let is_tried = delay.begin_pass();
                if is_tried {
                    delay.note(false);
                }
                is_tried
            })
            .collect();
        assert_eq!(tried, [0, 2, 6, 14, 30, 62, 126, 190]);
        delay.note(true);
        assert!(delay.begin_pass() && delay.begin_pass());
    }
}
