//! SentencePiece itself, as KerasHub runs it on `vocabulary.spm`: its normalisation, segmentation and decoding.
//!
//! The text is normalised and segmented as a whole, and no special tokens are recognised in it. Scores are summed in f32
//! ([`unigram`](super::unigram)).

use super::charsmap::CharsMap;
use super::decoder::{Front, Step};
use super::frame::Frame;
use super::keras;
use super::piece_file::{self, Kind, NormalizerSpec, Piece};
use super::sequence::Tokens;
use super::unigram::{UNKNOWN_PENALTY, segment};
use super::vocabulary::Vocabulary;
use super::{Engine, Tokenizer};
use crate::error::{Result, in_file};

/// The model file of a Keras preset.
pub const KERAS: &str = "assets/tokenizer/vocabulary.spm";

/// KerasHub's `T5Tokenizer`.
pub fn keras(file: &[u8]) -> Result<Tokenizer> {
    let pieces = SentencePiece::new(piece_file::Model::parse(KERAS, file)?)?;
    let [end, pad] = keras::special(KERAS, ["</s>", "<pad>"], |token| pieces.id(token))?;
    let frame = Frame::ended(end);
    let front = match (pieces.normalizer.remove_extra_whitespaces(), pieces.normalizer.add_dummy_prefix()) {
        (true, _) => Some(Front::All),
        (false, true) => Some(Front::One),
        (false, false) => None,
    };
    let unknown = pieces.unknown.0;
    let mut tokenizer = Tokenizer::new(Engine::Pieces(Box::new(pieces)), frame, vec![Step::Pieces { front }]);
    tokenizer.prompting = keras::prompting(end, Some(vec![pad]), &[end, pad]);
    tokenizer.named.0 = [None, Some(end), Some(unknown), None, Some(pad), None, None];
    Ok(tokenizer)
}

/// SentencePiece's own normalisation, segmentation and decoding.
pub struct SentencePiece {
    map: Option<CharsMap>,
    pieces: Vec<Piece>,
    /// The pieces that may occur in a segmentation.
    known: Vocabulary,
    /// Their scores, by their index.
    scores: Vec<f32>,
    /// The id and score of a character that is in no piece.
    unknown: (u32, f32),
    user_defined: Vec<String>,
    normalizer: NormalizerSpec,
    /// The text that the unknown piece decodes to.
    surface: String,
}

impl SentencePiece {
    fn new(model: piece_file::Model) -> Result<SentencePiece> {
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
        let known = model.pieces.iter().zip(0u32..).filter_map(|(piece, id)| {
            let score = match piece.kind() {
                Kind::Normal => piece.score,
                Kind::UserDefined => piece.piece.len() as f32 * best - 0.1,
                Kind::Unknown | Kind::Control | Kind::Unused | Kind::Byte => return None,
            };
            Some((piece.piece.as_str(), id, score))
        });
        let known: Vec<_> = known.collect();
        let vocabulary = Vocabulary::new(known.iter().map(|(piece, id, _)| (*piece, *id)));
        Ok(SentencePiece {
            map,
            known: vocabulary.map_err(|error| in_file(KERAS, error))?,
            scores: known.iter().map(|(.., score)| *score).collect(),
            unknown: (unknown, worst - UNKNOWN_PENALTY as f32),
            user_defined: of(Kind::UserDefined).map(|piece| piece.piece.clone()).collect(),
            surface: model.trainer.unk_surface().to_owned(),
            normalizer: model.normalizer,
            pieces: model.pieces,
        })
    }

    /// The tokens of a text, without special ones.
    pub fn encode(&self, text: &str) -> Tokens {
        let text = self.normalize(text);
        let pieces = segment(&text, Some(self.unknown), |text, relax| {
            for (len, index) in self.known.prefixes("", text) {
                relax(len, self.known.id_at(index), self.scores[index]);
            }
        });
        let ids: Vec<u32> = pieces.unwrap_or_default().into_iter().map(|(_, id)| id).collect();
        Tokens { offsets: vec![0..0; ids.len()], words: vec![None; ids.len()], ids, blanks: Vec::new() }
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

    /// The text of a piece, with `▁` for a space; `None` for one that is not shown.
    pub fn shown(&self, id: u32) -> Option<&str> {
        let piece = self.pieces.get(id as usize)?;
        match piece.kind() {
            Kind::Control => None,
            Kind::Unknown => Some(&self.surface),
            Kind::Normal | Kind::UserDefined | Kind::Unused | Kind::Byte => Some(&piece.piece),
        }
    }
}
