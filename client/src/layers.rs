//! Values of one device or of one platform: a record under `@device/<name>/` or `@platform/<name>/` overrides the one that
//! all devices share, for whoever reads *effectively*. Pure; to the servers these are keys as all others.

use std::collections::BTreeMap;

use roam_schemas::{Device, Key, Problem, Record, State};
use serde::Serialize;

const DEVICE: &str = "@device/";
const PLATFORM: &str = "@platform/";

/// Whom a value is for; the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// One device.
    Device,
    /// All devices of one platform.
    Platform,
    /// All devices.
    Shared,
}

impl Layer {
    /// All of them, the nearest first.
    pub const ALL: [Self; 3] = [Self::Device, Self::Platform, Self::Shared];
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Device => "device",
            Self::Platform => "platform",
            Self::Shared => "shared",
        })
    }
}

/// The layers that one device reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    device: String,
    platform: String,
}

/// The value of a key as a device is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The key, without its layer.
    pub key: Key,
    /// The layer that won.
    pub layer: Layer,
    /// The record, under the key of its layer.
    pub record: Record,
}

impl Layers {
    /// Those of a device on a platform: `linux`, `macos`, `windows`, `android`, or whatever else names one.
    ///
    /// # Errors
    /// `invalid` if the platform is not of lower-case letters, digits, `_` and `-`.
    pub fn new(device: &Device, platform: &str) -> Result<Self, Problem> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        if platform.is_empty() || !platform.bytes().all(is_plain) {
            return Err(Problem::invalid("a platform is named by lower-case letters, digits, _ and -"));
        }
        // A slash would end the name.
        let device = device.as_str().replace('%', "%25").replace('/', "%2F");
        Ok(Self { device, platform: platform.to_owned() })
    }

    /// The platform that this program was built for, as [`Self::new`] takes it.
    pub const fn this_platform() -> &'static str {
        std::env::consts::OS
    }

    /// The key of the record that holds a key's value in a layer.
    ///
    /// # Errors
    /// `too_large` if that is longer than a key may be.
    pub fn key(&self, layer: Layer, key: &Key) -> Result<Key, Problem> {
        match layer {
            Layer::Device => Key::parse(format!("{DEVICE}{}/{key}", self.device)),
            Layer::Platform => Key::parse(format!("{PLATFORM}{}/{key}", self.platform)),
            Layer::Shared => Ok(key.clone()),
        }
    }

    /// The layer and the key that a record is for; none if it is for another device or platform.
    pub fn split(&self, record: &Key) -> Option<(Layer, Key)> {
        let text = record.as_str();
        let (layer, rest, name) = if let Some(rest) = text.strip_prefix(DEVICE) {
            (Layer::Device, rest, &self.device)
        } else if let Some(rest) = text.strip_prefix(PLATFORM) {
            (Layer::Platform, rest, &self.platform)
        } else {
            return Some((Layer::Shared, record.clone()));
        };
        let key = rest.strip_prefix(name.as_str())?.strip_prefix('/')?;
        Some((layer, Key::parse(key).ok()?))
    }

    /// Whether a record is for one device or platform, whichever.
    pub fn is_layered(record: &Key) -> bool {
        record.as_str().starts_with(DEVICE) || record.as_str().starts_with(PLATFORM)
    }

    /// Of the records of a profile those that are in force here: of each key that of the nearest layer which has a value.
    /// In the order of the keys.
    pub fn resolve(&self, records: impl IntoIterator<Item = Record>) -> Vec<Effective> {
        let mut in_force: BTreeMap<Key, Effective> = BTreeMap::new();
        for record in records.into_iter().filter(|record| matches!(record.state, State::Value(_))) {
            let Some((layer, key)) = self.split(&record.key) else { continue };
            if in_force.get(&key).is_none_or(|nearest| layer < nearest.layer) {
                in_force.insert(key.clone(), Effective { key, layer, record });
            }
        }
        in_force.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{ContentType, Revision, Stored, Timestamp, Value};

    use super::*;

    fn layers(device: &str) -> Layers {
        Layers::new(&Device::parse(device).unwrap(), "linux").unwrap()
    }

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn record(name: &str, live: bool) -> Record {
        let stored = Stored { value: Value::new(name), content_type: ContentType::text(), expires: None };
        Record {
            key: key(name),
            revision: Revision::new(1),
            time: Timestamp::default(),
            device: Device::parse("phone").unwrap(),
            conflict: false,
            state: if live { State::Value(stored) } else { State::Deleted },
        }
    }

    #[test]
    fn a_key_in_a_layer_comes_apart_as_it_was_made() {
        for device in ["laptop", "Ann's laptop", "a/b", "50%", "%2F"] {
            let layers = layers(device);
            for layer in Layer::ALL {
                for name in ["theme", "/editor/size", "@", "a/b"] {
                    let record = layers.key(layer, &key(name)).unwrap();
                    assert_eq!(layers.split(&record), Some((layer, key(name))), "{device} {layer} {name}");
                }
            }
        }
    }

    #[test]
    fn what_is_for_another_device_or_platform_is_not_for_this_one() {
        let layers = layers("laptop");
        for other in [
            "@device/phone/theme",
            "@device/laptop2/theme",
            "@platform/macos/theme",
            "@device/laptop",
            "@device/laptop/",
        ] {
            assert_eq!(layers.split(&key(other)), None, "{other}");
            assert!(Layers::is_layered(&key(other)));
        }
        assert_ne!(
            self::layers("a/b").key(Layer::Device, &key("c")),
            self::layers("a").key(Layer::Device, &key("b/c"))
        );
        assert!(Layers::new(&Device::parse("laptop").unwrap(), "a/b").is_err());
        assert!(layers.key(Layer::Device, &key(&"k".repeat(500))).is_err());
    }

    #[test]
    fn the_nearest_layer_with_a_value_wins() {
        let records = [
            record("size", true),
            record("@platform/linux/size", true),
            record("@device/laptop/size", false),
            record("@device/laptop/theme", true),
            record("theme", true),
            record("gone", false),
            record("@device/phone/font", true),
        ];
        let effective = layers("laptop").resolve(records);
        let found: Vec<_> = effective.iter().map(|found| (found.key.as_str(), found.layer)).collect();
        assert_eq!(found, [("size", Layer::Platform), ("theme", Layer::Device)]);
    }
}
