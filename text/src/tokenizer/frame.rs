//! What stands around the texts of a sequence: special tokens, and the segment of each text. In the `tokenizers` crate it
//! is the post-processor.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::json::FILE;
use super::steps::kind;
use crate::error::{Result, clip, in_file};

/// How a sequence is made of one text, or of two.
#[derive(Debug, Clone)]
pub struct Frame {
    single: Vec<Part>,
    pair: Vec<Part>,
    /// Whether the offsets of a token leave out the spaces at its ends.
    pub trim: Option<Trim>,
    /// Whether a token is left out after a text that ends with it.
    pub ends_once: bool,
}

/// A part of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The text with this number, 0 or 1.
    Text {
        /// Its number.
        number: usize,
        /// The segment of its tokens.
        segment: u32,
    },
    /// A special token.
    Token {
        /// Its id.
        id: u32,
        /// Its segment.
        segment: u32,
    },
}

/// How offsets are trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    /// Whether the first token starts with a space that is not in the text.
    pub space_in_front: bool,
}

/// Upper limit of the number of parts of a sequence.
const MAX_PARTS: usize = 1024;

impl Frame {
    /// Only the texts, in the segments 0 and 1.
    pub fn bare() -> Frame {
        Frame::around(None, None)
    }

    /// A token before and one after each text, which are in the segments 0 and 1.
    pub fn around(start: Option<u32>, end: Option<u32>) -> Frame {
        let one = |number, segment| {
            let token = |id: Option<u32>| id.map(|id| Part::Token { id, segment });
            token(start).into_iter().chain([Part::Text { number, segment }]).chain(token(end))
        };
        Frame {
            single: one(0, 0).collect(),
            pair: one(0, 0).chain(one(1, 1)).collect(),
            trim: None,
            ends_once: false,
        }
    }

    /// BERT's frame: `cls A sep`, and `cls A sep B sep`, with B in segment 1.
    pub fn bert(cls: u32, sep: u32) -> Frame {
        let token = |id, segment| Part::Token { id, segment };
        let text = |number, segment| Part::Text { number, segment };
        let pair = vec![token(cls, 0), text(0, 0), token(sep, 0), text(1, 1), token(sep, 1)];
        Frame { single: pair[..3].to_vec(), pair, trim: None, ends_once: false }
    }

    /// RoBERTa's frame: `cls A sep`, and `cls A sep sep B sep`, all in segment 0.
    pub fn roberta(cls: u32, sep: u32, trim: Option<Trim>) -> Frame {
        let [cls, sep] = [cls, sep].map(|id| Part::Token { id, segment: 0 });
        let text = |number| Part::Text { number, segment: 0 };
        let pair = vec![cls, text(0), sep, sep, text(1), sep];
        Frame { single: pair[..3].to_vec(), pair, trim, ends_once: false }
    }

    /// T5's frame: each text and its end, all in segment 0.
    pub fn ended(end: u32) -> Frame {
        Frame::around(None, Some(end)).in_one_segment()
    }

    /// The frame that leaves out a token after a text that ends with it.
    pub fn ending_once(self) -> Frame {
        Frame { ends_once: true, ..self }
    }

    /// The frame with all parts in segment 0.
    pub fn in_one_segment(mut self) -> Frame {
        for part in self.single.iter_mut().chain(&mut self.pair) {
            let (Part::Text { segment, .. } | Part::Token { segment, .. }) = part;
            *segment = 0;
        }
        self
    }

    /// The frame of the post-processor that `tokenizer.json` describes.
    pub fn parse(step: &Value) -> Result<Frame> {
        let mut frame = Frame::bare();
        if !step.is_null() {
            frame.apply(step, &mut false)?;
        }
        Ok(frame)
    }

    /// Makes the frame that of a step, and of the steps in it. At most one step may add tokens.
    fn apply(&mut self, step: &Value, framed: &mut bool) -> Result<()> {
        let kind = kind(step, "post_processor")?;
        let parse = || -> Result<Fields> {
            Fields::deserialize(step).map_err(|error| in_file(FILE, format!("post_processor: {error}")))
        };
        if matches!(kind, "TemplateProcessing" | "BertProcessing" | "RobertaProcessing")
            && std::mem::replace(framed, true)
        {
            return Err(in_file(FILE, "post_processor has two steps that add tokens, expected one"));
        }
        let trim = |fields: &Fields| {
            let trim = Trim { space_in_front: fields.add_prefix_space };
            fields.trim_offsets.then_some(trim)
        };
        let missing = |name: &str| in_file(FILE, format!("post_processor has no {name}"));
        match kind {
            "Sequence" => {
                for step in step["processors"].as_array().ok_or_else(|| missing("processors"))? {
                    self.apply(step, framed)?;
                }
            }
            "ByteLevel" => self.trim = trim(&parse()?).or(self.trim),
            "BertProcessing" | "RobertaProcessing" => {
                let fields = parse()?;
                let (_, cls) = fields.cls.as_ref().ok_or_else(|| missing("cls"))?;
                let (_, sep) = fields.sep.as_ref().ok_or_else(|| missing("sep"))?;
                let trim = trim(&fields).or(self.trim);
                *self = match kind {
                    "BertProcessing" => Frame { trim: self.trim, ..Frame::bert(*cls, *sep) },
                    _ => Frame::roberta(*cls, *sep, trim),
                };
            }
            "TemplateProcessing" => {
                let Fields { single, pair, special_tokens, .. } = parse()?;
                (self.single, self.pair) = (parts(&single, &special_tokens)?, parts(&pair, &special_tokens)?);
                if self.single.iter().any(|part| matches!(part, Part::Text { number: 1, .. })) {
                    return Err(in_file(FILE, "post_processor has a second text in its template for one"));
                }
            }
            other => return Err(in_file(FILE, format!("post_processor {} is unknown", clip(other)))),
        }
        Ok(())
    }

    /// The parts of a sequence of one text, or of two.
    pub fn parts(&self, pair: bool) -> &[Part] {
        if pair { &self.pair } else { &self.single }
    }

    /// Number of special tokens in a sequence of one text, or of two.
    pub fn added(&self, pair: bool) -> usize {
        self.parts(pair).iter().filter(|part| matches!(part, Part::Token { .. })).count()
    }
}

/// The fields of all kinds of post-processors.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    single: Vec<Piece>,
    #[serde(default)]
    pair: Vec<Piece>,
    #[serde(default)]
    special_tokens: HashMap<String, Special>,
    cls: Option<(String, u32)>,
    sep: Option<(String, u32)>,
    #[serde(default = "yes")]
    trim_offsets: bool,
    #[serde(default = "yes")]
    add_prefix_space: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
enum Piece {
    Sequence { id: Text, type_id: u32 },
    SpecialToken { id: String, type_id: u32 },
}

#[derive(Deserialize)]
enum Text {
    A,
    B,
}

#[derive(Deserialize)]
struct Special {
    ids: Vec<u32>,
}

/// The parts of a template.
fn parts(template: &[Piece], tokens: &HashMap<String, Special>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for piece in template {
        match piece {
            Piece::Sequence { id, type_id } => {
                parts.push(Part::Text { number: usize::from(matches!(id, Text::B)), segment: *type_id });
            }
            Piece::SpecialToken { id, type_id } => {
                let token = tokens.get(id).ok_or_else(|| {
                    in_file(FILE, format!("post_processor has no special token {}", clip(id)))
                })?;
                parts.extend(token.ids.iter().map(|id| Part::Token { id: *id, segment: *type_id }));
            }
        }
        if parts.len() > MAX_PARTS {
            return Err(in_file(FILE, format!("post_processor has more than {MAX_PARTS} parts")));
        }
    }
    Ok(parts)
}
