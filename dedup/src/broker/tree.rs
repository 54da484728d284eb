//! Stub.
use crate::fingerprint::Fingerprint;
use std::collections::BTreeMap;
#[derive(Debug, Default)]
pub(super) struct FingerprintTree(BTreeMap<Fingerprint, u32>);
impl FingerprintTree {
    pub(super) fn find(&self, key: Fingerprint, _k: impl Fn(u32) -> Fingerprint) -> Option<u32> {
        self.0.get(&key).copied()
    }
    pub(super) fn insert(&mut self, key: Fingerprint, value: u32, _k: impl Fn(u32) -> Fingerprint) {
        self.0.insert(key, value);
    }
    pub(super) fn replace(
        &mut self,
        key: Fingerprint,
        value: u32,
        _k: impl Fn(u32) -> Fingerprint,
    ) -> Option<u32> {
        self.0.insert(key, value)
    }
    pub(super) fn remove(
        &mut self,
        key: Fingerprint,
        _k: impl Fn(u32) -> Fingerprint,
    ) -> Option<u32> {
        self.0.remove(&key)
    }
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.values().copied()
    }
    pub(super) fn check(&self, _k: impl Fn(u32) -> Fingerprint) -> Result<(), String> {
        Ok(())
    }
    pub(super) fn heap_bytes(&self) -> usize {
        0
    }
}
