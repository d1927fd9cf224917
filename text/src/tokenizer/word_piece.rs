//! WordPiece (Schuster and Nakajima, 2012) of BERT: a list of word pieces, one per line.
//!
//! transformers cleans and lowercases the text, then splits it into words; the library does all of it. KerasHub
//! splits first, at whitespace, control characters, punctuation and CJK characters, and then folds case
//! (NFKC_Casefold). This is done here, and the library gets the words. The folding equals KerasHub's for every
//! character of Unicode 14, the version of its Python, except for 58 characters from U+32FF on, whose compatibility
//! form is newer than the library's tables.

use rachis::loader::Preset;
use serde_json::{Map, Value, json};
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Tokenizer};

use super::keras::{self, Layer};
use super::settings::Settings;
use super::{Dialect, frame};
use crate::error::{Result, in_file};

/// The vocabulary file of a Keras preset.
pub const KERAS: &str = "assets/tokenizer/vocabulary.txt";

/// transformers' special tokens.
const BERT: &[(&str, &str)] = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// transformers' `BertTokenizer`.
pub fn hugging_face(preset: &Preset, vocabulary: &str) -> Result<Tokenizer> {
    let settings = Settings::read(preset, BERT)?;
    let ids = ids(vocabulary);
    for name in ["unk_token", "cls_token", "sep_token"] {
        let token = settings.token(name).map(|token| token.content);
        if let Some(token) = token.filter(|token| !ids.contains_key(token)) {
            return Err(in_file("vocab.txt", format!("has no {token}")));
        }
    }
    let unknown = settings.token("unk_token").map_or_else(|| "[UNK]".to_owned(), |token| token.content);
    let description = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings.flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": settings.flag("strip_accents"),
            "lowercase": settings.flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": model(ids, &unknown, "##"),
    });
    let mut library: Tokenizer =
        serde_json::from_value(description).map_err(|error| in_file("vocab.txt", error))?;
    settings.add_to(&mut library)?;
    let frame = settings.frame(&library, Some("cls_token"), Some("sep_token"))?;
    library.with_post_processor(Some(frame));
    Ok(library)
}

/// KerasHub's `BertTokenizer`.
pub fn keras(layer: &Layer, vocabulary: &str) -> Result<super::Tokenizer> {
    let (unknown, prefix) = (layer.string("oov_token", "[UNK]")?, layer.string("suffix_indicator", "##")?);
    let ids = ids(vocabulary);
    let id = |token: &str| ids.get(token).and_then(Value::as_u64).and_then(|id| id.try_into().ok());
    let special = keras::special(KERAS, ["[CLS]", "[SEP]", "[PAD]", "[MASK]"], id)?;
    keras::special(KERAS, [unknown], id)?;
    let words = Words::new(layer, unknown)?;
    let description = json!({
        "version": "1.0",
        "added_tokens": [],
        "decoder": { "type": "WordPiece", "prefix": prefix, "cleanup": false },
        "model": model(ids, unknown, prefix),
    });
    let mut library: Tokenizer =
        serde_json::from_value(description).map_err(|error| in_file(KERAS, error))?;
    library.with_post_processor(Some(frame(Some(("[CLS]", special[0])), Some(("[SEP]", special[1])))?));
    let prompting = keras::prompting(special[1], None, &special);
    Ok(super::Tokenizer { dialect: Dialect::Words(Box::new(words)), prompting, ..library.into() })
}

/// KerasHub's splitting of a text into words.
pub struct Words {
    /// The pattern that separates words; `None` when a text is one word.
    delimiter: Option<SysRegex>,
    /// The delimiters that are dropped; others are words themselves.
    blank: SysRegex,
    /// The pattern of accents, when they are removed.
    accents: Option<SysRegex>,
    lowercase: bool,
    /// Tokens that are never folded or split.
    special: Vec<String>,
    /// The unknown token.
    unknown: String,
}

impl Words {
    fn new(layer: &Layer, unknown: &str) -> Result<Words> {
        let mut special = Vec::new();
        if layer.flag("special_tokens_in_strings", false)? && layer.flag("split", true)? {
            special = vec!["[CLS]", "[SEP]", "[PAD]", "[MASK]"];
            special.extend(layer.strings("special_tokens")?.unwrap_or_default());
            special.retain(|token| !token.is_empty());
        }
        let escaped = special.iter().map(|token| format!("{}|", escape(token)));
        let cjk = if layer.flag("split_on_cjk", true)? { CJK } else { "" };
        let delimiter = format!("{}{BLANK}|[!-/:-@\\[-`{{-~\\p{{P}}{cjk}]", escaped.collect::<String>());
        let delimiter = if layer.flag("split", true)? { Some(regex(&delimiter)?) } else { None };
        let accents = layer.flag("strip_accents", false)?.then(|| regex(r"\p{Mn}+")).transpose()?;
        Ok(Words {
            delimiter,
            blank: regex(BLANK)?,
            accents,
            lowercase: layer.flag("lowercase", false)?,
            special: special.into_iter().map(str::to_owned).collect(),
            unknown: unknown.to_owned(),
        })
    }

    /// The words of a text, with folded case.
    pub fn split(&self, text: &str) -> Vec<String> {
        let mut text = text.to_owned();
        if let Some(accents) = &self.accents {
            let mut decomposed = NormalizedString::from(text);
            let decomposed = decomposed.nfd().get();
            let mut stripped = String::new();
            let mut from = 0;
            for (start, end) in accents.find_iter(decomposed) {
                stripped.push_str(&decomposed[from..start]);
                from = end;
            }
            text = stripped + &decomposed[from..];
        }
        let mut words = Vec::new();
        let mut from = 0;
        for (start, end) in self.delimiter.iter().flat_map(|delimiter| delimiter.find_iter(&text)) {
            words.extend([&text[from..start], &text[start..end]]);
            from = end;
        }
        words.push(&text[from..]);
        let blank = |word: &str| {
            self.delimiter.is_some() && self.blank.find_iter(word).next() == Some((0, word.len()))
        };
        let words = words.into_iter().filter(|word| !word.is_empty());
        words.filter(|word| self.is_special(word) || !blank(word)).map(|word| self.fold(word)).collect()
    }

    fn fold(&self, word: &str) -> String {
        let word = if self.lowercase && !self.is_special(word) { fold_case(word) } else { word.to_owned() };
        if word.len() > MAX_WORD_BYTES { self.unknown.clone() } else { word }
    }

    fn is_special(&self, word: &str) -> bool {
        self.special.iter().any(|token| token == word)
    }
}

/// Maximum number of bytes of a word; longer words become the unknown token.
const MAX_WORD_BYTES: usize = 100;

/// ASCII whitespace, and control and format characters.
const BLANK: &str = r"[ \t\n\r\f\p{Cc}\p{Cf}]";

/// CJK characters, as the inside of a character class.
const CJK: &str = r"\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\u{F900}-\u{FAFF}\u{2F800}-\u{2FA1F}";

fn regex(pattern: &str) -> Result<SysRegex> {
    SysRegex::new(pattern).map_err(|error| in_file("tokenizer.json", error))
}

/// A pattern that matches `text` literally.
fn escape(text: &str) -> String {
    text.chars().map(|c| format!("\\u{{{:X}}}", u32::from(c))).collect()
}

/// The ids of a vocabulary, the line numbers; a token that occurs twice has the last.
fn ids(vocabulary: &str) -> Map<String, Value> {
    vocabulary.lines().zip(0u32..).map(|(token, id)| (token.trim_end().to_owned(), id.into())).collect()
}

fn model(ids: Map<String, Value>, unknown: &str, prefix: &str) -> Value {
    json!({
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": prefix,
        "max_input_chars_per_word": MAX_WORD_BYTES,
        "vocab": ids,
    })
}

/// NFKC_Casefold of Unicode.
fn fold_case(word: &str) -> String {
    let compose = |text: String| NormalizedString::from(text).nfkc().get().to_owned();
    let folded: String = compose(word.to_owned()).chars().flat_map(fold).collect();
    compose(folded).chars().filter(|c| !is_ignorable(*c)).collect()
}

/// Full case folding: the lower case of the upper case, except for a few characters.
fn fold(c: char) -> Vec<char> {
    match c {
        'ı' => vec![c],
        'ẞ' => vec!['s', 's'],
        // Cherokee folds to capitals, which Unicode had first.
        '\u{13A0}'..='\u{13FD}' | '\u{AB70}'..='\u{ABBF}' => c.to_uppercase().collect(),
        _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}

/// Default_Ignorable_Code_Point of Unicode.
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}'
        | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}
