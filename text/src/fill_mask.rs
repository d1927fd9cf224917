//! Tokens for the masks of a text.

use std::ffi::OsStr;

use rachis::heads::MaskedLmHead;
use rachis::kernels::MatRef;
use rachis::loader::Preset;
use rachis::{Backbone, BertInputs, Heads, PresetOptions, Session, Tokens};

use crate::error::{Error, Result};
use crate::scores::softmax;
use crate::tokenizer::{EncodeOptions, Encoding, SpecialToken, SpecialTokens, Tokenizer, Truncation};

/// Number of masks whose logits are in memory at once: a row has as many as the vocabulary.
const MASKS: usize = 16;

/// Tokens for the masks of texts: transformers' fill-mask pipeline on a `BertForMaskedLM`, and KerasHub's
/// `BertMaskedLM`, whose logits become probabilities.
///
/// A text is not cut: one that is too long for the model is refused.
#[derive(Debug)]
pub struct FillMask {
    backbone: Backbone,
    head: MaskedLmHead,
    tokenizer: Tokenizer,
    mask: u32,
}

/// A token for a mask.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MaskFill {
    /// Its probability.
    pub score: f32,
    /// Its id.
    pub token: u32,
    /// The text of the token by itself.
    pub token_text: String,
    /// The text with the token in place of the mask. With several masks in the text it has its special tokens, the other
    /// masks among them.
    pub sequence: String,
}

/// Which tokens to return: the five most probable ones of the vocabulary, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FillMaskOptions<'o> {
    /// Number of tokens for each mask.
    pub top_k: usize,
    /// The tokens that may be returned, if not all: no more than these even if `top_k` is larger. A word that is no
    /// token counts as its first one.
    pub targets: Option<&'o [&'o str]>,
}

impl Default for FillMaskOptions<'_> {
    fn default() -> Self {
        FillMaskOptions { top_k: 5, targets: None }
    }
}

impl<'o> FillMaskOptions<'o> {
    /// The five most probable tokens of the vocabulary.
    pub fn new() -> FillMaskOptions<'o> {
        FillMaskOptions::default()
    }

    /// Sets [`FillMaskOptions::top_k`].
    pub fn with_top_k(self, top_k: usize) -> FillMaskOptions<'o> {
        FillMaskOptions { top_k, ..self }
    }

    /// Sets [`FillMaskOptions::targets`].
    pub fn with_targets(self, targets: &'o [&'o str]) -> FillMaskOptions<'o> {
        FillMaskOptions { targets: Some(targets), ..self }
    }
}

impl FillMask {
    /// The model of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model has no masked-language-model head.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<FillMask> {
        FillMask::from_preset_with(name, PresetOptions::default())
    }

    /// The model of a preset, loaded as `options` say.
    ///
    /// # Errors
    /// As [`FillMask::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<FillMask> {
        let preset = options.open(name)?;
        FillMask::load(&preset, Backbone::load_with(&preset, options)?)
    }

    /// The model of an open preset.
    ///
    /// # Errors
    /// As [`FillMask::from_preset`].
    pub fn load(preset: &Preset, backbone: Backbone) -> Result<FillMask> {
        let needs = |expected: &str, found: String| Error::Task {
            task: "fill-mask",
            expected: expected.to_owned(),
            found,
        };
        let head = Heads::load(preset, &backbone)?.masked_lm;
        let without = || format!("{} without one", backbone.name());
        let head = head.ok_or_else(|| needs("a BERT with a masked-language-model head", without()))?;
        let tokenizer = Tokenizer::load(preset)?;
        let mask = tokenizer.special_token(SpecialToken::Mask);
        let mask = mask.ok_or_else(|| needs("a tokenizer with a mask token", "one without".to_owned()))?;
        Ok(FillMask { backbone, head, tokenizer, mask })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The most probable tokens for each mask of a text, the best first: `[masks, tokens]`.
    ///
    /// # Errors
    /// When the text has no mask or is too long for the model, `top_k` is larger than the vocabulary, or no target is a
    /// token.
    pub fn fill(
        &self,
        session: &mut Session<'_>,
        text: &str,
        options: FillMaskOptions<'_>,
    ) -> Result<Vec<Vec<MaskFill>>> {
        let encoding = self.tokenizer.encode(text)?;
        let masks: Vec<usize> =
            encoding.ids.iter().enumerate().filter_map(|(at, id)| (*id == self.mask).then_some(at)).collect();
        if masks.is_empty() {
            let expected =
                format!("at least one {}", self.tokenizer.id_to_token(self.mask).unwrap_or_default());
            return Err(Error::Request { what: "number of masks", found: "0".to_owned(), expected });
        }
        let targets = options.targets.map(|targets| self.target_ids(targets)).transpose()?;
        let vocabulary = self.head.vocabulary_size();
        if targets.is_none() && options.top_k > vocabulary {
            return Err(Error::Request {
                what: "top_k",
                found: options.top_k.to_string(),
                expected: format!("at most {vocabulary}, the size of the vocabulary"),
            });
        }
        let mut fills = Vec::with_capacity(masks.len());
        self.each_mask(session, &encoding, &masks, |at, logits| {
            let mut scored: Vec<(u32, f64)> = (0..).zip(softmax(logits)).collect();
            if let Some(targets) = &targets {
                scored.retain(|(id, _)| targets.contains(id));
            }
            scored.sort_by(|a, b| b.1.total_cmp(&a.1));
            scored.truncate(options.top_k);
            let fill =
                |(token, score): &(u32, f64)| self.filled(&encoding, (masks.len(), at), *token, *score);
            fills.push(scored.iter().map(fill).collect::<Result<_>>()?);
            Ok(())
        })?;
        Ok(fills)
    }

    /// The probabilities of all tokens at some positions of a sequence of ids, `[positions, vocabulary]`.
    ///
    /// # Errors
    /// When the ids do not fit the model, or a position is beyond them.
    pub fn probabilities(
        &self,
        session: &mut Session<'_>,
        ids: &[u32],
        positions: &[usize],
    ) -> Result<Vec<f32>> {
        if let Some(beyond) = positions.iter().find(|at| **at >= ids.len()) {
            return Err(Error::Request {
                what: "position",
                found: beyond.to_string(),
                expected: format!("less than {}, the number of ids", ids.len()),
            });
        }
        let encoding = Encoding { ids: ids.to_vec(), type_ids: vec![0; ids.len()], ..Encoding::default() };
        let mut probabilities = Vec::new();
        self.each_mask(session, &encoding, positions, |_, logits| {
            probabilities.extend(softmax(logits).map(|x| x as f32));
            Ok(())
        })?;
        Ok(probabilities)
    }

    /// Runs the model once and calls `visit` with each position and its logits.
    fn each_mask(
        &self,
        session: &mut Session<'_>,
        encoding: &Encoding,
        positions: &[usize],
        mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let lengths = [encoding.len()];
        let tokens = Tokens::ragged(&encoding.ids, &lengths);
        let inputs = BertInputs { tokens, segment_ids: Some(&encoding.type_ids) };
        let output = self.backbone.forward(session, inputs)?.sequence_output();
        let (rows, width) = (output.sequence(0), output.hidden_dim());
        let vectors: Vec<f32> = positions.iter().flat_map(|at| rows.row(*at).iter().copied()).collect();
        let vocabulary = self.head.vocabulary_size();
        let mut logits = vec![0.0; positions.len().min(MASKS) * vocabulary];
        for (positions, vectors) in positions.chunks(MASKS).zip(vectors.chunks(MASKS * width)) {
            let count = positions.len();
            let logits = &mut logits[..count * vocabulary];
            self.head.logits(
                session,
                MatRef::new(vectors, count, width).map_err(rachis::Error::from)?,
                logits,
            )?;
            for (at, logits) in positions.iter().zip(logits.chunks_exact(vocabulary)) {
                visit(*at, logits)?;
            }
        }
        Ok(())
    }

    /// The ids of the tokens that may be returned.
    fn target_ids(&self, targets: &[&str]) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let options = EncodeOptions::new()
            .with_special_tokens(SpecialTokens::Without)
            .with_truncation(Truncation::new(1));
        for target in targets {
            match self.tokenizer.token_to_id(target) {
                Some(id) => ids.push(id),
                None => ids.extend(self.tokenizer.encode_with(*target, options)?.ids.first()),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            let expected = "at least one that has a token".to_owned();
            return Err(Error::Request { what: "targets", found: "none".to_owned(), expected });
        }
        Ok(ids)
    }

    /// The sequence with a token at the position of one of its masks.
    fn filled(
        &self,
        encoding: &Encoding,
        (masks, at): (usize, usize),
        token: u32,
        score: f64,
    ) -> Result<MaskFill> {
        let mut ids = encoding.ids.clone();
        ids[at] = token;
        if let Some(padding) = self.tokenizer.special_token(SpecialToken::Pad) {
            ids.retain(|id| *id != padding);
        }
        let special = if masks == 1 { SpecialTokens::Without } else { SpecialTokens::With };
        Ok(MaskFill {
            score: score as f32,
            token,
            token_text: self.tokenizer.decode(&[token], SpecialTokens::With)?,
            sequence: self.tokenizer.decode(&ids, special)?,
        })
    }
}
