//! SentencePiece's unigram model (Kudo, 2018) of T5: `spiece.model`, KerasHub's `vocabulary.spm`.
//!
//! transformers cuts the text at whitespace, and cuts each word by itself; a special token in the text is that
//! token. KerasHub is SentencePiece itself: it normalises the whole text, cuts it as one, and knows no special token
//! in it. Both take the likeliest pieces, which dynamic programming finds. SentencePiece adds up their scores in f32 and
//! the library in f64, and ways to cut a run of one character often differ by rounding only; so the library
//! does it for transformers, and [`Pieces`] does it for KerasHub.

use std::collections::HashMap;

use rachis::loader::Preset;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, Encoding, Token, Tokenizer};

use super::charsmap::CharsMap;
use super::keras;
use super::piece_file::{Kind, Model, NormalizerSpec, Piece};
use super::settings::Settings;
use super::{Dialect, frame, named};
use crate::Result;

/// A Keras preset's model.
pub const KERAS: &str = "assets/tokenizer/vocabulary.spm";

/// Most bytes of a model that are read: T5's has 0.8 MB. A list of pieces takes 20 times as much memory at worst; what is
/// made of them is bounded by [`check_lengths`](super::piece_file::check_lengths).
pub const LARGEST_FILE: u64 = 32 << 20;

/// transformers' special tokens.
const T5: &[(&str, &str)] = &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];

/// transformers' `T5Tokenizer`.
pub fn hugging_face(preset: &Preset, file: &[u8]) -> Result<Tokenizer> {
    const FILE: &str = "spiece.model";
    let settings = Settings::read(preset, T5)?;
    let model = Model::parse(FILE, file)?;
    let extra = settings.count("extra_ids").unwrap_or(100);
    if extra > MOST_EXTRA_IDS {
        return Err(format!(
            "tokenizer_config.json: extra_ids is {extra}, expected at most {MOST_EXTRA_IDS}"
        )
        .into());
    }
    let extra: Vec<String> = (0..extra).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let pieces = model.pieces.iter().map(|piece| (piece.piece.clone(), f64::from(piece.score)));
    let pieces = pieces.chain(extra.iter().map(|token| (token.clone(), 0.0)));
    let unigram = Unigram::from(pieces.collect(), Some(model.unknown(FILE)? as usize), false);
    let mut library = Tokenizer::new(unigram.map_err(|error| named(FILE, error))?);
    if let Some(bytes) = model.map() {
        let sound = CharsMap::parse(bytes).is_some_and(|map| map.is_sound());
        let map = Some(bytes).filter(|_| sound).and_then(|bytes| Precompiled::from(bytes).ok());
        let map = map.ok_or_else(|| named(FILE, "precompiled_charsmap is malformed"))?;
        library.with_normalizer(Some(map)).map_err(|error| named(FILE, error))?;
    }
    let space = Metaspace::new('▁', PrependScheme::Always, true);
    library.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), space.clone().into()])));
    library.with_decoder(Some(space));
    settings.add_to(&mut library)?;
    // Tokens that are listed take the place of the model's.
    if !settings.lists_extra() {
        let own =
            model.pieces.iter().filter(|piece| matches!(piece.kind(), Kind::Control | Kind::UserDefined));
        let own = own.map(|piece| (piece.piece.clone(), piece.kind() == Kind::Control));
        let own = own.chain(extra.into_iter().map(|token| (token, true)));
        let own =
            own.map(|(token, special)| AddedToken { normalized: false, ..AddedToken::from(token, special) });
        library.add_tokens(own.collect::<Vec<_>>()).map_err(|error| named(FILE, error))?;
    }
    let frame = settings.frame(&library, None, Some("eos_token"))?;
    library.with_post_processor(Some(frame));
    Ok(library)
}

/// KerasHub's `T5Tokenizer`.
pub fn keras(file: &[u8]) -> Result<super::Tokenizer> {
    let pieces = Pieces::new(Model::parse(KERAS, file)?)?;
    let [end, pad] = keras::special(KERAS, ["</s>", "<pad>"], |token| pieces.id(token))?;
    // It puts the end after the pieces, and cuts them where they are too many.
    let mut library = Tokenizer::new(Unigram::default());
    library.with_post_processor(Some(frame(None, Some(("</s>", end)))?));
    let prompting = keras::prompting(end, Some(vec![pad]), &[end, pad]);
    Ok(super::Tokenizer { dialect: Dialect::Pieces(Box::new(pieces)), prompting, ..library.into() })
}

/// SentencePiece itself.
pub struct Pieces {
    map: Option<CharsMap>,
    pieces: Vec<Piece>,
    /// The pieces that a text may have, with their scores.
    known: HashMap<String, (u32, f32)>,
    /// The bytes of the longest of them.
    longest: usize,
    /// What a character of no piece is, and its score.
    unknown: (u32, f32),
    user_defined: Vec<String>,
    normalizer: NormalizerSpec,
    /// What it shows as.
    surface: String,
}

impl Pieces {
    fn new(model: Model) -> Result<Pieces> {
        let map = match model.map() {
            Some(bytes) => Some(
                CharsMap::parse(bytes).ok_or_else(|| named(KERAS, "precompiled_charsmap is malformed"))?,
            ),
            None => None,
        };
        let unknown = model.unknown(KERAS)?;
        let of = |kind| model.pieces.iter().filter(move |piece| piece.kind() == kind);
        let scores = || of(Kind::Normal).map(|piece| piece.score);
        let (worst, best) = (scores().fold(f32::MAX, f32::min), scores().fold(f32::MIN_POSITIVE, f32::max));
        let mut known = HashMap::new();
        for (piece, id) in model.pieces.iter().zip(0..) {
            let score = match piece.kind() {
                Kind::Normal => piece.score,
                Kind::UserDefined => piece.piece.len() as f32 * best - 0.1,
                Kind::Unknown | Kind::Control | Kind::Unused | Kind::Byte => continue,
            };
            known.insert(piece.piece.clone(), (id, score));
        }
        Ok(Pieces {
            map,
            longest: known.keys().map(String::len).max().unwrap_or_default(),
            known,
            unknown: (unknown, worst - UNKNOWN_PENALTY),
            user_defined: of(Kind::UserDefined).map(|piece| piece.piece.clone()).collect(),
            surface: model.trainer.unk_surface().to_owned(),
            normalizer: model.normalizer,
            pieces: model.pieces,
        })
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str) -> Encoding {
        let piece =
            |id: &u32| self.pieces.get(*id as usize).map(|piece| piece.piece.clone()).unwrap_or_default();
        let ids = self.cut(&self.normalize(text));
        Encoding::from_tokens(ids.iter().map(|id| Token::new(*id, piece(id), (0, 0))).collect(), 0)
    }

    /// The likeliest pieces of a normalised text, each run of unknown characters one.
    fn cut(&self, text: &str) -> Vec<u32> {
        /// The best way to the end of a piece.
        #[derive(Clone, Copy)]
        struct Way {
            from: usize,
            id: u32,
            score: f32,
        }
        let mut ways: Vec<Option<Way>> = vec![None; text.len() + 1];
        for (from, first) in text.char_indices() {
            let before = ways[from].map_or(0.0, |way| way.score);
            let mut reach = |len: usize, (id, score): (u32, f32)| {
                let score = before + score;
                let way = &mut ways[from + len];
                if way.is_none_or(|way| score > way.score) {
                    *way = Some(Way { from, id, score });
                }
            };
            let mut alone = false;
            let rest = &text[from..];
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
            for len in ends.take_while(|len| *len <= self.longest) {
                if let Some(piece) = self.known.get(&rest[..len]) {
                    reach(len, *piece);
                    alone |= len == first.len_utf8();
                }
            }
            if !alone {
                reach(first.len_utf8(), self.unknown);
            }
        }
        let mut ids = Vec::new();
        let mut at = text.len();
        while let Some(way) = ways[at] {
            if way.id != self.unknown.0 || ids.last() != Some(&way.id) {
                ids.push(way.id);
            }
            at = way.from;
        }
        ids.reverse();
        ids
    }

    fn id(&self, token: &str) -> Option<u32> {
        let at = self.pieces.iter().position(|piece| piece.piece == token)?;
        u32::try_from(at).ok()
    }

    /// The text in the characters of the pieces: mapped, each run of spaces one `▁`, one of them in front.
    fn normalize(&self, text: &str) -> String {
        let trim = self.normalizer.remove_extra_whitespaces();
        let mut normal = String::with_capacity(text.len() + 3);
        let mut after_space = trim;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let user_defined = self.user_defined.iter().filter(|piece| rest.starts_with(piece.as_str()));
            let as_it_is = |len| (len, &rest[..len]);
            let (len, mapped) = match user_defined.map(String::len).max() {
                Some(len) => as_it_is(len),
                None => match self.map.as_ref().and_then(|map| map.longest(rest)) {
                    Some(found) => found,
                    None => as_it_is(first.len_utf8()),
                },
            };
            rest = &rest[len..];
            let mapped = if after_space { mapped.trim_start_matches(' ') } else { mapped };
            if !mapped.is_empty() {
                normal.push_str(&mapped.replace(' ', "▁"));
                after_space = trim && mapped.ends_with(' ');
            }
        }
        if trim {
            normal.truncate(normal.trim_end_matches('▁').len());
        }
        if self.normalizer.add_dummy_prefix() && !normal.is_empty() {
            normal.insert(0, '▁');
        }
        normal
    }

    /// The text of pieces, without the spaces in front.
    pub fn decode(&self, ids: &[u32]) -> String {
        let all = self.normalizer.remove_extra_whitespaces();
        let mut in_front = all || self.normalizer.add_dummy_prefix();
        let mut text = String::new();
        for piece in ids.iter().filter_map(|id| self.pieces.get(*id as usize)) {
            let mut shown = match piece.kind() {
                Kind::Control => continue,
                Kind::Unknown => self.surface.as_str(),
                Kind::Normal | Kind::UserDefined | Kind::Unused | Kind::Byte => piece.piece.as_str(),
            };
            if in_front && let Some(rest) = shown.strip_prefix('▁') {
                shown = rest;
                in_front = all;
            }
            in_front &= shown.is_empty();
            text.push_str(&shown.replace('▁', " "));
        }
        text
    }
}

/// How much less likely an unknown character is than the least likely piece.
const UNKNOWN_PENALTY: f32 = 10.0;
const MOST_EXTRA_IDS: u64 = 1 << 16;
