//! What the tests of this crate share: the golden texts and directories.
#![allow(dead_code, reason = "each test file uses a part")]

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
