//! Any bytes as an index and its shards: a preset opens exactly when the index keeps its contract, which is stated
//! here again, and then every tensor can be read, alike by both accesses.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rachis_loader::{Access, Data, Preset, Region, safetensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

#[path = "files/parts.rs"]
#[allow(dead_code, reason = "HDF5 has no part in this")]
mod parts;
#[path = "files/scratch.rs"]
mod scratch;

use scratch::Scratch;

/// The shards, in the order of the parts.
const SHARDS: [&str; 4] = ["a", "b", "c", "model-00001-of-00002.safetensors"];

thread_local! {
    static SCRATCH: Scratch = Scratch::new("safetensors_index");
}

fuzz_target!(|bytes: &[u8]| SCRATCH.with(|scratch| check(scratch.path(), bytes)));

fn check(dir: &Path, bytes: &[u8]) {
    let parts = parts::parts(bytes);
    let (index, shards) = (parts[0], &parts[1..]);
    scratch::clear(dir);
    fs::write(dir.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    for (name, shard) in SHARDS.iter().zip(shards) {
        // A file as it is, which starts with its header's length, or one that lacks it.
        let whole = if shard.first() == Some(&b'{') { parts::safetensors(shard) } else { shard.to_vec() };
        fs::write(dir.join(name), whole).unwrap();
    }

    let [mapped, read] = [Access::Map, Access::Read].map(|access| Preset::open(dir, access));
    let promised = contract(dir, index);
    match (mapped, read) {
        (Ok(mapped), Ok(read)) => {
            let promised = promised.expect("it keeps its contract");
            assert_eq!(mapped.tensors().len(), promised.len());
            for (mapped, read) in mapped.tensors().iter().zip(read.tensors()) {
                let shard = promised.get(mapped.name()).expect("the index has it");
                assert_eq!((mapped.name(), mapped.file()), (read.name(), Some(&**shard)));
                assert_eq!((mapped.shape(), mapped.dtype()), (read.shape(), read.dtype()));
                assert_eq!(mapped.bytes(), read.bytes());
                let elements: usize = mapped.shape().iter().product();
                let found = match mapped.data() {
                    Data::F32(data) => data.len(),
                    Data::Bf16(data) => data.len(),
                    Data::F16(data) => data.len(),
                    Data::Other(dtype, data) => data.len() * 8 / dtype.bits(),
                    _ => unreachable!("all kinds of data are above"),
                };
                assert_eq!(found, elements);
            }
        }
        (Err(mapped), Err(read)) => {
            let message = mapped.to_string();
            assert!(promised.is_err(), "{message}");
            assert_eq!(message, read.to_string());
            assert!(!message.contains('\n') && message.len() < 8000, "{message:?}");
        }
        (mapped, read) => panic!("{mapped:?} but {read:?}"),
    }
}

/// Which tensor lies in which shard, if index and shards say so of one another.
fn contract(dir: &Path, index: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let Index(places) = serde_json::from_slice(index).map_err(|e| e.to_string())?;
    let names: BTreeSet<&String> = places.values().collect();
    let mut found = BTreeMap::new();
    for shard in names {
        if shard.len() > 255 || matches!(&**shard, "" | "." | "..") {
            return Err(format!("{shard:?} is no file name"));
        }
        if shard.chars().any(|c| "/\\:".contains(c) || c.is_control()) {
            return Err(format!("{shard:?} is not plain"));
        }
        let bytes = fs::read(dir.join(shard)).map_err(|e| e.to_string())?;
        let tensors = safetensors::parse(&Arc::new(Region::from_vec("shard", bytes)));
        for tensor in tensors.map_err(|e| e.to_string())? {
            if found.insert(tensor.name().to_owned(), shard.clone()).is_some() {
                return Err(format!("{:?} is there twice", tensor.name()));
            }
        }
    }
    if found == places { Ok(places) } else { Err("index and shards differ".to_owned()) }
}

/// An object with one `weight_map`, in which every tensor occurs once.
struct Index(BTreeMap<String, String>);

struct Places(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Index, D::Error> {
        deserializer.deserialize_map(IndexVisitor)
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Places, D::Error> {
        deserializer.deserialize_map(PlacesVisitor)
    }
}

struct IndexVisitor;

struct PlacesVisitor;

impl<'de> Visitor<'de> for IndexVisitor {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
        let mut maps = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "weight_map" {
                maps.push(map.next_value::<Places>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let several = format!("{} maps of weights", maps.len());
        match (maps.pop(), maps.pop()) {
            (Some(Places(places)), None) => Ok(Index(places)),
            _ => Err(serde::de::Error::custom(several)),
        }
    }
}

impl<'de> Visitor<'de> for PlacesVisitor {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of weights")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
        let mut places = BTreeMap::new();
        while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
            if places.insert(tensor, shard).is_some() {
                return Err(serde::de::Error::custom("a tensor twice"));
            }
        }
        Ok(Places(places))
    }
}
