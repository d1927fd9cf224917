//! The texts of the subcommands: of the command line, of standard input, and of requests.

use serde_json::Value;

use crate::args::Texts;
use crate::requests::Request;
use crate::{Result, lines};

impl Texts {
    /// The texts of the command line, or the lines of standard input for `-`.
    pub fn read(&self) -> Result<Vec<String>> {
        lines::Texts::new(&self.texts).all()
    }
}

/// Answers the texts `inputs` of a request: one by its answer, a list by a list of answers.
pub fn each_input(request: &Request, answer: impl FnOnce(&[&str]) -> Result<Vec<Value>>) -> Result<Value> {
    let wrong = || "inputs is not a text or a list of texts";
    match request.get("inputs") {
        None | Some(Value::Null) => Err("inputs is missing".into()),
        Some(Value::String(text)) => Ok(answer(&[text])?.into_iter().next().unwrap_or_default()),
        Some(Value::Array(texts)) if !texts.is_empty() => {
            let texts: Vec<&str> =
                texts.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong)?;
            Ok(answer(&texts)?.into())
        }
        Some(_) => Err(wrong().into()),
    }
}

/// Places of a text in code points, which the reference libraries count, from places in bytes. It counts from the
/// place before.
pub struct CodePoints<'t> {
    text: &'t str,
    bytes: usize,
    count: usize,
}

impl<'t> CodePoints<'t> {
    pub fn of(text: &'t str) -> CodePoints<'t> {
        CodePoints { text, bytes: 0, count: 0 }
    }

    /// Number of code points before `at`.
    pub fn before(&mut self, at: usize) -> usize {
        let between = self.text.get(self.bytes.min(at)..self.bytes.max(at));
        if let Some(count) = between.map(|part| part.chars().count()) {
            self.count = if at < self.bytes { self.count - count } else { self.count + count };
            self.bytes = at;
        }
        self.count
    }
}
