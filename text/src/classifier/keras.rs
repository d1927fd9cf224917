//! What KerasHub's `task.json` and `preprocessor.json` say about a `BertTextClassifier`.

use rachis::loader::Preset;
use serde_json::Value;

use crate::error::{Error, Result, clip, in_file};
use crate::scores::ScoreFunction;
use crate::tokenizer::Encoding;

const TASK: &str = "task.json";
const PREPROCESSOR: &str = "preprocessor.json";

/// KerasHub's `MultiSegmentPacker`, as the preprocessor of a classifier calls it.
#[derive(Debug)]
pub(super) struct Packer {
    sequence_length: usize,
    truncate: Truncate,
}

/// Which text of a pair is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truncate {
    /// The texts get a token each in turn until there is no more room.
    RoundRobin,
    /// The first text gets all that it needs.
    Waterfall,
}

/// The activation of the classifier of a preset, and its packer.
pub(super) fn read(preset: &Preset) -> Result<(ScoreFunction, Packer)> {
    let task = preset.read_json(TASK)?.unwrap_or_default();
    let class = task["class_name"].as_str().unwrap_or("nothing");
    // The class had the second name in earlier versions.
    if !["BertTextClassifier", "BertClassifier"].contains(&class) {
        return Err(in_file(TASK, format!("class_name is {}, expected BertTextClassifier", clip(class))));
    }
    let (file, preprocessor) = match task["config"]["preprocessor"]["config"].clone() {
        Value::Null => (PREPROCESSOR, preset.read_json(PREPROCESSOR)?.unwrap_or_default()["config"].clone()),
        own => (TASK, own),
    };
    Ok((activation(&task["config"]["activation"])?, Packer::read(file, &preprocessor)?))
}

fn activation(activation: &Value) -> Result<ScoreFunction> {
    // A function of a package is an object with the name in `config`.
    let name = activation.as_str().or_else(|| activation["config"].as_str());
    match (activation, name.map(|name| name.rsplit('>').next().unwrap_or(name))) {
        (Value::Null, _) | (_, Some("linear")) => Ok(ScoreFunction::Identity),
        (_, Some("softmax")) => Ok(ScoreFunction::Softmax),
        (_, Some("sigmoid")) => Ok(ScoreFunction::Sigmoid),
        _ => Err(wrong(TASK, "activation", activation, "linear, softmax or sigmoid")),
    }
}

fn wrong(file: &str, name: &str, found: &Value, expected: &str) -> Error {
    in_file(file, format!("{name} is {}, expected {expected}", clip(&found.to_string())))
}

impl Packer {
    fn read(file: &str, arguments: &Value) -> Result<Packer> {
        let sequence_length = match &arguments["sequence_length"] {
            Value::Null => 512,
            length => match length.as_u64().and_then(|length| usize::try_from(length).ok()) {
                Some(length) if length >= 3 => length,
                _ => return Err(wrong(file, "sequence_length", length, "3 tokens or more")),
            },
        };
        let truncate = match &arguments["truncate"] {
            Value::Null => Truncate::RoundRobin,
            name => match name.as_str() {
                Some("round_robin") => Truncate::RoundRobin,
                Some("waterfall") => Truncate::Waterfall,
                _ => return Err(wrong(file, "truncate", name, "round_robin or waterfall")),
            },
        };
        Ok(Packer { sequence_length, truncate })
    }

    /// The sequence with no more tokens than fit.
    pub(super) fn pack(&self, mut encoding: Encoding) -> Result<Encoding> {
        let count = |text: usize| encoding.sequences.iter().filter(|found| **found == Some(text)).count();
        let (first, second) = (count(0), count(1));
        let room = self.sequence_length.saturating_sub(encoding.len() - first - second);
        let (first, second) = self.share(room, first, second);
        let mut left = [first, second];
        let kept: Vec<bool> = encoding
            .sequences
            .iter()
            .map(|text| match text.and_then(|text| left.get_mut(text)) {
                None => true,
                Some(left) if *left > 0 => {
                    *left -= 1;
                    true
                }
                Some(_) => false,
            })
            .collect();
        retain(&mut encoding.ids, &kept);
        retain(&mut encoding.type_ids, &kept);
        retain(&mut encoding.offsets, &kept);
        retain(&mut encoding.sequences, &kept);
        retain(&mut encoding.words, &kept);
        retain(&mut encoding.special, &kept);
        Ok(encoding)
    }

    /// How many tokens each text keeps.
    fn share(&self, room: usize, first: usize, second: usize) -> (usize, usize) {
        if first + second <= room {
            return (first, second);
        }
        match self.truncate {
            Truncate::Waterfall => (first.min(room), second.min(room - first.min(room))),
            // Each has half, the first one more, but for what the other does not need.
            Truncate::RoundRobin => {
                let second = second.min((room / 2).max(room.saturating_sub(first)));
                (first.min(room - second), second)
            }
        }
    }
}

fn retain<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().copied().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition: a token each in turn.
    #[test]
    fn round_robin_is_a_token_each_in_turn() {
        let packer = Packer { sequence_length: 0, truncate: Truncate::RoundRobin };
        for (room, first, second) in
            (0..7).flat_map(|r| (0..7).flat_map(move |f| (0..7).map(move |s| (r, f, s))))
        {
            let (mut a, mut b) = (0, 0);
            while a + b < room && (a < first || b < second) {
                if a < first {
                    a += 1;
                }
                if b < second && a + b < room {
                    b += 1;
                }
            }
            assert_eq!(packer.share(room, first, second), (a, b), "{room} {first} {second}");
        }
        let packer = Packer { truncate: Truncate::Waterfall, ..packer };
        assert_eq!(packer.share(5, 4, 4), (4, 1));
        assert_eq!(packer.share(5, 7, 4), (5, 0));
    }
}
