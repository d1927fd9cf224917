//! The files of a sentence-transformers directory, read as version 6.2 of the library reads them, files of versions 1 to
//! 6 alike: `modules.json`, `config_sentence_transformers.json`, the settings of the Transformer module.

mod prompts;
mod settings;

use rachis::loader::Preset;
use serde_json::{Map, Value};

pub(crate) use prompts::Prompts;
pub(crate) use settings::{Output, Settings, TextKind};

use crate::error::{Error, Result, clip, in_file};

pub(crate) const MODULES: &str = "modules.json";
const CONFIG: &str = "config_sentence_transformers.json";

/// A module of `modules.json`.
#[derive(Debug)]
pub(crate) struct Module {
    /// The class: the last part of the name of a class of the library itself, else the full name.
    pub(crate) class: String,
    /// The folder; empty for the directory itself.
    pub(crate) path: String,
}

impl Module {
    /// The path of a file of the module in the directory.
    pub(crate) fn file(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }

    /// The module's `config.json`; `None` when there is none.
    pub(crate) fn config(&self, preset: &Preset) -> Result<Option<Fields>> {
        Fields::read(self.file("config.json"), |name| Ok(preset.read_root_json(name)?))
    }

    /// The error for a module that is not implemented.
    pub(crate) fn unknown(&self) -> Error {
        in_file(MODULES, format_args!("module {} is not implemented", clip(&self.class)))
    }
}

/// What a directory says about the model as a whole: `config_sentence_transformers.json`.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The modules; `None` for a directory that the library did not write, or wrote for another kind of model: it then
    /// makes modules of its own, and ignores the rest of the file, too.
    pub(crate) modules: Option<Vec<Module>>,
    /// The fields of the file; none without modules.
    pub(crate) config: Fields,
}

impl Directory {
    /// Reads the files for a class of model, such as `SentenceTransformer`.
    pub(crate) fn read(preset: &Preset, class: &str) -> Result<Directory> {
        let Some(modules) = preset.read_root_json(MODULES)? else { return Ok(Directory::plain()) };
        let read = Fields::read(CONFIG.to_owned(), |name| Ok(preset.read_root_json(name)?))?;
        let config = read.unwrap_or_else(|| Fields::none(CONFIG));
        if config.opt_str("model_type")?.unwrap_or("SentenceTransformer") != class {
            return Ok(Directory::plain());
        }
        let modules = modules.as_array().ok_or_else(|| in_file(MODULES, "is not a list of modules"))?;
        let modules: Vec<Module> = modules.iter().map(module).collect::<Result<_>>()?;
        match modules.first() {
            None => Err(in_file(MODULES, "has no modules")),
            Some(first) if first.class != "Transformer" => Err(first.unknown()),
            Some(first) if first.path != preset.folder() => {
                let [expected, found] = [&first.path, preset.folder()].map(clip);
                let message = format!("the Transformer is in {expected}, found config.json in {found}");
                Err(in_file(MODULES, message))
            }
            Some(_) => Ok(Directory { modules: Some(modules), config }),
        }
    }

    fn plain() -> Directory {
        Directory { modules: None, config: Fields::none(CONFIG) }
    }
}

fn module(module: &Value) -> Result<Module> {
    let text = |name: &str| {
        let wrong = || in_file(MODULES, format_args!("has a module whose {name} is not a string"));
        module.get(name).and_then(Value::as_str).ok_or_else(wrong)
    };
    let (class, path) = (text("type")?, text("path")?);
    let own = class.strip_prefix("sentence_transformers.").and_then(|class| class.rsplit('.').next());
    Ok(Module { class: own.unwrap_or(class).to_owned(), path: path.trim_end_matches('/').to_owned() })
}

/// The fields of a JSON object in a file, with accessors that check their types. Null counts as absent.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) file: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// Reads an object by `read`; `None` when there is no such file.
    pub(crate) fn read(
        file: String,
        read: impl FnOnce(&str) -> Result<Option<Value>>,
    ) -> Result<Option<Fields>> {
        match read(&file)? {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Fields { file, fields })),
            Some(_) => Err(in_file(&file, "is not a JSON object")),
        }
    }

    /// No fields, as if the file were not there.
    pub(crate) fn none(file: &str) -> Fields {
        Fields { file: file.to_owned(), fields: Map::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The error for a field with this value.
    pub(crate) fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = self.fields.get(name).map_or_else(|| "nothing".to_owned(), Value::to_string);
        let found: String = found.chars().take(60).collect();
        in_file(&self.file, format_args!("{name} is {found}, expected {expected}"))
    }

    /// An error when there is a field that is not among `known`: it might change the result.
    pub(crate) fn only(&self, known: &[&str]) -> Result<()> {
        match self.fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(in_file(&self.file, format_args!("field {} is not implemented", clip(name)))),
            None => Ok(()),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The value of a field; `None` when it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn opt_str(&self, name: &str) -> Result<Option<&str>> {
        self.opt(name, "a string", Value::as_str)
    }

    pub(crate) fn opt_bool(&self, name: &str) -> Result<Option<bool>> {
        self.opt(name, "true or false", Value::as_bool)
    }

    /// A number of things, 1 or more.
    pub(crate) fn opt_count(&self, name: &str) -> Result<Option<usize>> {
        let count = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|count| *count > 0);
        self.opt(name, "an integer, 1 or more", count)
    }

    pub(crate) fn count(&self, name: &str) -> Result<usize> {
        self.opt_count(name)?.ok_or_else(|| self.wrong(name, "an integer, 1 or more"))
    }

    /// An object inside of this one; empty when it is absent.
    pub(crate) fn object(&self, name: &str) -> Result<Fields> {
        let fields = self.opt(name, "an object", Value::as_object)?.cloned().unwrap_or_default();
        Ok(Fields { file: format!("{}: {name}", self.file), fields })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn opt<'f, T>(
        &'f self,
        name: &str,
        expected: &str,
        get: impl FnOnce(&'f Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| self.wrong(name, expected))
    }
}
