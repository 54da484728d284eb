//! How a program embeds Pagefold: `density.rs` is a test; `knobs.rs`, `fold_memory.rs` and `change_source.rs` are
//! programs, which `make examples` runs.

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_shows_the_density_test_as_it_is() {
        let readme = include_str!("../README.md");
        assert!(readme.contains(&format!("```rust\n{}```\n", include_str!("density.rs"))));
    }
}
