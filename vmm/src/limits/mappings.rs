//! How many mappings this process may have, and how many it has.

use super::tree::Tree;

/// The setting that limits them.
pub const NAME: &str = "vm.max_map_count";

/// The budget of guest memory leaves the process this part of all mappings for itself: an eighth.
pub(super) const OWN_SHARE: u64 = 8;

/// Mappings of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mappings {
    /// `vm.max_map_count`.
    pub max: u64,
    /// Those that there are.
    pub current: u64,
}

impl Mappings {
    /// What the kernel reports; `None` if it does not. O(mappings).
    pub fn read(tree: &Tree) -> Option<Self> {
        let current = tree.read("/proc/self/maps").ok()?.lines().count() as u64;
        Some(Self { max: max(tree)?, current })
    }

    /// Whether so few are left that one that was refused was refused for this.
    pub fn are_short(&self) -> bool {
        // What failed is gone again by the time that anybody looks.
        self.current >= self.max - self.max / 16
    }
}

/// `vm.max_map_count`; `None` if the kernel does not report it.
pub fn max(tree: &Tree) -> Option<u64> {
    tree.number("/proc/sys/vm/max_map_count")
}

/// A setting of which the budget of guest memory has at least `more` mappings more than with `max`: seven
/// eighths of it are guests', and it is a multiple of 65,536.
pub fn enough_for(max: u64, more: u64) -> u64 {
    const UNIT: u64 = 1 << 16;
    let more = more.saturating_add(more.div_ceil(7));
    max.saturating_add(more).div_ceil(UNIT).saturating_mul(UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enough_leaves_guests_what_they_lack_and_is_round() {
        assert_eq!(enough_for(65_530, 6), 2 * 65_536);
        assert_eq!(enough_for(65_530, 5), 65_536);
        let enough = enough_for(65_530, 1_000_000);
        assert!(
            enough - enough / 8 >= 65_530 - 65_530 / 8 + 1_000_000 && enough.is_multiple_of(65_536)
        );
        assert!(enough_for(u64::MAX, u64::MAX) > 0);
    }

    #[test]
    fn mappings_are_counted_and_short_near_the_limit() {
        let read = |max: &str, maps: &str| {
            let files = [("/proc/sys/vm/max_map_count", max), ("/proc/self/maps", maps)];
            let (tree, _files) = Tree::made_up(&files);
            Mappings::read(&tree)
        };
        let mappings = read("65530\n", "a\nb\nc\n").unwrap();
        assert_eq!(mappings, Mappings { max: 65530, current: 3 });
        assert!(!mappings.are_short());
        assert!(read("3\n", "a\nb\nc\n").unwrap().are_short());
        assert_eq!(read("?\n", "a\n"), None);
        assert!(!Mappings::read(&Tree::real()).unwrap().are_short());
    }
}
