//! JSON parsing for untrusted files: objects without duplicate keys, trees of bounded memory, errors of one short line.
//!
//! serde_json accepts `{"a": 1, "a": 2}` and keeps the last value. If keys name tensors, two readers of one file could
//! see two different models. Headers and indices are therefore parsed into a [`UniqueMap`]. The recursion limit of
//! serde_json (128) bounds nesting.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Result, clip};

/// The largest JSON file, in bytes, that is parsed into a tree of values. The configurations of the supported models have
/// a few KiB.
pub(crate) const MAX_JSON: u64 = 1 << 20;

/// The most memory, in bytes, that a tree of values may take. A tree can take a hundred times the memory of its text.
const MAX_TREE: usize = 32 << 20;

/// The most entries of an object that is read as a map, such as the tensors of a header or an index: the largest
/// published models have about 90,000 tensors.
pub(crate) const MAX_ENTRIES: usize = 100_000;

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

/// Parses a JSON file into a tree of values, of which the later of two equal keys counts.
pub(crate) fn tree(file: &str, expected: &'static str, text: &[u8]) -> Result<Value> {
    let wrong = |e: serde_json::Error| Error::Malformed { file: clip(file), expected, found: clip(e) };
    let left = Cell::new(MAX_TREE);
    let mut json = serde_json::Deserializer::from_slice(text);
    let tree = Tree { left: &left }.deserialize(&mut json).map_err(wrong)?;
    json.end().map_err(wrong)?;
    Ok(tree)
}

/// Parses a JSON file into the fields of an object.
pub(crate) fn fields(file: &str, text: &[u8]) -> Result<Map<String, Value>> {
    const EXPECTED: &str = "a JSON object";
    match tree(file, EXPECTED, text)? {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::Malformed { file: clip(file), expected: EXPECTED, found: describe(&other) }),
    }
}

/// Builds a tree of values while its memory lasts.
#[derive(Clone, Copy)]
struct Tree<'l> {
    /// Bytes that are left.
    left: &'l Cell<usize>,
}

impl Tree<'_> {
    /// What an allocation costs, and a node of the map that objects are, which has room for eleven entries.
    const ALLOCATION: usize = 32;
    const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + Tree::ALLOCATION;

    fn pay<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(bytes);
        let enough = |left| self.left.set(left);
        left.map(enough).ok_or_else(|| E::custom(format_args!("more values than {MAX_TREE} bytes hold")))
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.pay(value.len() + Tree::ALLOCATION)?;
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.pay(4 * size_of::<Value>() + Tree::ALLOCATION)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            // A list that grows has room for twice its items.
            self.pay(2 * size_of::<Value>())?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            // Nodes are at least half full, but for the first.
            self.pay(
                key.len() + Tree::ALLOCATION + if fields.is_empty() { Tree::NODE } else { Tree::NODE / 5 },
            )?;
            fields.insert(key, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(fields))
    }
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
            if entries.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format_args!("more than {MAX_ENTRIES} entries")));
            }
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
