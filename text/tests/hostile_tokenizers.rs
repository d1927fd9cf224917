//! Damaged tokenizer files: each gives one short error, or a tokenizer that encodes and decodes anything.

use std::path::Path;
use std::{env, fs};

use rachis_testkit::goldens::fixture;
use rachis_text::{
    CleanUpSpaces, DecodeOptions, EncodeOptions, Error, SpecialTokens, TextInput, Tokenizer, TruncateWhich,
    Truncation,
};
use serde_json::{Value, json};

/// A generator of numbers (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// Damaged files of each file.
const ROUNDS: usize = 24;

const TEXTS: [&str; 5] = [
    "",
    "The  keeper's\u{301} 灯台 [MASK]\u{85}</s> \u{1f600}",
    "a<extra_id_0> b",
    "\u{0}\u{fffd}",
    "xxxxxxxxxxxxxxxxxxxx",
];

#[test]
fn damaged_directories_give_errors_or_tokenizers() {
    let rounds = env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut counts = [0, 0];
    for library in ["tokenizers", "keras"] {
        for entry in fs::read_dir(fixture(format!("text/{library}"))).unwrap() {
            let source = entry.unwrap().path();
            let dir = tempfile::tempdir().unwrap();
            let mut names = copy(&source, dir.path());
            damage_each(dir.path(), &names, rounds, &mut random, &mut counts);
            // All of tokenizer.json counts for this class.
            if library == "tokenizers" && names.iter().any(|name| name == "tokenizer.json") {
                let config = json!({ "tokenizer_class": "PreTrainedTokenizerFast" }).to_string();
                fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
                names.retain(|name| name == "tokenizer.json");
                damage_each(dir.path(), &names, 4 * rounds, &mut random, &mut counts);
            }
        }
    }
    let [opened, refused] = counts;
    println!("{opened} opened, {refused} refused");
    assert!(opened > 100 && refused > 100);
}

/// Damages each of the files in turn, and counts the directories that open and those that do not.
fn damage_each(dir: &Path, names: &[String], rounds: usize, random: &mut Random, counts: &mut [usize; 2]) {
    for name in names {
        let path = dir.join(name);
        let whole = fs::read(&path).unwrap();
        for _ in 0..rounds {
            fs::write(&path, damaged(random, &whole)).unwrap();
            match Tokenizer::from_preset(dir) {
                Ok(tokenizer) => {
                    counts[0] += 1;
                    exercise(&tokenizer, random, dir);
                }
                Err(error) => {
                    counts[1] += 1;
                    check(&error, &path);
                }
            }
        }
        fs::write(&path, whole).unwrap();
    }
}

/// Copies the files of a tokenizer; returns their names.
fn copy(from: &Path, to: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for (dir, prefix) in [(from.to_owned(), ""), (from.join("assets/tokenizer"), "assets/tokenizer/")] {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = prefix.to_owned() + entry.file_name().to_str().unwrap();
            let weights = [".h5", ".safetensors"].iter().any(|end| name.ends_with(end));
            if entry.file_type().unwrap().is_file() && !name.contains("goldens") && !weights {
                fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
                fs::copy(entry.path(), to.join(&name)).unwrap();
                if name != "config.json" && name != "metadata.json" {
                    names.push(name);
                }
            }
        }
    }
    names.sort();
    names
}

/// A file with a byte, a run of bytes, or a value of its JSON replaced.
fn damaged(random: &mut Random, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let json = serde_json::from_slice::<Value>(whole);
    if let (Ok(mut json), true) = (json, random.below(4) > 0) {
        for _ in 0..=random.below(3) {
            damage(random, &mut json);
        }
        return json.to_string().into_bytes();
    }
    let at = random.below(bytes.len());
    match random.below(4) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..(at + random.below(64)).min(whole.len()))),
        _ => {
            let to = (at + random.below(64)).min(whole.len());
            bytes.splice(at..at, whole[at..to].iter().copied());
        }
    }
    bytes
}

/// Replaces, removes or repeats a value somewhere in a JSON value.
fn damage(random: &mut Random, value: &mut Value) {
    let inside = random.below(8) > 0;
    match value {
        Value::Array(list) if inside && !list.is_empty() => {
            // The first ones are more likely: lists of tokens are long.
            let at = random.below(list.len()).min(random.below(list.len()));
            match random.below(10) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => damage(random, &mut list[at]),
            }
        }
        Value::Object(fields) if inside && !fields.is_empty() => {
            let name = fields.keys().nth(random.below(fields.len())).unwrap().clone();
            match random.below(10) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert("type".to_owned(), json!("ByteLevel"))),
                _ => damage(random, &mut fields[&name]),
            }
        }
        Value::String(text) if inside && !text.is_empty() => match random.below(4) {
            0 => text.clear(),
            1 => text.push('▁'),
            2 => drop(text.remove(0)),
            _ => *text = format!("{text}{text} "),
        },
        value => {
            let others = [
                json!(null),
                json!(true),
                json!(false),
                json!(-1),
                json!(0),
                json!(3),
                json!(4_294_967_295u64),
                json!(1e300),
                json!(""),
                json!("a"),
                json!("\u{301}"),
                json!("</s>"),
                json!([]),
                json!({}),
                json!([["a", 1]]),
                json!({ "content": "a", "lstrip": true, "rstrip": true, "single_word": true }),
                json!({ "type": "Sequence", "normalizers": [], "pretokenizers": [], "decoders": [], "processors": [] }),
                json!({ "type": "Replace", "pattern": { "Regex": "" }, "content": "b" }),
                json!({ "type": "Strip", "content": " ", "start": 2, "stop": 9, "strip_left": true, "strip_right": true }),
                json!({ "type": "BPEDecoder", "suffix": "" }),
                json!({ "type": "Digits", "individual_digits": true }),
                json!({ "type": "Split", "pattern": { "Regex": "(a|ab)(c|bcd)*" }, "behavior": "MergedWithPrevious", "invert": true }),
                json!({ "type": "Prepend", "prepend": "▁" }),
                json!({ "type": "Metaspace", "replacement": "a", "prepend_scheme": "first", "split": false }),
                json!({ "type": "FixedLength", "length": 0 }),
                json!({ "type": "NFKC" }),
                json!({ "type": "ByteFallback" }),
                json!({ "type": "Fuse" }),
            ];
            *value = others[random.below(others.len())].clone();
        }
    }
}

fn exercise(tokenizer: &Tokenizer, random: &mut Random, dir: &Path) {
    let stride = random.below(3);
    for text in TEXTS {
        let pair = TextInput::Pair(text, TEXTS[random.below(TEXTS.len())]);
        let truncation = Truncation::new(random.below(12)).with_stride(stride);
        let windows =
            EncodeOptions::new().with_truncation(truncation.with_strategy(TruncateWhich::OnlySecond));
        for (input, options) in [(TextInput::from(text), EncodeOptions::new()), (pair, windows)] {
            match tokenizer.encode_with(input, options) {
                Ok(found) => {
                    assert_eq!(found.offsets.len(), found.len());
                    let texts = match input {
                        TextInput::Pair(first, second) => [first, second],
                        _ => [text, ""],
                    };
                    for (range, number) in found.offsets.iter().zip(&found.sequences) {
                        assert!(
                            number.is_none_or(|number| texts[number].get(range.clone()).is_some()),
                            "{range:?}"
                        );
                    }
                    decode(tokenizer, &found.ids);
                }
                Err(error) => check(&error, &dir.join("tokenizer.json")),
            }
        }
    }
    let ids: Vec<u32> = (0..40).map(|_| random.below(tokenizer.vocabulary_size() + 2) as u32).collect();
    decode(tokenizer, &ids);
    decode(tokenizer, &[]);
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) {
    for special_tokens in [SpecialTokens::With, SpecialTokens::Without] {
        for clean_up in [CleanUpSpaces::Yes, CleanUpSpaces::No] {
            let options = DecodeOptions::new().with_special_tokens(special_tokens).with_clean_up(clean_up);
            if let Err(error) = tokenizer.decode(ids, options) {
                check(&error, Path::new(""));
            }
        }
    }
}

fn check(error: &Error, path: &Path) {
    let message = error.to_string();
    assert!(message.len() < 600 && !message.contains(char::is_control), "{path:?}: {message}");
    let file = || serde_json::from_slice::<Value>(&fs::read(path).unwrap_or_default()).unwrap_or_default();
    let steps = || ["normalizer", "pre_tokenizer"].map(|name| format!("{:.600}", file()[name].to_string()));
    assert!(!message.contains("panicked"), "{path:?}: {message}: {:?}", steps());
}
