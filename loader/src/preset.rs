//! A preset: the directory as a whole.
//!
//! Which files make up a preset is decided here and in `files`; what is in one is for the module of its format, which
//! turns it into tensors. Another format is another such module and another arm of [`open_weights`].

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::config::{Config, ConfigSource};
use crate::dir::{Dir, Name, read_limited};
use crate::error::{Error, Result, clip};
use crate::files::{self, CONFIG, INDEX, KERAS, KERAS_INDEX, SAFETENSORS, Wanted, is_pickle};
use crate::handle;
use crate::json::{self, MAX_JSON};
use crate::keras;
use crate::map::{Access, Region};
use crate::safetensors;
use crate::shards::{self, Weights};
use crate::tensor::Tensor;

/// A model's configuration and weights, opened and checked.
///
/// Dropping it leaves the tensors cloned from it valid: they share its files.
#[derive(Debug)]
pub struct Preset {
    dir: Option<Dir>,
    config: Config,
    files: Vec<FileInfo>,
    tensors: Vec<Tensor>,
}

/// A weight file of a preset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// Its name in the directory.
    pub name: String,
    /// Its length in bytes.
    pub len: usize,
    /// Whether it is memory-mapped.
    pub mapped: bool,
}

impl Preset {
    /// Opens a preset directory and checks its files. No weight is read yet with [`Access::Map`], whose
    /// contract the caller takes on by choosing it.
    ///
    /// The configuration decides which weights are looked for: `model.safetensors` or the shards of
    /// `model.safetensors.index.json`, and of a Keras preset `model.weights.h5` or the shards of
    /// `model.weights.json`. When there are both a single file and an index, the single file counts. These files
    /// may be symlinks; shards must lie in the directory, or be symlinks into the `blobs` of the Hugging Face
    /// hub's cache that it belongs to.
    ///
    /// # Errors
    /// Any [`Error`]. Pickled weights (`pytorch_model.bin`) are never read: [`Error::Pickle`].
    pub fn open(dir: impl AsRef<Path>, access: Access) -> Result<Preset> {
        let preset = Preset::open_config(dir)?;
        let weights = match &preset.dir {
            Some(dir) => open_weights(dir, preset.config.source(), access)?,
            None => Vec::new(),
        };
        Ok(Preset::new(preset.dir, preset.config, weights))
    }

    /// Opens a preset directory without its weights, which need not be there: a configuration, and the files that can be
    /// read beside it.
    ///
    /// # Errors
    /// Those of [`Preset::open`] that are about the directory and `config.json`.
    pub fn open_config(dir: impl AsRef<Path>) -> Result<Preset> {
        let dir = Dir::open(dir.as_ref())?;
        let config = match dir.fixed(CONFIG)? {
            Some(path) => Config::parse(CONFIG, &read_limited(&path, MAX_JSON)?)?,
            None => return Err(missing(&dir, CONFIG)?),
        };
        Ok(Preset::new(Some(dir), config, Vec::new()))
    }

    /// Opens the preset of this name: a path, `hf://owner/name`, `kaggle://...`, or a KerasHub preset. See
    /// [`Handle`](crate::Handle) for what is a name, and where it is looked for.
    ///
    /// The caches are those of the environment ([`Caches::from_env`](crate::Caches::from_env)). With the feature
    /// `hub`, what is missing of an `hf://` preset is downloaded, unless `HF_HUB_OFFLINE` is set.
    ///
    /// # Errors
    /// Those of [`Handle::parse`](crate::Handle::parse) and [`Handle::resolve`](crate::Handle::resolve), and those
    /// of [`Preset::open`].
    pub fn named(name: impl AsRef<OsStr>, access: Access) -> Result<Preset> {
        Preset::open(handle::find(name.as_ref(), Wanted::All)?, access)
    }

    /// Opens the preset of this name without its weights, as [`Preset::open_config`] does.
    ///
    /// # Errors
    /// As for [`Preset::named`], but for those about weights.
    pub fn named_config(name: impl AsRef<OsStr>) -> Result<Preset> {
        Preset::open_config(handle::find(name.as_ref(), Wanted::Config)?)
    }

    /// A preset out of memory: the text of a `config.json` and a whole weight file (safetensors, or HDF5 when the
    /// configuration is Keras's), for weights that are part of the program or come from elsewhere than a file
    /// system.
    ///
    /// # Errors
    /// Those of [`Config::parse`] and of [`safetensors::parse`] or [`hdf5::parse`](crate::hdf5::parse).
    pub fn from_bytes(config: &[u8], weights: Region) -> Result<Preset> {
        let (config, region) = (Config::parse(CONFIG, config)?, Arc::new(weights));
        let tensors = match config.source() {
            ConfigSource::HuggingFace { .. } => safetensors::parse(&region)?,
            ConfigSource::Keras { .. } => keras::parse(&region)?,
        };
        Ok(Preset::new(None, config, vec![(region, tensors)]))
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The directory, as given; empty for a preset out of memory.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), Dir::path)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let at = self.tensors.binary_search_by(|tensor| tensor.name().cmp(name)).ok()?;
        self.tensors.get(at)
    }

    /// The tensor of this name, which must be there.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
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

    /// Bytes of weight files that are memory-mapped.
    pub fn bytes_mapped(&self) -> usize {
        self.files.iter().filter(|file| file.mapped).map(|file| file.len).fold(0, usize::saturating_add)
    }

    /// Bytes of tensors that had to be copied, as they are misaligned in their file.
    pub fn bytes_copied(&self) -> usize {
        let copied = self.tensors.iter().filter(|tensor| tensor.copied());
        copied.map(Tensor::byte_len).fold(0, usize::saturating_add)
    }

    /// A JSON file beside the weights, such as `1_Pooling/config.json`, of at most 1 MiB; `None` when there is
    /// none. `name` is a relative path of plain names, and what it leads to is held to the rule for shards.
    ///
    /// # Errors
    /// [`Error::OutsideDirectory`], [`Error::FileTooLarge`], [`Error::Malformed`], [`Error::NotAFile`],
    /// [`Error::Io`].
    pub fn read_json(&self, name: &str) -> Result<Option<Value>> {
        let Some(text) = self.read(name, MAX_JSON)? else { return Ok(None) };
        json::parse(name, "JSON", &text).map(Some)
    }

    /// A JSON object beside the weights, such as `generation_config.json`, read like the configuration; `None`
    /// when there is none. For `name` see [`Preset::read_json`].
    ///
    /// # Errors
    /// As for [`Preset::read_json`]; [`Error::Malformed`] also for JSON that is not an object.
    pub fn read_config(&self, name: &str) -> Result<Option<Config>> {
        let Some(text) = self.read(name, MAX_JSON)? else { return Ok(None) };
        Config::beside(name, self.config.source().clone(), &text).map(Some)
    }

    /// A UTF-8 text file beside the weights, such as `vocab.txt`, of at most `max_len` bytes; `None` when there
    /// is none. For `name` see [`Preset::read_json`].
    ///
    /// # Errors
    /// As for [`Preset::read_json`].
    pub fn read_text(&self, name: &str, max_len: u64) -> Result<Option<String>> {
        let Some(text) = self.read(name, max_len)? else { return Ok(None) };
        let wrong = |e| Error::Malformed { file: clip(name), expected: "UTF-8 text", found: clip(e) };
        String::from_utf8(text).map(Some).map_err(wrong)
    }

    /// A file beside the weights, such as `spiece.model`, of at most `max_len` bytes; `None` when there is none. For
    /// `name` see [`Preset::read_json`].
    ///
    /// # Errors
    /// As for [`Preset::read_json`].
    pub fn read_bytes(&self, name: &str, max_len: u64) -> Result<Option<Vec<u8>>> {
        self.read(name, max_len)
    }

    fn new(dir: Option<Dir>, config: Config, weights: Vec<Weights>) -> Preset {
        let (mut files, mut tensors) = (Vec::new(), Vec::new());
        for (region, of_file) in weights {
            let (name, len) = (region.name().to_owned(), region.bytes().len());
            files.push(FileInfo { name, len, mapped: region.is_mapped() });
            tensors.extend(of_file);
        }
        tensors.sort_by(|a, b| a.name().cmp(b.name()));
        Preset { dir, config, files, tensors }
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let path = dir.contained(name, Name::Path)?;
        path.map(|path| read_limited(&path, limit)).transpose()
    }
}

/// The weight files of a directory, by the format that it is in.
fn open_weights(dir: &Dir, source: &ConfigSource, access: Access) -> Result<Vec<Weights>> {
    type Parse = fn(&Arc<Region>) -> Result<Vec<Tensor>>;
    type Open = fn(&Dir, &'static str, &Path, Access) -> Result<Vec<Weights>>;
    let files::Weights { single, index, .. } = files::Weights::of(source);
    let (parse, open): (Parse, Open) = match source {
        ConfigSource::HuggingFace { .. } => (safetensors::parse, shards::open),
        ConfigSource::Keras { .. } => (keras::parse, keras::open),
    };
    if let Some(path) = dir.fixed(single)? {
        let region = Arc::new(Region::open(&path, single, access)?);
        let tensors = parse(&region)?;
        return Ok(vec![(region, tensors)]);
    }
    match dir.fixed(index)? {
        Some(path) => open(dir, index, &path, access),
        None => Err(missing(dir, &format!("{single} or {index}"))?),
    }
}

/// The error for a directory without `expected`: a more helpful one when it holds another kind of weights.
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
