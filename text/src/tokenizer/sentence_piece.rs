//! SentencePiece's unigram model (Kudo, 2018) of T5: `spiece.model`, KerasHub's `vocabulary.spm`.
//!
//! transformers splits the text at whitespace and segments each word separately; a special token in the text becomes
//! that token. KerasHub runs SentencePiece itself, which normalises and segments the text as a whole and recognises
//! no special tokens in it. Both take the segmentation of the highest score, which the Viterbi algorithm finds.
//! SentencePiece sums scores in f32 and the library in f64, and segmentations of a run of one character often differ
//! only by rounding. So the library segments for transformers, and [`Pieces`] for KerasHub.

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
use super::{Dialect, frame};
use crate::error::{Result, in_file};

/// The model file of a Keras preset.
pub const KERAS: &str = "assets/tokenizer/vocabulary.spm";

/// Upper limit of the bytes of a model file: T5's has 0.8 MB. The list of its pieces takes up to 20 times as much
/// memory; [`check_lengths`](super::piece_file::check_lengths) bounds the trie that is built of them.
pub const LARGEST_FILE: u64 = 32 << 20;

/// transformers' special tokens.
const T5: &[(&str, &str)] = &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];

/// transformers' `T5Tokenizer`.
pub fn hugging_face(preset: &Preset, file: &[u8]) -> Result<Tokenizer> {
    const FILE: &str = "spiece.model";
    let settings = Settings::read(preset, T5)?;
    let model = Model::parse(FILE, file)?;
    let extra = settings.count("extra_ids").unwrap_or(100);
    if extra > MAX_EXTRA_IDS {
        let message = format!("extra_ids is {extra}, expected at most {MAX_EXTRA_IDS}");
        return Err(in_file("tokenizer_config.json", message));
    }
    let extra: Vec<String> = (0..extra).rev().map(|i| format!("<extra_id_{i}>")).collect();
    let pieces = model.pieces.iter().map(|piece| (piece.piece.clone(), f64::from(piece.score)));
    let pieces = pieces.chain(extra.iter().map(|token| (token.clone(), 0.0)));
    let unigram = Unigram::from(pieces.collect(), Some(model.unknown(FILE)? as usize), false);
    let mut library = Tokenizer::new(unigram.map_err(|error| in_file(FILE, error))?);
    if let Some(bytes) = model.map() {
        let sound = CharsMap::parse(bytes).is_some_and(|map| map.is_sound());
        let map = Some(bytes).filter(|_| sound).and_then(|bytes| Precompiled::from(bytes).ok());
        let map = map.ok_or_else(|| in_file(FILE, "precompiled_charsmap is malformed"))?;
        library.with_normalizer(Some(map)).map_err(|error| in_file(FILE, error))?;
    }
    let space = Metaspace::new('▁', PrependScheme::Always, true);
    library.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), space.clone().into()])));
    library.with_decoder(Some(space));
    settings.add_to(&mut library)?;
    // Listed extra tokens replace the model's special tokens.
    if !settings.lists_extra() {
        let own =
            model.pieces.iter().filter(|piece| matches!(piece.kind(), Kind::Control | Kind::UserDefined));
        let own = own.map(|piece| (piece.piece.clone(), piece.kind() == Kind::Control));
        let own = own.chain(extra.into_iter().map(|token| (token, true)));
        let own =
            own.map(|(token, special)| AddedToken { normalized: false, ..AddedToken::from(token, special) });
        library.add_tokens(own.collect::<Vec<_>>()).map_err(|error| in_file(FILE, error))?;
    }
    let frame = settings.frame(&library, None, Some("eos_token"))?;
    library.with_post_processor(Some(frame));
    Ok(library)
}

/// KerasHub's `T5Tokenizer`.
pub fn keras(file: &[u8]) -> Result<super::Tokenizer> {
    let pieces = Pieces::new(Model::parse(KERAS, file)?)?;
    let [end, pad] = keras::special(KERAS, ["</s>", "<pad>"], |token| pieces.id(token))?;
    // The library only appends the end token and truncates.
    let mut library = Tokenizer::new(Unigram::default());
    library.with_post_processor(Some(frame(None, Some(("</s>", end)))?));
    let prompting = keras::prompting(end, Some(vec![pad]), &[end, pad]);
    Ok(super::Tokenizer { dialect: Dialect::Pieces(Box::new(pieces)), prompting, ..library.into() })
}

/// SentencePiece's own normalisation, segmentation and decoding.
pub struct Pieces {
    map: Option<CharsMap>,
    pieces: Vec<Piece>,
    /// The ids and scores of the pieces that may occur in a segmentation.
    known: HashMap<String, (u32, f32)>,
    /// The bytes of the longest piece of `known`.
    longest: usize,
    /// The id and score of a character that is in no piece.
    unknown: (u32, f32),
    user_defined: Vec<String>,
    normalizer: NormalizerSpec,
    /// The text that the unknown piece decodes to.
    surface: String,
}

impl Pieces {
    fn new(model: Model) -> Result<Pieces> {
        let map = match model.map() {
            Some(bytes) => Some(
                CharsMap::parse(bytes).ok_or_else(|| in_file(KERAS, "precompiled_charsmap is malformed"))?,
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

    /// The tokens of a text, without special ones.
    pub fn encode(&self, text: &str) -> Encoding {
        let piece =
            |id: &u32| self.pieces.get(*id as usize).map(|piece| piece.piece.clone()).unwrap_or_default();
        let ids = self.segment(&self.normalize(text));
        Encoding::from_tokens(ids.iter().map(|id| Token::new(*id, piece(id), (0, 0))).collect(), 0)
    }

    /// The segmentation of a normalised text with the highest score; a run of unknown characters is one piece.
    fn segment(&self, text: &str) -> Vec<u32> {
        /// The last piece of the best segmentation up to a position.
        #[derive(Clone, Copy)]
        struct Node {
            /// Start of the piece in bytes.
            from: usize,
            id: u32,
            score: f32,
        }
        let mut nodes: Vec<Option<Node>> = vec![None; text.len() + 1];
        for (from, first) in text.char_indices() {
            let before = nodes[from].map_or(0.0, |node| node.score);
            let mut relax = |len: usize, (id, score): (u32, f32)| {
                let score = before + score;
                let node = &mut nodes[from + len];
                if node.is_none_or(|node| score > node.score) {
                    *node = Some(Node { from, id, score });
                }
            };
            let mut single = false;
            let rest = &text[from..];
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
            for len in ends.take_while(|len| *len <= self.longest) {
                if let Some(piece) = self.known.get(&rest[..len]) {
                    relax(len, *piece);
                    single |= len == first.len_utf8();
                }
            }
            if !single {
                relax(first.len_utf8(), self.unknown);
            }
        }
        let mut ids = Vec::new();
        let mut at = text.len();
        while let Some(node) = nodes[at] {
            if node.id != self.unknown.0 || ids.last() != Some(&node.id) {
                ids.push(node.id);
            }
            at = node.from;
        }
        ids.reverse();
        ids
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The piece of an id.
    pub fn piece(&self, id: u32) -> Option<&str> {
        Some(self.pieces.get(id as usize)?.piece.as_str())
    }

    /// The id of a piece.
    pub fn id(&self, token: &str) -> Option<u32> {
        let at = self.pieces.iter().position(|piece| piece.piece == token)?;
        u32::try_from(at).ok()
    }

    /// Normalises a text: characters are replaced by the map, a space becomes `▁`, and by the model's settings runs
    /// of spaces become one and a `▁` is added in front.
    fn normalize(&self, text: &str) -> String {
        let trim = self.normalizer.remove_extra_whitespaces();
        let mut normal = String::with_capacity(text.len() + 3);
        let mut after_space = trim;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let user_defined = self.user_defined.iter().filter(|piece| rest.starts_with(piece.as_str()));
            let unchanged = |len| (len, &rest[..len]);
            let (len, mapped) = match user_defined.map(String::len).max() {
                Some(len) => unchanged(len),
                None => match self.map.as_ref().and_then(|map| map.longest(rest)) {
                    Some(found) => found,
                    None => unchanged(first.len_utf8()),
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

    /// The text of pieces, without leading spaces.
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

/// The score of an unknown character is this much below the lowest score of a piece.
const UNKNOWN_PENALTY: f32 = 10.0;
/// Upper limit of `extra_ids`.
const MAX_EXTRA_IDS: u64 = 1 << 16;
