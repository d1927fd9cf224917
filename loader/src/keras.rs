//! The weights of a Keras preset: `model.weights.h5`, or the shards that `model.weights.json` names.
//!
//! Tensors have the names of the file, in the spelling of current Keras. Two older spellings are translated:
//!
//! - the root `_layer_checkpoint_dependencies`, which is `layers` now;
//! - the private names (`_query_dense`) of the four projections of an attention layer (`_self_attention_layer`,
//!   `_cross_attention_layer`), which are public now (`query_dense`).
//!
//! The index of shards says in which files the variables of each layer lie, but not which variable lies in which file: a
//! layer may be split over several files. The index is untrusted, like the index of safetensors: names of shards must be
//! plain file names of the directory, and the index and the shards must agree on every layer, in both directions.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::dir::{Dir, read_limited};
use crate::error::{Error, Result, clip};
use crate::hdf5;
use crate::json::{self, Object, UniqueMap};
use crate::map::{Access, Region};
use crate::shards::{self, MAX_INDEX, WeightFile};
use crate::tensor::Tensor;

/// The tensors of one weight file, under their current names, sorted by name.
pub(crate) fn parse(region: &Arc<Region>) -> Result<Vec<Tensor>> {
    let mut tensors = hdf5::parse(region)?;
    let mut names = BTreeSet::new();
    for tensor in &mut tensors {
        if let Cow::Owned(name) = current_name(tensor.name()) {
            tensor.rename(name.into());
        }
        if !names.insert(tensor.name().to_owned()) {
            let file = clip(region.name());
            return Err(Error::Duplicate { other: file.clone(), file, tensor: clip(tensor.name()) });
        }
    }
    tensors.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(tensors)
}

/// Opens a file and its tensors.
pub(crate) fn open_file(path: &Path, name: &str, access: Access) -> Result<WeightFile> {
    let region = Arc::new(Region::open(path, name, access)?);
    let tensors = parse(&region)?;
    Ok(WeightFile { region, tensors })
}

/// Opens every shard that the index at `path` names.
pub(crate) fn open(dir: &Dir, index: &'static str, path: &Path, access: Access) -> Result<Vec<WeightFile>> {
    let text = read_limited(path, MAX_INDEX)?;
    let Object(Index { weight_map: UniqueMap(places) }) =
        json::parse(index, "an object with a weight_map", &text)?;

    let mut by_shard: BTreeMap<&str, BTreeSet<Cow<str>>> = BTreeMap::new();
    for (layer, shards) in &places {
        for shard in shards.names() {
            let layer = layer.strip_prefix('/').unwrap_or(layer);
            by_shard.entry(shard).or_default().insert(current_name(layer));
        }
    }
    let paths = shards::resolve(dir, index, by_shard.keys().copied())?;

    let mut opened: Vec<WeightFile> = Vec::new();
    for ((shard, expected), path) in by_shard.iter().zip(paths) {
        let file = open_file(&path, shard, access)?;
        check_layers(shard, expected, &file.tensors)?;
        opened.push(file);
    }
    check_once(&opened)?;
    Ok(opened)
}

/// The names of the shards in an index, unchecked.
pub(crate) fn names(index: &'static str, text: &[u8]) -> Result<BTreeSet<String>> {
    let Object(Index { weight_map: UniqueMap(places) }) =
        json::parse(index, "an object with a weight_map", text)?;
    Ok(places.values().flat_map(|shards| shards.names().iter().cloned()).collect())
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<Shards>,
}

/// The files in which a layer's variables lie.
#[derive(Deserialize)]
#[serde(untagged, expecting = "the name of a shard, or an array of names")]
enum Shards {
    One(String),
    Several(Vec<String>),
}

impl Shards {
    fn names(&self) -> &[String] {
        match self {
            Shards::One(name) => std::slice::from_ref(name),
            Shards::Several(names) => names,
        }
    }
}

/// Checks that a shard has variables of exactly those layers that the index places there.
fn check_layers(shard: &str, expected: &BTreeSet<Cow<str>>, tensors: &[Tensor]) -> Result<()> {
    let layer = |tensor: &Tensor| tensor.name().rsplit_once('/').map_or("", |(layer, _)| layer).to_owned();
    let found: BTreeSet<String> = tensors.iter().map(layer).collect();
    if let Some(layer) = expected.iter().find(|layer| !found.contains(layer.as_ref())) {
        return Err(Error::NotInShard { shard: clip(shard), tensor: clip(layer) });
    }
    match found.iter().find(|layer| !expected.contains(layer.as_str())) {
        Some(layer) => Err(Error::NotInIndex { shard: clip(shard), tensor: clip(layer) }),
        None => Ok(()),
    }
}

/// Checks that no tensor lies in two shards.
fn check_once(opened: &[WeightFile]) -> Result<()> {
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    for WeightFile { region, tensors } in opened {
        for tensor in tensors {
            if let Some(other) = places.insert(tensor.name(), region.name()) {
                let (file, other) = (clip(region.name()), clip(other));
                return Err(Error::Duplicate { file, tensor: clip(tensor.name()), other });
            }
        }
    }
    Ok(())
}

/// Translates the name of a variable in an older file to the current spelling.
fn current_name(name: &str) -> Cow<'_, str> {
    const OLD_ROOT: &str = "_layer_checkpoint_dependencies";
    let mut parts: Vec<&str> = name.split('/').collect();
    let mut old = false;
    if let Some(root) = parts.first_mut().filter(|root| **root == OLD_ROOT) {
        (*root, old) = ("layers", true);
    }
    let mut parent = "";
    for part in &mut parts {
        let in_attention = matches!(parent, "_self_attention_layer" | "_cross_attention_layer");
        if in_attention && matches!(*part, "_query_dense" | "_key_dense" | "_value_dense" | "_output_dense") {
            (*part, old) = (part.trim_start_matches('_'), true);
        }
        parent = part;
    }
    if old { Cow::Owned(parts.join("/")) } else { Cow::Borrowed(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_names_are_translated() {
        for (old, new) in [
            ("_layer_checkpoint_dependencies/dense/vars/0", "layers/dense/vars/0"),
            (
                "_layer_checkpoint_dependencies/a/_self_attention_layer/_query_dense/vars",
                "layers/a/_self_attention_layer/query_dense/vars",
            ),
            (
                "layers/a/_cross_attention_layer/_output_dense/vars/1",
                "layers/a/_cross_attention_layer/output_dense/vars/1",
            ),
        ] {
            assert_eq!(current_name(old), new);
            assert!(matches!(current_name(new), Cow::Borrowed(same) if same == new));
        }
        for same in ["layers/a/_feedforward_output_dense/vars/0", "vars/0", "layers/_output_dense/vars/0", ""]
        {
            assert!(matches!(current_name(same), Cow::Borrowed(name) if name == same));
        }
    }
}
