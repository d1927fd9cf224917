//! The special tokens that have names, and the limit of the length.

use rachis::loader::Preset;
use serde_json::Value;

use super::object;
use crate::error::Result;

/// The name of a special token in transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpecialToken {
    /// `bos_token`: starts a sequence.
    Bos,
    /// `eos_token`: ends a sequence.
    Eos,
    /// `unk_token`: stands for text that the vocabulary lacks.
    Unknown,
    /// `sep_token`: separates two texts.
    Sep,
    /// `pad_token`: fills a batch.
    Pad,
    /// `cls_token`: the token whose vector stands for the sequence.
    Cls,
    /// `mask_token`: the place of a token that is to be predicted.
    Mask,
}

/// The ids of the special tokens that have names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named([Option<u32>; 7]);

impl Named {
    pub fn get(&self, name: SpecialToken) -> Option<u32> {
        self.0[name as usize]
    }
}

/// transformers' names with the usual tokens.
const NAMES: [(&str, &[&str]); 7] = [
    ("bos_token", &["<s>"]),
    ("eos_token", &["</s>"]),
    ("unk_token", &["[UNK]", "<unk>"]),
    ("sep_token", &["[SEP]", "</s>"]),
    ("pad_token", &["[PAD]", "<pad>"]),
    ("cls_token", &["[CLS]", "<s>"]),
    ("mask_token", &["[MASK]", "<mask>"]),
];

pub fn read(preset: &Preset, id: impl Fn(&str) -> Option<u32>) -> Result<(Named, Option<usize>)> {
    let mut fields = object(preset, "tokenizer_config.json")?.unwrap_or_default();
    let limit = fields.get("model_max_length").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    fields.extend(object(preset, "special_tokens_map.json")?.unwrap_or_default());
    let named = NAMES.map(|(name, usual)| match fields.get(name) {
        Some(token) => token.as_str().or_else(|| token["content"].as_str()).and_then(&id),
        None => usual.iter().find_map(|token| id(token)),
    });
    Ok((Named(named), limit))
}
