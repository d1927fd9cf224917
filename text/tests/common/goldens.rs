//! Goldens of whole pipelines: directories under `text/` of the fixtures, with requests and answers.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::PathBuf;

use rachis_testkit::goldens::fixture;
use serde_json::Value;

/// The goldens of a directory.
pub struct Calls {
    pub dir: PathBuf,
    pub json: Value,
}

impl Calls {
    pub fn read(directory: &str) -> Calls {
        let dir = fixture(directory);
        let text = std::fs::read_to_string(dir.join("goldens.json")).unwrap();
        Calls { dir, json: serde_json::from_str(&text).unwrap() }
    }

    pub fn tolerance(&self) -> f64 {
        self.json["tolerance"].as_f64().unwrap()
    }

    /// Requests and answers.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&Value, &Value)> {
        self.json["calls"].as_array().unwrap().iter().map(|call| (&call["request"], &call["answer"]))
    }
}

/// `texts.json`.
pub fn texts() -> Vec<String> {
    let text = std::fs::read_to_string(fixture("text/texts.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Strings of a JSON list.
pub fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The number of code points before a place that is given in bytes.
pub fn code_points(text: &str, at: usize) -> u64 {
    text[..at].chars().count() as u64
}

/// That two JSON values are the same, but for numbers with a fraction, which may differ by the tolerance.
#[track_caller]
pub fn assert_close(found: &Value, expected: &Value, tolerance: f64, context: &str) {
    assert!(close(found, expected, tolerance), "{context}:\n   found {found}\nexpected {expected}");
}

fn close(found: &Value, expected: &Value, tolerance: f64) -> bool {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= tolerance
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| close(a, b, tolerance)))
        }
        _ => found == expected,
    }
}
