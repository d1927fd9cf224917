//! transformers' `BertJapaneseTokenizer`: words by rules (`word_tokenizer_type` basic), and of words their characters or
//! word pieces. Its other word tokenizers are morphological analysers with dictionaries of their own, and are refused.
//!
//! Unicode's categories and normal forms are those of this crate's dependencies; Python's may know newer characters.

use std::collections::HashSet;

use rachis::loader::Preset;
use serde_json::Value;
use tokenizers::NormalizedString;
use tokenizers::utils::SysRegex;

use super::decoder::Step;
use super::frame::Frame;
use super::model::WordPiece;
use super::python::{Python, Words, is_space};
use super::settings::Settings;
use super::word_piece::vocabulary;
use super::{Engine, LARGEST_FILE, Tokenizer, missing};
use crate::error::{Result, in_file};

const FILE: &str = "vocab.txt";

/// Splits text into words, and these into tokens.
pub struct Japanese {
    pieces: WordPiece,
    subwords: Subwords,
    lower_case: bool,
    /// Words that are neither lowercased nor split.
    whole: HashSet<String>,
    /// Control characters, and others that are removed.
    removed: SysRegex,
    /// Accents.
    marks: SysRegex,
    punctuation: SysRegex,
}

/// What a word is split into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subwords {
    Characters,
    Pieces,
}

/// transformers' `BertJapaneseTokenizer`.
pub fn hugging_face(preset: &Preset, settings: &Settings) -> Result<Tokenizer> {
    for name in ["do_word_tokenize", "do_subword_tokenize"] {
        if settings.flag(name)? == Some(false) {
            return Err(settings.wrong(name, "true"));
        }
    }
    if settings.string("word_tokenizer_type")?.is_some_and(|kind| kind != "basic") {
        return Err(settings.wrong("word_tokenizer_type", "basic"));
    }
    let subwords = match settings.string("subword_tokenizer_type")? {
        Some("character") => Subwords::Characters,
        Some("wordpiece") | None => Subwords::Pieces,
        Some(_) => return Err(settings.wrong("subword_tokenizer_type", "character or wordpiece")),
    };
    let never = match settings.value("never_split") {
        None => Vec::new(),
        Some(list) => {
            let list =
                list.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            list.ok_or_else(|| settings.wrong("never_split", "a list of words"))?
        }
    };
    let text = preset.read_text(FILE, LARGEST_FILE)?.ok_or_else(|| missing(preset, FILE))?;
    let vocabulary = vocabulary(FILE, &text)?;
    let unknown = settings.token_text("unk_token").unwrap_or_else(|| "[UNK]".to_owned());
    if vocabulary.id(&unknown).is_none() {
        return Err(in_file(FILE, format!("has no {unknown}")));
    }
    let regex = |pattern| SysRegex::new(pattern).map_err(|error| in_file(FILE, error));
    let japanese = Japanese {
        pieces: WordPiece { vocabulary, unknown, prefix: "##".to_owned(), max_chars: 100 },
        subwords,
        lower_case: settings.flag("do_lower_case")?.unwrap_or(false),
        whole: never.into_iter().map(str::to_owned).chain(settings.special()).collect(),
        removed: regex(r"[\p{C}\u{FFFD}&&[^\t\n\r]]")?,
        marks: regex(r"\p{Mn}")?,
        punctuation: regex(r"[\p{P}!-/:-@\[-`{-~]")?,
    };
    let python = Python::new(settings, Vec::new(), Words::Japanese(Box::new(japanese)))?;
    let id = |name| {
        let id = settings.token_text(name).and_then(|token| python.id(&token));
        id.ok_or_else(|| settings.wrong(name, "a token"))
    };
    let frame = Frame::bert(id("cls_token")?, id("sep_token")?);
    Ok(Tokenizer::new(Engine::Python(Box::new(python)), frame, vec![Step::Japanese]))
}

impl Japanese {
    /// Calls `take` with the tokens of a text.
    pub fn tokens(&self, text: &str, take: &mut dyn FnMut(&str)) {
        let text = without(&self.removed, text);
        let text = normalized(&text, |text| text.nfc());
        for word in text.split(is_space).filter(|word| !word.is_empty()) {
            let mut word = word.to_owned();
            if self.lower_case && !self.whole.contains(&word) {
                word = without(&self.marks, &normalized(&word.to_lowercase(), |word| word.nfd()));
            }
            let mut from = 0;
            let marks = self.punctuation.find_iter(&word).filter(|_| !self.whole.contains(&word));
            let marks: Vec<(usize, usize)> = marks.chain([(word.len(), word.len())]).collect();
            for (start, end) in marks {
                let parts = [&word[from..start], &word[start..end]].into_iter();
                let words = parts.flat_map(|part| part.split(is_space)).filter(|word| !word.is_empty());
                words.for_each(|word| self.subwords(word, take));
                from = end;
            }
        }
    }

    fn subwords(&self, word: &str, take: &mut dyn FnMut(&str)) {
        match self.subwords {
            Subwords::Characters => {
                for c in normalized(word, |word| word.nfkc()).chars() {
                    let mut bytes = [0; 4];
                    let c = &*c.encode_utf8(&mut bytes);
                    take(if self.known(c).is_some() { c } else { self.unknown() });
                }
            }
            Subwords::Pieces => match self.pieces.pieces(word) {
                Some(tokens) => tokens.iter().for_each(|token| take(&token.value)),
                None => take(self.unknown()),
            },
        }
    }

    /// Number of tokens of the vocabulary.
    pub fn len(&self) -> usize {
        self.pieces.vocabulary.len()
    }

    /// The id of a token of the vocabulary.
    pub fn known(&self, token: &str) -> Option<u32> {
        self.pieces.vocabulary.id(token)
    }

    /// The id of a token, or of the unknown one.
    pub fn id(&self, token: &str) -> u32 {
        self.known(token).or_else(|| self.known(self.unknown())).unwrap_or_default()
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.pieces.vocabulary.token(id)
    }

    /// The unknown token.
    pub fn unknown(&self) -> &str {
        &self.pieces.unknown
    }
}

/// A text without what a pattern matches.
fn without(pattern: &SysRegex, text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in pattern.find_iter(text) {
        kept.push_str(&text[from..start]);
        from = end;
    }
    kept + &text[from..]
}

/// A text in a normal form of Unicode.
fn normalized(text: &str, form: impl FnOnce(&mut NormalizedString) -> &mut NormalizedString) -> String {
    let mut text = NormalizedString::from(text);
    form(&mut text);
    text.get().to_owned()
}
