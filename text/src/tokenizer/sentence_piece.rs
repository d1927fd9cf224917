//! SentencePiece's unigram model: T5's `spiece.model`, XLM-R's `sentencepiece.bpe.model`, KerasHub's `vocabulary.spm`.
//!
//! transformers splits the text at spaces and segments each word separately; a special token in the text becomes that
//! token. KerasHub runs SentencePiece itself, which normalises and segments the text as a whole and recognises no special
//! tokens in it. The first sums scores in f64, the second in f32 ([`unigram`](super::unigram)).
//!
//! transformers 5 splits at all whitespace that the model's map of characters has left, such as U+0085. Version 4 and
//! SentencePiece split at spaces alone, and are followed here, unless `tokenizer.json` says otherwise, as those do that
//! version 5 writes.

use rachis::loader::Preset;
use tokenizers::PreTokenizerWrapper;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use super::added::Added;
use super::charsmap::CharsMap;
use super::decoder::{Front, Spaces, Step};
use super::frame::Frame;
use super::json::{self, File, Vocab};
use super::keras;
use super::model::Model;
use super::piece_file::{self, Kind, NormalizerSpec, Piece, check_lengths};
use super::pipeline::{self, Pipeline, contained};
use super::sequence::Tokens;
use super::settings::{CONFIG, Settings};
use super::steps;
use super::unigram::{UNKNOWN_PENALTY, Unigram, segment};
use super::vocabulary::Vocabulary;
use super::{Engine, Tokenizer, missing};
use crate::error::{Result, in_file};

/// The model file of a Keras preset.
pub const KERAS: &str = "assets/tokenizer/vocabulary.spm";

/// Upper limit of the bytes of a model file: XLM-R's has 5 MB. The list of its pieces takes up to 20 times as much
/// memory.
pub const LARGEST_FILE: u64 = 32 << 20;

/// The classes of transformers whose models are SentencePiece's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `T5Tokenizer`.
    T5,
    /// `XLMRobertaTokenizer`.
    XlmRoberta,
}

/// transformers' tokenizer of a class. Of `tokenizer.json` it takes the pieces and the map of characters.
pub fn hugging_face(
    preset: &Preset,
    file: Option<&mut File<'_>>,
    settings: &mut Settings,
    class: Class,
) -> Result<Tokenizer> {
    let extra = match class {
        Class::T5 => extra_ids(settings)?,
        Class::XlmRoberta => Vec::new(),
    };
    let splits_at = match &file {
        Some(file) if steps::has(&file.pre_tokenizer, "WhitespaceSplit") => WhitespaceSplit.into(),
        _ => {
            let spaces = Split::new(" ", SplitDelimiterBehavior::Removed, false);
            PreTokenizerWrapper::from(spaces.map_err(|error| in_file(CONFIG, error))?)
        }
    };
    let (name, pieces, characters) = match file {
        Some(file) => from_json(file)?,
        None => from_pieces(preset, settings, class, &extra)?,
    };
    if class == Class::T5 {
        list_extra_ids(settings, extra)?;
    }
    // transformers takes these ids, whatever the model's are.
    let unknown = match class {
        Class::T5 => 2,
        Class::XlmRoberta => 3,
    };
    let unigram = Unigram::new(&pieces, Some(unknown), false).map_err(|error| in_file(name, error))?;
    let mut library = Pipeline::new(Model::Unigram(unigram));
    if let Some(characters) = characters {
        contained(name, || library.with_normalizer(Some(characters)).map(drop))?;
    }
    let prepends = class == Class::T5 || settings.flag("add_prefix_space")?.unwrap_or(true);
    let scheme = if prepends { PrependScheme::Always } else { PrependScheme::Never };
    let steps = vec![splits_at, Metaspace::new('▁', scheme, true).into()];
    library.with_pre_tokenizer(Some(PreTokenizerWrapper::from(Sequence::new(steps))));
    pipeline::add_settings(&mut library, settings, |_, token| token)?;
    let eos = pipeline::required(&library, settings, "eos_token")?;
    let frame = match class {
        Class::T5 => Frame::ended(eos),
        Class::XlmRoberta => Frame::roberta(pipeline::required(&library, settings, "bos_token")?, eos, None),
    };
    let first = if prepends { Spaces::Dropped } else { Spaces::Kept };
    let decoder = vec![Step::Metaspace { replacement: '▁', first }];
    Ok(Tokenizer::new(Engine::Pipeline(Box::new(library)), frame, decoder))
}

/// The file that they are of, the pieces and their scores, and the map of characters.
type Pieces = (&'static str, Vec<(String, f64)>, Option<Precompiled>);

/// The pieces of a `tokenizer.json`.
fn from_json(file: &mut File<'_>) -> Result<Pieces> {
    let Vocab::Scores(pieces) = file.take_model()?.vocab else {
        return Err(in_file(json::FILE, "model has no pieces with scores"));
    };
    check_lengths(pieces.iter().map(|(piece, _)| piece.as_ref()))
        .map_err(|error| in_file(json::FILE, error))?;
    let characters = steps::characters(&file.normalizer)?;
    Ok((
        json::FILE,
        pieces.into_iter().map(|(piece, score)| (piece.into_owned(), score)).collect(),
        characters,
    ))
}

/// The pieces of a SentencePiece model, in the order of the class. The model's special tokens become those of the
/// settings.
fn from_pieces(preset: &Preset, settings: &mut Settings, class: Class, extra: &[String]) -> Result<Pieces> {
    let name = match class {
        Class::T5 => "spiece.model",
        Class::XlmRoberta => "sentencepiece.bpe.model",
    };
    let file = preset.read_bytes(name, LARGEST_FILE)?;
    let file = file.ok_or_else(|| missing(preset, &format!("tokenizer.json or {name}")))?;
    let model = piece_file::Model::parse(name, &file)?;
    let own = model.pieces.iter().filter(|piece| matches!(piece.kind(), Kind::Control | Kind::UserDefined));
    let own = own.map(|piece| Added {
        normalized: Some(false),
        special: piece.kind() == Kind::Control,
        ..Added::special(piece.piece.clone())
    });
    settings.set_older_extra(own.collect());
    let characters = model.map().map(|map| steps::characters_from(name, map)).transpose()?;
    let listed = model.pieces.into_iter().map(|piece| (piece.piece, f64::from(piece.score)));
    let token = |name: &str| {
        let default = class_default(name).to_owned();
        (settings.token_text(name).unwrap_or(default), 0.0)
    };
    let pieces = match class {
        Class::T5 => listed.chain(extra.iter().rev().map(|token| (token.clone(), 0.0))).collect(),
        Class::XlmRoberta => ["bos_token", "pad_token", "eos_token", "unk_token"]
            .map(token)
            .into_iter()
            .chain(listed.skip(3))
            .chain([token("mask_token")])
            .collect(),
    };
    Ok((name, pieces, characters))
}

/// XLM-R's special token of this name, where the settings have `null`.
fn class_default(name: &str) -> &'static str {
    match name {
        "bos_token" => "<s>",
        "pad_token" => "<pad>",
        "eos_token" => "</s>",
        "unk_token" => "<unk>",
        _ => "<mask>",
    }
}

/// T5's sentinel tokens, in the order of their numbers.
fn extra_ids(settings: &Settings) -> Result<Vec<String>> {
    let count = settings.count("extra_ids")?.unwrap_or(100);
    if count > MAX_EXTRA_IDS {
        return Err(in_file(CONFIG, format!("extra_ids is {count}, expected at most {MAX_EXTRA_IDS}")));
    }
    Ok((0..count).map(|i| format!("<extra_id_{i}>")).collect())
}

/// Makes T5's sentinel tokens special, unless a list of special tokens has some.
fn list_extra_ids(settings: &mut Settings, extra: Vec<String>) -> Result<()> {
    let mut listed = settings.older_extra().unwrap_or_default().to_vec();
    match listed.iter().filter(|token| token.content.contains("<extra_id_")).count() {
        0 => listed.extend(extra.into_iter().map(Added::special)),
        count if !extra.is_empty() && count != extra.len() => {
            let (given, message) = (extra.len(), "additional_special_tokens has");
            return Err(in_file(CONFIG, format!("extra_ids is {given}, but {message} {count} of them")));
        }
        _ => {}
    }
    settings.set_older_extra(listed);
    Ok(())
}

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

/// Upper limit of `extra_ids`.
const MAX_EXTRA_IDS: u64 = 1 << 16;
