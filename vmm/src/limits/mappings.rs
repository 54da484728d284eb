//! How many mappings this process may have, and how many it has.

use super::tree::Tree;

/// The setting that limits them.
pub const NAME: &str = "vm.max_map_count";

/// Mappings of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mappings {
    /// `vm.max_map_count`.
    pub max: u64,
    /// Those that there are.
    pub current: u64,
}

impl Mappings {
    /// What the kernel says; `None` if it does not. O(mappings).
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

/// `vm.max_map_count`; `None` if the kernel does not say.
pub fn max(tree: &Tree) -> Option<u64> {
    tree.number("/proc/sys/vm/max_map_count")
}

#[cfg(test)]
mod tests {
    use super::*;

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
