//! JSON parsing for untrusted files: objects without duplicate keys, errors of one short line.
//!
//! serde_json accepts `{"a": 1, "a": 2}` and keeps the last value. If keys name tensors, two readers of one file could
//! see two different models. Headers and indices are therefore parsed into a [`UniqueMap`]. The recursion limit of
//! serde_json (128) bounds nesting.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result, clip};

/// The largest JSON file, in bytes, that is parsed into a tree of values. The tree can take fifty times the memory of its
/// text. The configurations of the supported models have a few KiB.
pub(crate) const MAX_JSON: u64 = 1 << 20;

/// An object each of whose keys occurs once.
#[derive(Debug)]
pub(crate) struct UniqueMap<T>(pub(crate) BTreeMap<String, T>);

/// A struct that must be written as an object. Without this wrapper, serde also accepts an array of its fields.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

/// Parses a JSON file.
pub(crate) fn parse<T: DeserializeOwned>(file: &str, expected: &'static str, text: &[u8]) -> Result<T> {
    let wrong = |e: serde_json::Error| Error::Malformed { file: clip(file), expected, found: clip(e) };
    serde_json::from_slice(text).map_err(wrong)
}

/// Describes a value briefly, for messages.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => clip(value),
    }
}

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct UniqueVisitor<T>(PhantomData<T>);

impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
    type Value = UniqueMap<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<T>, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {:?} twice", clip(key))));
            }
            entries.insert(key, value);
        }
        Ok(UniqueMap(entries))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}
