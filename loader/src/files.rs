//! Which files make up a preset. Caches and downloads need to know without opening the preset.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::config::{Config, ConfigSource};
use crate::dir::{Dir, NameKind, read_limited};
use crate::error::{Error, Result};
use crate::json::MAX_JSON;
use crate::shards::MAX_INDEX;
use crate::{keras, shards};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const SAFETENSORS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const KERAS: &str = "model.weights.h5";
pub(crate) const KERAS_INDEX: &str = "model.weights.json";
/// The weights of a Keras task that are not its backbone's.
pub(crate) const TASK: &str = "task.weights.h5";

/// The names of the weight files of one kind of preset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightFileNames {
    /// The file with all weights. It takes precedence over the index.
    pub(crate) single: &'static str,
    /// The index of shards.
    pub(crate) index: &'static str,
    shard_names: fn(&'static str, &[u8]) -> Result<BTreeSet<String>>,
}

impl WeightFileNames {
    /// The weight files that belong to a configuration.
    pub(crate) fn of(source: &ConfigSource) -> WeightFileNames {
        match source {
            ConfigSource::HuggingFace { .. } => {
                WeightFileNames { single: SAFETENSORS, index: INDEX, shard_names: shards::names }
            }
            ConfigSource::Keras { .. } => {
                WeightFileNames { single: KERAS, index: KERAS_INDEX, shard_names: keras::names }
            }
        }
    }

    /// The names of the shards in the text of an index, unchecked.
    pub(crate) fn shards(&self, index: &[u8]) -> Result<BTreeSet<String>> {
        (self.shard_names)(self.index, index)
    }
}

/// Whether a file name has the ending of a pickle.
pub(crate) fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"].iter().any(|ending| name.ends_with(ending))
}

/// Which files of a preset the caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The configuration.
    Config,
    /// The configuration and the weights.
    Weights,
}

/// Whether the needed files of a preset exist.
#[derive(Debug)]
pub(crate) enum Presence {
    /// All of them exist: these. Also returned for a preset that a further download would not mend, such as one with a
    /// broken configuration: opening it reports what is wrong.
    Complete(Vec<String>),
    /// This file is missing.
    Missing(String),
}

/// Looks for the files of `scope` in a cached preset. Unlike the files of a directory that the user chose, every one of
/// them must lie in the directory or in the `blobs` of the hub's cache: see [`Dir::contained`].
pub(crate) fn find_files(dir: &Dir, scope: Scope) -> Result<Presence> {
    let fixed = [CONFIG, SAFETENSORS, INDEX, KERAS, KERAS_INDEX];
    let [config, safetensors, index, keras, keras_index] = fixed.map(|name| find(dir, name));
    let (hugging_face, keras) = ([safetensors?, index?], [keras?, keras_index?]);
    let missing = |name: &str| Ok(Presence::Missing(name.to_owned()));
    let Some(config) = config? else { return missing(CONFIG) };
    let mut files = vec![CONFIG.to_owned()];
    if scope == Scope::Config {
        return Ok(Presence::Complete(files));
    }

    let Ok(config) = read_limited(&config, MAX_JSON).and_then(|text| Config::parse(CONFIG, &text)) else {
        return Ok(Presence::Complete(files));
    };
    let names = WeightFileNames::of(config.source());
    let ([single, index], other) = match config.source() {
        ConfigSource::HuggingFace { .. } => (hugging_face, keras),
        ConfigSource::Keras { .. } => (keras, hugging_face),
    };
    match (single, index) {
        (Some(_), _) => files.push(names.single.to_owned()),
        (None, Some(path)) => {
            files.push(names.index.to_owned());
            let Ok(shards) = read_limited(&path, MAX_INDEX).and_then(|text| names.shards(&text)) else {
                return Ok(Presence::Complete(files));
            };
            for shard in shards.into_iter().take(shards::MAX_SHARDS) {
                if find(dir, &shard)?.is_none() {
                    return Ok(Presence::Missing(shard));
                }
                files.push(shard);
            }
        }
        (None, None)
            if other.iter().all(Option::is_none) && !dir.names()?.iter().any(|name| is_pickle(name)) =>
        {
            return Ok(Presence::Missing(format!("{} or {}", names.single, names.index)));
        }
        (None, None) => {}
    }
    Ok(Presence::Complete(files))
}

/// The path of a contained file; `None` when it does not exist, or is a symlink to a blob that does not exist.
fn find(dir: &Dir, name: &str) -> Result<Option<PathBuf>> {
    match dir.contained(name, NameKind::File) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        found => found,
    }
}
