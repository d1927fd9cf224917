//! `--requests`: one JSON object a line in, one JSON answer a line out, in order.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Result, print};

/// Upper limit of the bytes of a request.
const LARGEST_REQUEST: u64 = 64 << 20;

/// The arguments of a request, by their names in the reference libraries.
pub type Request = Map<String, Value>;

/// Answers the requests of a file, or of standard input for `-`. A request that fails is answered by
/// `{"error": "..."}`, and the others go on; the call fails at the end.
pub fn answer(source: &Path, mut reply: impl FnMut(&Request) -> Result<Value>) -> Result<()> {
    let name = source.display();
    let mut lines: Box<dyn BufRead> = if source == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(source).map_err(|error| format!("{name}: {error}"))?))
    };
    let mut failed = 0;
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let read = lines.by_ref().take(LARGEST_REQUEST + 1).read_until(b'\n', &mut line);
        if read.map_err(|error| format!("{name}: line {number}: {error}"))? == 0 {
            break;
        }
        if line.len() as u64 > LARGEST_REQUEST {
            return Err(format!(
                "{name}: line {number} has more than {LARGEST_REQUEST} bytes, expected fewer"
            )
            .into());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let request: Result<Request> = serde_json::from_slice(&line).map_err(Into::into);
        let answer = request.and_then(|request| reply(&request)).unwrap_or_else(|error| {
            failed += 1;
            json!({ "error": error.to_string() })
        });
        print(format_args!("{answer}\n"))?;
    }
    if failed > 0 { Err(Failed(failed).into()) } else { Ok(()) }
}

/// Some requests could not be answered.
#[derive(Debug)]
struct Failed(u64);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the requests failed", self.0)
    }
}

impl std::error::Error for Failed {}

/// Returns an error for a request with a key that is not known: a misspelt one must not be ignored.
pub fn only(request: &Request, known: &[&str]) -> Result<()> {
    match request.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{key:?} is unknown, expected some of {}", known.join(", ")).into()),
        None => Ok(()),
    }
}

/// The argument `key` as a `T`; `None` when it is absent or null.
pub fn optional<T: serde::de::DeserializeOwned>(request: &Request, key: &str) -> Result<Option<T>> {
    match request.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => Ok(Some(T::deserialize(value).map_err(|error| format!("{key}: {error}"))?)),
    }
}

/// The argument `key` as a `T`.
pub fn required<T: serde::de::DeserializeOwned>(request: &Request, key: &str) -> Result<T> {
    Ok(optional(request, key)?.ok_or_else(|| format!("{key} is missing"))?)
}
