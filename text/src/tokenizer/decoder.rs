//! The steps of decoding. Each does for one token after the other what a decoder of the `tokenizers` crate, of
//! transformers or of SentencePiece does for all of them, and holds back what later tokens may change: the bytes of an
//! unfinished character, or the end of a text that would be stripped.

use serde_json::Value;
use tokenizers::utils::SysRegex;

use super::cleanup::clean_up_word;
use super::json::FILE;
use super::steps::{check_growth, kind};
use crate::error::{Result, clip, in_file};

/// A step from tokens to tokens; the text is all tokens together.
pub enum Step {
    /// Continuations lose their prefix, other tokens get a space in front.
    WordPiece { prefix: String, clean_up: bool },
    /// A space before each token but the first: what the library does without a decoder.
    Join,
    /// The replacement stands for a space; the first token may have none.
    Metaspace { replacement: char, first: Spaces },
    /// The suffix of a token stands for a space, but for the last token.
    Suffix(String),
    /// The characters of a token stand for bytes, as in GPT-2's vocabulary.
    ByteLevel,
    /// A character up to U+00FF stands for a byte. Bytes that make no character are left out.
    Bytes,
    /// Tokens that spell a byte, such as `<0x0A>`.
    ByteFallback,
    /// A pattern in each token is replaced.
    Replace { pattern: Pattern, content: String },
    /// Up to so many of a character are removed at the start and at the end of each token.
    Strip { content: char, start: usize, stop: usize },
    /// Up to so many of a character are removed at the start of the text.
    StripText { content: char, start: usize },
    /// All tokens become one.
    Fuse,
    /// SentencePiece's `▁` stands for a space, which the start of the text loses: one, or all.
    Pieces { front: Option<Front> },
    /// Spaces before continuations (`##`) are removed, and those at both ends of the text.
    Japanese,
}

/// What [`Step::Replace`] looks for.
pub enum Pattern {
    Text(String),
    Regex(SysRegex),
}

/// Whether the first token keeps its spaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spaces {
    Kept,
    Dropped,
}

/// How many spaces the start of a text loses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Front {
    One,
    All,
}

/// What a step holds back, and how far it is.
#[derive(Debug, Default, Clone)]
pub struct Held {
    /// Number of tokens that the step has taken.
    taken: usize,
    /// Whether the start of the text is behind.
    begun: bool,
    /// Number of characters that were removed there.
    removed: usize,
    text: String,
    bytes: Vec<u8>,
}

/// Upper limit of the number of steps of a decoder.
const MAX_STEPS: usize = 64;

impl Step {
    /// The steps of the decoder that a file describes.
    pub fn parse(decoder: &Value) -> Result<Vec<Step>> {
        if decoder.is_null() {
            return Ok(vec![Step::Join]);
        }
        check_growth("decoder", &[decoder])?;
        let mut steps = Vec::new();
        flatten(decoder, &mut steps)?;
        // What follows a step that makes one token of all waits for the end, but a strip of the text's start.
        if let [.., Step::Fuse, Step::Strip { content, start, stop: 0 }] = steps[..] {
            steps.truncate(steps.len() - 2);
            steps.push(Step::StripText { content, start });
        }
        if matches!(steps.last(), Some(Step::Fuse)) {
            steps.pop();
        }
        let bytes = steps.iter().position(|step| matches!(step, Step::ByteLevel));
        if let Some(at) = bytes.filter(|at| at + 1 < steps.len()) {
            steps.insert(at + 1, Step::Fuse);
        }
        Ok(steps)
    }

    /// Takes a token and passes on what is certain.
    pub fn push(&self, held: &mut Held, token: &str, pass: &mut dyn FnMut(&str)) {
        let first = held.taken == 0;
        held.taken += 1;
        match self {
            Step::WordPiece { prefix, clean_up } => {
                let shown = match token.strip_prefix(prefix.as_str()) {
                    _ if first => token.to_owned(),
                    Some(rest) => rest.to_owned(),
                    None => format!(" {token}"),
                };
                pass(&if *clean_up { clean_up_word(&shown) } else { shown });
            }
            Step::Join if first => pass(token),
            Step::Join => pass(&format!(" {token}")),
            Step::Metaspace { replacement, first: spaces } => {
                let space = if first && *spaces == Spaces::Dropped { "" } else { " " };
                pass(&token.replace(*replacement, space));
            }
            Step::Suffix(suffix) => {
                if !first {
                    pass(&held.text.replace(suffix.as_str(), " "));
                }
                token.clone_into(&mut held.text);
            }
            Step::ByteLevel => {
                match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                    Some(bytes) => held.bytes.extend(bytes),
                    None => held.bytes.extend(token.bytes()),
                }
                pass_characters(&mut held.bytes, "\u{fffd}", pass);
            }
            Step::Bytes => {
                let mut chars = token.chars();
                match (chars.next().map(|c| u8::try_from(u32::from(c))), chars.next()) {
                    (Some(Ok(byte)), None) => held.bytes.push(byte),
                    _ => held.bytes.extend(token.bytes()),
                }
                pass_characters(&mut held.bytes, "", pass);
            }
            Step::ByteFallback => match spelled_byte(token) {
                Some(byte) => held.bytes.push(byte),
                None => {
                    pass_bytes(&mut held.bytes, pass);
                    pass(token);
                }
            },
            Step::Replace { pattern, content } => pass(&pattern.replace(token, content)),
            Step::Strip { content, start, stop } => {
                let mut text = token;
                for _ in 0..(*start).min(token.len()) {
                    text = text.strip_prefix(*content).unwrap_or(text);
                }
                for _ in 0..(*stop).min(token.len()) {
                    text = text.strip_suffix(*content).unwrap_or(text);
                }
                pass(text);
            }
            Step::StripText { content, start } => {
                let mut text = token;
                while !held.begun && held.removed < *start && !text.is_empty() {
                    match text.strip_prefix(*content) {
                        Some(rest) => {
                            text = rest;
                            held.removed += 1;
                        }
                        None => held.begun = true,
                    }
                }
                pass(text);
            }
            Step::Fuse => held.text.push_str(token),
            Step::Pieces { front } => {
                let mut text = token;
                if !held.begun
                    && let (Some(front), Some(rest)) = (front, text.strip_prefix('▁'))
                {
                    text = rest;
                    held.begun = *front == Front::One;
                }
                held.begun |= !text.is_empty();
                pass(&text.replace('▁', " "));
            }
            Step::Japanese => {
                let token = if first { token.to_owned() } else { format!(" {token}").replace(" ##", "") };
                let text = if held.begun { token.as_str() } else { token.trim_start() };
                let end = text.trim_end().len();
                if end > 0 {
                    pass(&std::mem::take(&mut held.text));
                    pass(&text[..end]);
                    held.begun = true;
                }
                held.text.push_str(&text[end..]);
            }
        }
    }

    /// Passes on what is held, at the end of the text.
    pub fn finish(&self, held: &mut Held, pass: &mut dyn FnMut(&str)) {
        match self {
            Step::Suffix(suffix) if held.taken > 0 => pass(&held.text.replace(suffix.as_str(), "")),
            Step::ByteLevel if !held.bytes.is_empty() => pass(&String::from_utf8_lossy(&held.bytes)),
            Step::ByteFallback => pass_bytes(&mut held.bytes, pass),
            Step::Fuse => pass(&held.text),
            _ => {}
        }
    }
}

impl Pattern {
    fn replace(&self, token: &str, content: &str) -> String {
        let regex = match self {
            Pattern::Text(text) => return token.replace(text.as_str(), content),
            Pattern::Regex(regex) => regex,
        };
        let mut replaced = String::new();
        let mut from = 0;
        for (start, end) in regex.find_iter(token) {
            replaced.push_str(&token[from..start]);
            replaced.push_str(content);
            from = end;
        }
        replaced + &token[from..]
    }
}

/// Appends the steps of a decoder, and of the decoders in it.
fn flatten(decoder: &Value, steps: &mut Vec<Step>) -> Result<()> {
    let wrong = |field: &str| in_file(FILE, format!("decoder has no {field}, or one of another type"));
    let text = |field| decoder[field].as_str().map(str::to_owned).ok_or_else(|| wrong(field));
    let character = |field| {
        let mut chars = decoder[field].as_str().unwrap_or_default().chars();
        chars.next().filter(|_| chars.next().is_none()).ok_or_else(|| wrong(field))
    };
    let number =
        |field| decoder[field].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(field));
    let step = match kind(decoder, "decoder")? {
        "Sequence" => {
            for decoder in decoder["decoders"].as_array().ok_or_else(|| wrong("decoders"))? {
                flatten(decoder, steps)?;
            }
            return Ok(());
        }
        "WordPiece" => {
            let clean_up = decoder["cleanup"].as_bool().ok_or_else(|| wrong("cleanup"))?;
            Step::WordPiece { prefix: text("prefix")?, clean_up }
        }
        "Metaspace" => {
            let kept = decoder["prepend_scheme"] == "never" || decoder["add_prefix_space"] == false;
            let first = if kept { Spaces::Kept } else { Spaces::Dropped };
            Step::Metaspace { replacement: character("replacement")?, first }
        }
        "BPEDecoder" => Step::Suffix(text("suffix")?),
        "ByteLevel" => Step::ByteLevel,
        "ByteFallback" => Step::ByteFallback,
        "Replace" => {
            let pattern = match (&decoder["pattern"]["String"], &decoder["pattern"]["Regex"]) {
                (Value::String(text), _) => Pattern::Text(text.clone()),
                (_, Value::String(regex)) => {
                    Pattern::Regex(SysRegex::new(regex).map_err(|error| in_file(FILE, error))?)
                }
                _ => return Err(wrong("pattern")),
            };
            Step::Replace { pattern, content: text("content")? }
        }
        "Strip" => {
            Step::Strip { content: character("content")?, start: number("start")?, stop: number("stop")? }
        }
        "Fuse" => Step::Fuse,
        other => return Err(in_file(FILE, format!("decoder {} is not implemented", clip(other)))),
    };
    if steps.len() == MAX_STEPS {
        return Err(in_file(FILE, format!("decoder has more than {MAX_STEPS} steps")));
    }
    steps.push(step);
    Ok(())
}

/// The byte that a character of GPT-2's vocabulary stands for: printable ones of Latin-1 for themselves, those from
/// U+0100 on for the others in order.
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(printable),
        code @ 0x100..=0x143 => (0..=0xff).filter(|byte| !printable(byte)).nth(code as usize - 0x100),
        _ => None,
    }
}

/// The byte that a token such as `<0x0A>` spells.
fn spelled_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(Some(digits).filter(|digits| digits.len() == 2)?, 16).ok()
}

/// Passes on the characters of `bytes`, with `replacement` for bytes that make none, and keeps an unfinished one.
fn pass_characters(bytes: &mut Vec<u8>, replacement: &str, pass: &mut dyn FnMut(&str)) {
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    loop {
        match core::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(wrong) = error.error_len() else {
                    rest = after;
                    break;
                };
                text.push_str(replacement);
                rest = &after[wrong..];
            }
        }
    }
    *bytes = rest.to_vec();
    if !text.is_empty() {
        pass(&text);
    }
}

/// Passes on bytes as a text, or a replacement character for each when they are none.
fn pass_bytes(bytes: &mut Vec<u8>, pass: &mut dyn FnMut(&str)) {
    if bytes.is_empty() {
        return;
    }
    match core::str::from_utf8(bytes) {
        Ok(text) => pass(text),
        Err(_) => bytes.iter().for_each(|_| pass("\u{fffd}")),
    }
    bytes.clear();
}
