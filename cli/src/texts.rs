//! The texts of the subcommands: of the command line, of standard input, and of requests.

use std::io::BufRead;

use serde_json::Value;

use crate::Result;
use crate::args::Texts;
use crate::requests::Request;

impl Texts {
    /// The texts of the command line, or the lines of standard input for `-`.
    pub fn read(&self) -> Result<Vec<String>> {
        if self.texts.as_slice() != ["-"] {
            return Ok(self.texts.clone());
        }
        let lines: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
        if lines.is_empty() { Err("standard input has no text".into()) } else { Ok(lines) }
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

/// Places of a text in code points, which the reference libraries count, from places in bytes. It counts on from the
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
        if at < self.bytes {
            (self.bytes, self.count) = (0, 0);
        }
        if let Some(part) = self.text.get(self.bytes..at) {
            self.count += part.chars().count();
            self.bytes = at;
        }
        self.count
    }
}
