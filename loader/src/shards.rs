//! Weights in several files: `model.safetensors.index.json` says which tensor lies in which.
//!
//! The index is untrusted. Shard names must be plain file names of the preset directory (see `dir`), and the index and
//! the shards must agree on every tensor, in both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::dir::{Dir, NameKind, read_limited};
use crate::error::{Error, Result, clip};
use crate::json::{self, Object, UniqueMap};
use crate::map::{Access, Region};
use crate::safetensors;
use crate::tensor::Tensor;

/// The largest index, in bytes. The index of a model with 671 billion parameters has nine million.
pub(crate) const MAX_INDEX: u64 = 16 << 20;

/// The most shards. The same model has 163.
pub(crate) const MAX_SHARDS: usize = 4096;

/// An opened weight file and its tensors.
pub(crate) struct WeightFile {
    pub(crate) region: Arc<Region>,
    pub(crate) tensors: Vec<Tensor>,
}

/// Opens every shard that the index at `path` names.
pub(crate) fn open(dir: &Dir, index: &'static str, path: &Path, access: Access) -> Result<Vec<WeightFile>> {
    let text = read_limited(path, MAX_INDEX)?;
    let Object(Index { weight_map: UniqueMap(places) }) =
        json::parse(index, "an object with a weight_map", &text)?;

    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &places {
        by_shard.entry(shard).or_default().push(tensor);
    }
    let paths = resolve(dir, index, by_shard.keys().copied())?;

    let mut opened = Vec::new();
    for ((shard, expected), path) in by_shard.iter().zip(paths) {
        let file = safetensors::open(&path, shard, access)?;
        let tensors = &file.tensors;
        let has = |name: &&&str| tensors.binary_search_by(|tensor| tensor.name().cmp(name)).is_ok();
        if let Some(tensor) = expected.iter().find(|name| !has(name)) {
            return Err(Error::NotInShard { shard: clip(shard), tensor: clip(tensor) });
        }
        opened.push(file);
    }
    for WeightFile { region, tensors } in &opened {
        tensors.iter().try_for_each(|tensor| check_place(&places, region.name(), tensor.name()))?;
    }
    Ok(opened)
}

/// The paths of the shards with these names. All names are checked before any shard is opened, so that nothing is opened
/// for an index that is refused.
pub(crate) fn resolve<'a>(
    dir: &Dir,
    index: &str,
    shards: impl ExactSizeIterator<Item = &'a str>,
) -> Result<Vec<PathBuf>> {
    if shards.len() > MAX_SHARDS {
        return Err(Error::TooManyShards { file: index.to_owned(), limit: MAX_SHARDS, found: shards.len() });
    }
    let path = |shard| {
        let missing = || Error::MissingFile { dir: dir.path().to_owned(), expected: clip(shard) };
        dir.contained(shard, NameKind::File)?.ok_or_else(missing)
    };
    shards.map(path).collect()
}

/// The names of the shards in an index, unchecked.
pub(crate) fn names(index: &'static str, text: &[u8]) -> Result<BTreeSet<String>> {
    let Object(Index { weight_map: UniqueMap(places) }) =
        json::parse(index, "an object with a weight_map", text)?;
    Ok(places.into_values().collect())
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Checks that the index places `tensor`, found in `shard`, in that shard. The caller has checked that every shard has
/// the tensors that the index places in it, so a tensor that the index places elsewhere exists twice.
fn check_place(places: &BTreeMap<String, String>, shard: &str, tensor: &str) -> Result<()> {
    match places.get(tensor) {
        Some(place) if place == shard => Ok(()),
        Some(place) => Err(Error::Duplicate { file: clip(shard), tensor: clip(tensor), other: clip(place) }),
        None => Err(Error::NotInIndex { shard: clip(shard), tensor: clip(tensor) }),
    }
}
