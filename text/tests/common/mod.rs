//! What the tests of this crate share: the golden texts and directories.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod goldens;

use std::path::Path;

use rachis_testkit::goldens::fixture;
use serde_json::Value;

/// A JSON file of the fixtures.
pub fn json(path: &str) -> Value {
    let text = std::fs::read_to_string(fixture(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The directories in a folder of the fixtures, by their paths, sorted.
pub fn directories(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(fixture(folder)).unwrap().map(|entry| entry.unwrap());
    let dirs = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> =
        dirs.map(|entry| format!("{folder}/{}", entry.file_name().to_str().unwrap())).collect();
    names.sort();
    assert!(!names.is_empty(), "{folder} has no directories");
    names
}

/// All texts of the goldens.
pub fn texts() -> Vec<String> {
    strings(&json("text/texts.json")["texts"])
}

/// The texts with these numbers.
pub fn selected(texts: &[String], numbers: &Value) -> Vec<String> {
    let numbers = numbers.as_array().unwrap().iter();
    numbers.map(|number| texts[number.as_u64().unwrap() as usize].clone()).collect()
}

/// A list of strings.
pub fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A copy of a directory of the fixtures that a test may change.
pub struct Copied(tempfile::TempDir);

impl Copied {
    pub fn of(folder: &str) -> Copied {
        let dir = Copied(tempfile::tempdir().unwrap());
        copy(&fixture(folder), dir.path());
        dir
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file.
    pub fn put(&self, file: &str, content: impl AsRef<[u8]>) -> &Copied {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Sets fields of a JSON file; null removes a field.
    pub fn set(&self, file: &str, fields: Value) -> &Copied {
        let path = self.path().join(file);
        let old = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
        let mut json: Value = serde_json::from_str(&old).unwrap();
        for (name, value) in fields.as_object().unwrap() {
            match value {
                Value::Null => drop(json.as_object_mut().unwrap().remove(name)),
                value => json[name] = value.clone(),
            }
        }
        self.put(file, json.to_string())
    }

    pub fn remove(&self, file: &str) -> &Copied {
        std::fs::remove_file(self.path().join(file)).unwrap();
        self
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A whole safetensors file of F32 tensors.
pub fn safetensors(tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let tensor =
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert((*name).to_owned(), tensor);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}
