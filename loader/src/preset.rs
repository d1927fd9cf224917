//! A preset: the directory as a whole.
//!
//! This module and `files` decide which files make up a preset. The module of each format turns one file into tensors.
//! A further format is a further such module and a further arm of [`open_weights`].

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::caches::Caches;
use crate::config::{Config, ConfigSource};
use crate::dir::{Dir, NameKind, read_limited};
use crate::error::{Error, Result, clip};
use crate::files::{CONFIG, INDEX, KERAS, KERAS_INDEX, SAFETENSORS, Scope, TASK, WeightFileNames, is_pickle};
use crate::handle::Handle;
#[cfg(feature = "hub")]
use crate::hub::Hub;
use crate::json::{self, MAX_JSON};
use crate::keras;
use crate::map::{Access, Region};
use crate::safetensors;
use crate::shards::{self, WeightFile};
use crate::tensor::Tensor;

/// A model's configuration and weights, opened and checked.
///
/// Tensors that were cloned from a preset stay valid after the preset is dropped: they share its files.
#[derive(Debug)]
pub struct Preset {
    dir: Option<Dir>,
    config: Config,
    /// How the weights were opened; `None` when they were not opened, or come from memory.
    access: Option<Access>,
    files: Vec<FileInfo>,
    tensors: Vec<Tensor>,
}

/// A weight file of a preset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// The file's name in the directory.
    pub name: String,
    /// The file's length in bytes.
    pub len: usize,
    /// Whether the file is memory-mapped.
    pub mapped: bool,
}

impl Preset {
    /// Opens a preset directory and checks its files. With [`Access::Map`] no weight is read yet; by choosing it the
    /// caller accepts the contract stated there.
    ///
    /// The configuration decides which weight files are opened: for Hugging Face `model.safetensors`, or the shards of
    /// `model.safetensors.index.json`; for Keras `model.weights.h5`, or the shards of `model.weights.json`. If both the
    /// single file and the index exist, the single file is used. These files may be symlinks. Shards must lie in the
    /// directory, or be symlinks into the `blobs` of the Hugging Face cache that the directory belongs to.
    ///
    /// # Errors
    /// Any [`Error`] except those about names, caches and downloads. Pickled weights (`pytorch_model.bin`) are never
    /// read: [`Error::Pickle`].
    pub fn open(dir: impl AsRef<Path>, access: Access) -> Result<Preset> {
        let preset = Preset::open_config(dir)?;
        let weights = match &preset.dir {
            Some(dir) => open_weights(dir, preset.config.source(), access)?,
            None => Vec::new(),
        };
        Ok(Preset { access: Some(access), ..Preset::new(preset.dir, preset.config, weights) })
    }

    /// Opens a preset directory without its weights, which need not exist: the configuration, and the files that can be
    /// read beside it.
    ///
    /// # Errors
    /// The errors of [`Preset::open`] about the directory and `config.json`.
    pub fn open_config(dir: impl AsRef<Path>) -> Result<Preset> {
        let dir = Dir::open(dir.as_ref())?;
        let config = match dir.fixed(CONFIG)? {
            Some(path) => Config::parse(CONFIG, &read_limited(&path, MAX_JSON)?)?,
            None => return Err(missing(&dir, CONFIG)?),
        };
        Ok(Preset::new(Some(dir), config, Vec::new()))
    }

    /// Opens the preset with this name: a path, `hf://owner/name`, `kaggle://...`, or a KerasHub preset. The
    /// [`handle`](crate::handle) module lists the names.
    ///
    /// Presets are looked up in the caches of the environment ([`Caches::from_env`]), without a network.
    ///
    /// # Errors
    /// The errors of [`Handle::parse`], [`Handle::resolve`] and [`Preset::open`].
    pub fn named(name: impl AsRef<OsStr>, access: Access) -> Result<Preset> {
        Preset::open(Handle::parse(name)?.locate(&Caches::from_env(), Scope::Weights)?, access)
    }

    /// Opens the preset with this name without its weights: [`Preset::named`] finds it, [`Preset::open_config`] opens
    /// it.
    ///
    /// # Errors
    /// The errors of [`Preset::named`], except those about weights.
    pub fn named_config(name: impl AsRef<OsStr>) -> Result<Preset> {
        Preset::open_config(Handle::parse(name)?.locate(&Caches::from_env(), Scope::Config)?)
    }

    /// Opens the preset with this name, after downloading from `hub` the files that the cache lacks. Only names of the
    /// form `hf://owner/name` are downloaded; every other name is found as [`Preset::named`] finds it.
    ///
    /// # Errors
    /// The errors of [`Preset::named`] and of [`Hub::fetch`].
    #[cfg(feature = "hub")]
    pub fn fetch(name: impl AsRef<OsStr>, access: Access, hub: &Hub) -> Result<Preset> {
        Preset::open(hub.resolve(&Handle::parse(name)?, &Caches::from_env(), Scope::Weights)?, access)
    }

    /// Opens the preset with this name without its weights, like [`Preset::fetch`]. When the cache has no configuration
    /// for the name, the whole snapshot is downloaded, weights included, so that the cache never holds a part of one.
    ///
    /// # Errors
    /// The errors of [`Preset::named_config`] and of [`Hub::fetch`].
    #[cfg(feature = "hub")]
    pub fn fetch_config(name: impl AsRef<OsStr>, hub: &Hub) -> Result<Preset> {
        Preset::open_config(hub.resolve(&Handle::parse(name)?, &Caches::from_env(), Scope::Config)?)
    }

    /// A preset from memory: the text of a `config.json` and a whole weight file, which is safetensors, or HDF5 when
    /// Keras wrote the configuration. For weights that are part of the program, or do not come from a file system.
    ///
    /// # Errors
    /// The errors of [`Config::parse`], and of [`safetensors::parse`] or [`hdf5::parse`](crate::hdf5::parse).
    pub fn from_bytes(config: &[u8], weights: Region) -> Result<Preset> {
        let (config, region) = (Config::parse(CONFIG, config)?, Arc::new(weights));
        let tensors = match config.source() {
            ConfigSource::HuggingFace { .. } => safetensors::parse(&region)?,
            ConfigSource::Keras { .. } => keras::parse(&region)?,
        };
        Ok(Preset::new(None, config, vec![WeightFile { region, tensors }]))
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The directory as the caller wrote it; empty for a preset from memory.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), Dir::path)
    }

    /// The tensor with this name; `None` when there is none.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let at = self.tensors.binary_search_by(|tensor| tensor.name().cmp(name)).ok()?;
        self.tensors.get(at)
    }

    /// The tensor with this name.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] when there is none.
    pub fn require(&self, name: &str) -> Result<&Tensor> {
        let missing = || Error::MissingTensor { dir: self.dir().to_owned(), tensor: clip(name) };
        self.tensor(name).ok_or_else(missing)
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The weight files.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// The total length of the memory-mapped weight files, in bytes.
    pub fn bytes_mapped(&self) -> usize {
        self.files.iter().filter(|file| file.mapped).map(|file| file.len).fold(0, usize::saturating_add)
    }

    /// The total length of the tensors that were copied because they are misaligned in their file, in bytes.
    pub fn bytes_copied(&self) -> usize {
        let copied = self.tensors.iter().filter(|tensor| tensor.copied());
        copied.map(Tensor::byte_len).fold(0, usize::saturating_add)
    }

    /// The weights of a Keras preset's task, which lie beside those of its backbone in `task.weights.h5`: a preset of
    /// the same directory and configuration, with their tensors. It is opened as this one was. `None` when there is no
    /// such file, for a Hugging Face preset, and for one whose weights were not opened or come from memory.
    ///
    /// # Errors
    /// The errors of [`Preset::open`] about weights.
    pub fn task(&self) -> Result<Option<Preset>> {
        let (Some(dir), Some(access)) = (&self.dir, self.access) else { return Ok(None) };
        if matches!(self.config.source(), ConfigSource::HuggingFace { .. }) {
            return Ok(None);
        }
        let Some(path) = dir.contained(TASK, NameKind::File)? else { return Ok(None) };
        let region = Arc::new(Region::open(&path, TASK, access)?);
        let tensors = keras::parse(&region)?;
        let weights = vec![WeightFile { region, tensors }];
        Ok(Some(Preset {
            access: self.access,
            ..Preset::new(Some(dir.clone()), self.config.clone(), weights)
        }))
    }

    /// Reads a JSON file beside the weights, such as `1_Pooling/config.json`, of at most 1 MiB; `None` when it does not
    /// exist. `name` is a relative path of plain names. Like a shard, the file must lie in the directory or in the
    /// `blobs` of its cache.
    ///
    /// # Errors
    /// [`Error::OutsideDirectory`], [`Error::FileTooLarge`], [`Error::OutOfMemory`], [`Error::Malformed`],
    /// [`Error::NotAFile`], [`Error::Io`].
    pub fn read_json(&self, name: &str) -> Result<Option<Value>> {
        let Some(text) = self.read(name, MAX_JSON)? else { return Ok(None) };
        json::parse(name, "JSON", &text).map(Some)
    }

    /// Reads a JSON object beside the weights, such as `generation_config.json`, with the accessors of the
    /// configuration; `None` when the file does not exist. For `name` see [`Preset::read_json`].
    ///
    /// # Errors
    /// The errors of [`Preset::read_json`]; [`Error::Malformed`] also for JSON that is not an object.
    pub fn read_config(&self, name: &str) -> Result<Option<Config>> {
        let Some(text) = self.read(name, MAX_JSON)? else { return Ok(None) };
        Config::parse_settings(name, self.config.source().clone(), &text).map(Some)
    }

    /// Reads a UTF-8 text file beside the weights, such as `vocab.txt`, of at most `max_len` bytes; `None` when it does
    /// not exist. For `name` see [`Preset::read_json`].
    ///
    /// # Errors
    /// The errors of [`Preset::read_json`].
    pub fn read_text(&self, name: &str, max_len: u64) -> Result<Option<String>> {
        let Some(text) = self.read(name, max_len)? else { return Ok(None) };
        let wrong = |e| Error::Malformed { file: clip(name), expected: "UTF-8 text", found: clip(e) };
        String::from_utf8(text).map(Some).map_err(wrong)
    }

    /// Reads a file beside the weights, such as `spiece.model`, of at most `max_len` bytes; `None` when it does not
    /// exist. For `name` see [`Preset::read_json`].
    ///
    /// # Errors
    /// The errors of [`Preset::read_json`], except [`Error::Malformed`].
    pub fn read_bytes(&self, name: &str, max_len: u64) -> Result<Option<Vec<u8>>> {
        self.read(name, max_len)
    }

    fn new(dir: Option<Dir>, config: Config, weights: Vec<WeightFile>) -> Preset {
        let (mut files, mut tensors) = (Vec::new(), Vec::new());
        for WeightFile { region, tensors: tensors_of_file } in weights {
            let (name, len) = (region.name().to_owned(), region.bytes().len());
            files.push(FileInfo { name, len, mapped: region.is_mapped() });
            tensors.extend(tensors_of_file);
        }
        tensors.sort_by(|a, b| a.name().cmp(b.name()));
        Preset { dir, config, access: None, files, tensors }
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.contained(name, NameKind::Path)?;
        path.map(|path| read_limited(&path, limit)).transpose()
    }
}

/// Opens the weight files of a directory, in the format of `source`.
fn open_weights(dir: &Dir, source: &ConfigSource, access: Access) -> Result<Vec<WeightFile>> {
    type Parse = fn(&Arc<Region>) -> Result<Vec<Tensor>>;
    type Open = fn(&Dir, &'static str, &Path, Access) -> Result<Vec<WeightFile>>;
    let WeightFileNames { single, index, .. } = WeightFileNames::of(source);
    let (parse, open): (Parse, Open) = match source {
        ConfigSource::HuggingFace { .. } => (safetensors::parse, shards::open),
        ConfigSource::Keras { .. } => (keras::parse, keras::open),
    };
    if let Some(path) = dir.fixed(single)? {
        let region = Arc::new(Region::open(&path, single, access)?);
        let tensors = parse(&region)?;
        return Ok(vec![WeightFile { region, tensors }]);
    }
    match dir.fixed(index)? {
        Some(path) => open(dir, index, &path, access),
        None => Err(missing(dir, &format!("{single} or {index}"))?),
    }
}

/// The error for a directory without the file `expected`. If the directory has another kind of weights, the error
/// names that kind.
fn missing(dir: &Dir, expected: &str) -> Result<Error> {
    let missing = || Error::MissingFile { dir: dir.path().to_owned(), expected: expected.to_owned() };
    let unsupported = |found| Error::UnsupportedFormat { dir: dir.path().to_owned(), found };
    let safetensors = dir.fixed(SAFETENSORS)?.is_some() || dir.fixed(INDEX)?.is_some();
    let keras = dir.fixed(KERAS)?.is_some() || dir.fixed(KERAS_INDEX)?.is_some();
    match (safetensors, keras) {
        (false, false) => {}
        _ if expected == CONFIG => return Ok(missing()),
        (true, _) => return Ok(unsupported("safetensors beside the config.json of a Keras preset")),
        (false, true) => {
            return Ok(unsupported("Keras weights beside a config.json without registered_name"));
        }
    }
    let names = dir.names()?;
    Ok(match names.iter().find(|name| is_pickle(name)) {
        Some(pickle) => Error::Pickle { path: dir.path().join(pickle) },
        None => missing(),
    })
}
