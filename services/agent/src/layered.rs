//! Which record of the profile stands for a key of the files: the one that all devices share, or one of this device's or
//! this platform's own, which is kept under a key of its layer. Pure.

use std::collections::BTreeMap;

use globset::GlobSet;
use roam_client::{Layer, Layers};
use roam_schemas::{Key, Problem};

use crate::reconcile::Held;

/// The layers that this device reads, and which keys are written to which.
#[derive(Debug)]
pub(crate) struct Layered {
    layers: Layers,
    /// Keys that stay on this device.
    local: GlobSet,
    per_device: GlobSet,
    per_platform: GlobSet,
}

impl Layered {
    pub(crate) fn new(layers: Layers, local: GlobSet, per_device: GlobSet, per_platform: GlobSet) -> Self {
        Self { layers, local, per_device, per_platform }
    }

    /// Whether a key of the files does not roam at all.
    pub(crate) fn stays(&self, key: &Key) -> bool {
        self.local.is_match(key.as_str())
    }

    /// The key of the files that a record is about; none for a record of another device or platform.
    pub(crate) fn local(&self, record: &Key) -> Option<Key> {
        self.layers.split(record).map(|(_, key)| key)
    }

    /// Whether a key of the files would be taken for one of a layer.
    pub(crate) fn is_reserved(key: &Key) -> bool {
        Layers::is_layered(key)
    }

    /// The record that stands for a key, and what it holds: of the layers that have a value the nearest one.
    pub(crate) fn in_force(&self, remote: &BTreeMap<Key, Held>, key: &Key) -> Option<(Layer, Key, Held)> {
        let live = [Layer::Device, Layer::Platform].into_iter().find_map(|layer| {
            let record = self.layers.key(layer, key).ok()?;
            let held = remote.get(&record).filter(|held| held.value.is_some())?;
            Some((layer, record, *held))
        });
        live.or_else(|| Some((Layer::Shared, key.clone(), *remote.get(key)?)))
    }

    /// What stands for every key.
    pub(crate) fn all_in_force(&self, remote: &BTreeMap<Key, Held>) -> BTreeMap<Key, Held> {
        let is_shared = |key: &&Key| !Layers::is_layered(key);
        let mut all: BTreeMap<Key, Held> =
            remote.iter().filter(|(key, _)| is_shared(key)).map(|(key, held)| (key.clone(), *held)).collect();
        for layered in remote.keys().filter(|key| !is_shared(key)) {
            let Some(key) = self.local(layered) else { continue };
            if let Some((_, _, held)) = self.in_force(remote, &key) {
                all.insert(key, held);
            }
        }
        all
    }

    /// The record to write when a key of the files was edited: that of the layer which the rules name, or of the one in
    /// force if that is nearer, so that what was written is what is read.
    ///
    /// # Errors
    /// The key is too long for its layer.
    pub(crate) fn target(&self, remote: &BTreeMap<Key, Held>, key: &Key) -> Result<Key, Problem> {
        let ruled = match key.as_str() {
            text if self.per_device.is_match(text) => Layer::Device,
            text if self.per_platform.is_match(text) => Layer::Platform,
            _ => Layer::Shared,
        };
        let in_force = self.in_force(remote, key).map_or(Layer::Shared, |(layer, _, _)| layer);
        self.layers.key(ruled.min(in_force), key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use globset::{Glob, GlobSetBuilder};
    use roam_schemas::{Device, Revision};

    use super::*;

    fn globs(pattern: &str) -> GlobSet {
        GlobSetBuilder::new().add(Glob::new(pattern).unwrap()).build().unwrap()
    }

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn layered() -> Layered {
        let layers = Layers::new(&Device::parse("laptop").unwrap(), "linux").unwrap();
        Layered::new(layers, globs("/secret"), globs("/window.*"), globs("/terminal.*"))
    }

    fn remote(of: &[(&str, bool)]) -> BTreeMap<Key, Held> {
        let held = |number: usize, live: bool| Held {
            revision: Revision::new(number as u64 + 1),
            value: live.then(|| blake3::hash(&[u8::try_from(number).unwrap()])),
        };
        of.iter().enumerate().map(|(number, (name, live))| (key(name), held(number, *live))).collect()
    }

    #[test]
    fn the_nearest_layer_that_has_a_value_is_in_force() {
        let remote = remote(&[
            ("/a", true),
            ("@platform/linux//a", true),
            ("@device/laptop//a", true),
            ("/b", true),
            ("@device/laptop//b", false),
            ("@device/phone//b", true),
            ("@platform/macos//c", true),
            ("@platform/linux//d", true),
        ]);
        let layered = layered();
        let record = |name: &str| layered.in_force(&remote, &key(name)).map(|(_, record, _)| record.to_string());
        assert_eq!(record("/a").as_deref(), Some("@device/laptop//a"));
        assert_eq!(record("/b").as_deref(), Some("/b"));
        assert_eq!(record("/c"), None);
        assert_eq!(record("/d").as_deref(), Some("@platform/linux//d"));
        let all = layered.all_in_force(&remote);
        assert_eq!(all.keys().map(Key::as_str).collect::<Vec<_>>(), ["/a", "/b", "/d"]);
        for (name, held) in &all {
            assert_eq!(Some(*held), layered.in_force(&remote, name).map(|(_, _, held)| held));
        }
    }

    #[test]
    fn an_edit_goes_where_the_rules_say_or_to_a_nearer_layer_that_is_in_force() {
        let remote = remote(&[("/a", true), ("@device/laptop//a", true), ("@platform/linux//b", true)]);
        for (name, target) in [
            ("/a", "@device/laptop//a"),
            ("/b", "@platform/linux//b"),
            ("/c", "/c"),
            ("/window.zoom", "@device/laptop//window.zoom"),
            ("/terminal.font", "@platform/linux//terminal.font"),
        ] {
            assert_eq!(layered().target(&remote, &key(name)).unwrap(), key(target));
        }
        assert!(layered().target(&remote, &key(&format!("/window.{}", "x".repeat(500)))).is_err());
    }
}
