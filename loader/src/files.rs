//! Which files make up a preset, for those who must know without opening it: caches and downloads.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::config::{Config, ConfigSource};
use crate::dir::{Dir, Name, read_limited};
use crate::error::{Error, Result};
use crate::json::MAX_JSON;
use crate::shards::MAX_INDEX;
use crate::{keras, shards};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const SAFETENSORS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const KERAS: &str = "model.weights.h5";
pub(crate) const KERAS_INDEX: &str = "model.weights.json";

/// The weight files of the two kinds of presets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    /// All in one file, which counts when there is an index, too.
    pub(crate) single: &'static str,
    /// The index of shards.
    pub(crate) index: &'static str,
    names: fn(&'static str, &[u8]) -> Result<BTreeSet<String>>,
}

impl Weights {
    /// Those that belong to a configuration.
    pub(crate) fn of(source: &ConfigSource) -> Weights {
        match source {
            ConfigSource::HuggingFace { .. } => {
                Weights { single: SAFETENSORS, index: INDEX, names: shards::names }
            }
            ConfigSource::Keras { .. } => Weights { single: KERAS, index: KERAS_INDEX, names: keras::names },
        }
    }

    /// The names of the shards, as an index has them: unchecked.
    pub(crate) fn shards(&self, index: &[u8]) -> Result<BTreeSet<String>> {
        (self.names)(self.index, index)
    }
}

/// Whether a file would be a pickle by its name.
pub(crate) fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"].iter().any(|ending| name.ends_with(ending))
}

/// What is wanted of a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The configuration alone.
    Config,
    /// Weights, too.
    All,
}

/// How much of a preset is there.
#[derive(Debug)]
pub(crate) enum Extent {
    /// All that is wanted: these files. Or there is nothing to wait for: whoever opens it learns what is wrong.
    Complete(Vec<String>),
    /// This file is missing.
    Missing(String),
}

/// Looks for the files that are wanted of a preset. Other than for a directory that the user chose, every one of them must
/// lie in it, or in the hub cache's `blobs`: see [`Dir::contained`].
pub(crate) fn extent(dir: &Dir, wanted: Wanted) -> Result<Extent> {
    let fixed = [CONFIG, SAFETENSORS, INDEX, KERAS, KERAS_INDEX];
    let [config, safetensors, index, keras, keras_index] = fixed.map(|name| find(dir, name));
    let (weights, other) = ([safetensors?, index?], [keras?, keras_index?]);
    let missing = |name: &str| Ok(Extent::Missing(name.to_owned()));
    let Some(config) = config? else { return missing(CONFIG) };
    let mut files = vec![CONFIG.to_owned()];
    if wanted == Wanted::Config {
        return Ok(Extent::Complete(files));
    }

    let Ok(source) = read_limited(&config, MAX_JSON).and_then(|text| Config::parse(CONFIG, &text)) else {
        return Ok(Extent::Complete(files));
    };
    let kind = Weights::of(source.source());
    let ([single, index], other) = match source.source() {
        ConfigSource::HuggingFace { .. } => (weights, other),
        ConfigSource::Keras { .. } => (other, weights),
    };
    match (single, index) {
        (Some(_), _) => files.push(kind.single.to_owned()),
        (None, Some(path)) => {
            files.push(kind.index.to_owned());
            let Ok(shards) = read_limited(&path, MAX_INDEX).and_then(|text| kind.shards(&text)) else {
                return Ok(Extent::Complete(files));
            };
            for shard in shards.into_iter().take(shards::MAX_SHARDS) {
                if find(dir, &shard)?.is_none() {
                    return Ok(Extent::Missing(shard));
                }
                files.push(shard);
            }
        }
        (None, None)
            if other.iter().all(Option::is_none) && !dir.names()?.iter().any(|name| is_pickle(name)) =>
        {
            return Ok(Extent::Missing(format!("{} or {}", kind.single, kind.index)));
        }
        (None, None) => {}
    }
    Ok(Extent::Complete(files))
}

/// A contained file; `None` also for a symlink to a blob that is gone.
fn find(dir: &Dir, name: &str) -> Result<Option<PathBuf>> {
    match dir.contained(name, Name::File) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        found => found,
    }
}
