//! The unigram model (Kudo, 2018): the segmentation of a text whose pieces have the highest sum of scores, which the
//! Viterbi algorithm finds.
//!
//! The order of summation is from the start of the text, and of two equal sums the one that was found first stays.
//! transformers sums in f64, SentencePiece in f32; segmentations of a run of one character often differ only by
//! rounding, so the type of the sum is a parameter.

use core::ops::{Add, Range};

use tokenizers::Token;

use super::vocabulary::Vocabulary;

/// A piece of a segmentation: its bytes in the text, and its id.
pub type Piece = (Range<usize>, u32);

/// The segmentation of `text` with the highest score. `pieces` calls its second argument with the length, the id and the
/// score of each piece that its first argument starts with; a character without a piece of its own is one of the id and
/// score `unknown`. Neighbours of the unknown id are one piece.
///
/// Returns `None` when there is no `unknown`, and the text needs it.
pub fn segment<S: Copy + Default + Add<Output = S> + PartialOrd>(
    text: &str,
    unknown: Option<(u32, S)>,
    pieces: impl Fn(&str, &mut dyn FnMut(usize, u32, S)),
) -> Option<Vec<Piece>> {
    /// The last piece of the best segmentation up to a position.
    #[derive(Clone, Copy)]
    struct Node<S> {
        /// Start of the piece in bytes.
        from: usize,
        id: u32,
        score: S,
    }
    let mut nodes: Vec<Option<Node<S>>> = vec![None; text.len() + 1];
    for (from, first) in text.char_indices() {
        let before = nodes[from].map_or(S::default(), |node| node.score);
        let mut relax = |len: usize, id: u32, score: S| {
            let score = score + before;
            let node = &mut nodes[from + len];
            if node.is_none_or(|node| score > node.score) {
                *node = Some(Node { from, id, score });
            }
        };
        let mut single = false;
        pieces(&text[from..], &mut |len, id, score| {
            single |= len == first.len_utf8();
            relax(len, id, score);
        });
        if !single {
            let (id, score) = unknown?;
            relax(first.len_utf8(), id, score);
        }
    }
    let mut found: Vec<Piece> = Vec::new();
    let mut to = text.len();
    while let Some(node) = nodes[to] {
        match found.last_mut() {
            Some((range, id)) if *id == node.id && unknown.is_some_and(|(unknown, _)| unknown == *id) => {
                range.start = node.from;
            }
            _ => found.push((node.from..to, node.id)),
        }
        to = node.from;
    }
    found.reverse();
    Some(found)
}

/// A unigram model as the `tokenizers` crate runs it.
pub struct Unigram {
    pub vocabulary: Vocabulary,
    /// The scores, by id.
    scores: Vec<f64>,
    unknown: Option<(u32, f64)>,
    byte_fallback: bool,
}

impl Unigram {
    /// A model of pieces and their scores; the ids are their places.
    ///
    /// # Errors
    /// When `unknown` is not the id of a piece, a score is not a number, or the pieces are too long.
    pub fn new(
        pieces: &[(impl AsRef<str>, f64)],
        unknown: Option<usize>,
        byte_fallback: bool,
    ) -> Result<Unigram, &'static str> {
        if unknown.is_some_and(|unknown| unknown >= pieces.len()) {
            return Err("the id of the unknown piece is too large");
        }
        let scores: Vec<f64> = pieces.iter().map(|(_, score)| *score).collect();
        if scores.iter().any(|score| !score.is_finite()) {
            return Err("a score is not a finite number");
        }
        let vocabulary = Vocabulary::new(pieces.iter().map(|(piece, _)| piece.as_ref()).zip(0..))?;
        let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let unknown = unknown.map(|id| (id as u32, worst - UNKNOWN_PENALTY));
        Ok(Unigram { vocabulary, scores, unknown, byte_fallback })
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// The tokens of a text.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Token>, &'static str> {
        const LACKS: &str = "the vocabulary has no unknown piece, which the text needs";
        let pieces = segment(text, self.unknown, |text, relax| {
            for (len, id) in self.vocabulary.prefixes("", text) {
                relax(len, id as u32, self.scores[id]);
            }
        });
        let mut tokens = Vec::new();
        for (range, id) in pieces.ok_or(LACKS)? {
            let (piece, offsets) = (&text[range.clone()], (range.start, range.end));
            // Unknown characters together may be a piece whose score is worse than theirs.
            let known = match self.unknown {
                Some((unknown, _)) if unknown == id => self.vocabulary.id(piece),
                _ => Some(id),
            };
            match known.map_or_else(|| self.bytes(piece), |id| Some(vec![(id, piece.to_owned())])) {
                Some(found) => {
                    tokens.extend(found.into_iter().map(|(id, token)| Token::new(id, token, offsets)))
                }
                None => tokens.push(Token::new(self.unknown.ok_or(LACKS)?.0, piece.to_owned(), offsets)),
            }
        }
        Ok(tokens)
    }

    /// The tokens of the bytes of an unknown piece, if the model falls back to bytes and has them all.
    fn bytes(&self, piece: &str) -> Option<Vec<(u32, String)>> {
        let token = |byte| {
            let token = format!("<0x{byte:02X}>");
            Some((self.vocabulary.id(&token)?, token))
        };
        if self.byte_fallback { piece.bytes().map(token).collect() } else { None }
    }
}

/// The score of an unknown character is this much below the lowest score of a piece.
pub const UNKNOWN_PENALTY: f64 = 10.0;
