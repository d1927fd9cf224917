//! WordPiece (Schuster and Nakajima, 2012) of BERT: a list of word pieces, one per line.
//!
//! transformers cleans and lowercases the text, then splits it into words; the library does all of it. KerasHub
//! splits first, at whitespace, control characters, punctuation and CJK characters, and then folds case
//! (NFKC_Casefold). This is done here, and the library gets the words. The folding equals KerasHub's for every
//! character of Unicode 14, the version of its Python, except for 58 characters from U+32FF on, whose compatibility
//! form is newer than the library's tables.

use rachis::loader::Preset;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, PreTokenizerWrapper};

use super::decoder::Step;
use super::frame::{Frame, Trim};
use super::json::{self, File, Vocab};
use super::keras::{self, Layer};
use super::model::{Model, WordPiece};
use super::pipeline::{self, Pipeline, contained};
use super::settings::Settings;
use super::vocabulary::Vocabulary;
use super::{Engine, LARGEST_FILE, Tokenizer, missing};
use crate::error::{Result, in_file};

/// The vocabulary file of a Keras preset.
pub const KERAS: &str = "assets/tokenizer/vocabulary.txt";

const FILE: &str = "vocab.txt";

/// The frames that a tokenizer of BERT's kind may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `BertTokenizer`.
    Bert,
    /// `MPNetTokenizer`.
    MpNet,
}

/// transformers' `BertTokenizer` and `MPNetTokenizer`. Of `tokenizer.json` they take the vocabulary; what is done with a
/// text depends on `tokenizer_config.json`.
pub fn hugging_face(
    preset: &Preset,
    file: Option<&mut File<'_>>,
    settings: &Settings,
    kind: Kind,
) -> Result<Tokenizer> {
    let (name, vocabulary) = match file {
        Some(file) => (json::FILE, from_json(file)?),
        None => {
            let text = preset.read_text(FILE, LARGEST_FILE)?;
            (FILE, vocabulary(FILE, &text.ok_or_else(|| missing(preset, "tokenizer.json or vocab.txt"))?)?)
        }
    };
    for token in ["unk_token", "cls_token", "sep_token"].iter().filter_map(|name| settings.token_text(name)) {
        if vocabulary.id(&token).is_none() && !settings.lists(&token) {
            return Err(in_file(name, format!("has no {token}")));
        }
    }
    let unknown = settings.token_text("unk_token").unwrap_or_else(|| "[UNK]".to_owned());
    let mut library = Pipeline::new(model(vocabulary, unknown, "##".to_owned()));
    let normalizer = BertNormalizer::new(
        true,
        settings.flag("tokenize_chinese_chars")?.unwrap_or(true),
        settings.flag("strip_accents")?,
        settings.flag("do_lower_case")?.unwrap_or(true),
    );
    contained(name, || library.with_normalizer(Some(normalizer)).map(drop))?;
    library.with_pre_tokenizer(Some(PreTokenizerWrapper::from(BertPreTokenizer)));
    pipeline::add_settings(&mut library, settings, |name, token| match kind {
        Kind::MpNet if name == "mask_token" => super::added::Added { lstrip: true, ..token },
        _ => token,
    })?;
    let id = |name| pipeline::required(&library, settings, name);
    let (cls, sep) = (id("cls_token")?, id("sep_token")?);
    let frame = match kind {
        Kind::Bert => Frame::bert(cls, sep),
        Kind::MpNet => Frame::roberta(cls, sep, Some(Trim { space_in_front: false })),
    };
    let decoder = vec![Step::WordPiece { prefix: "##".to_owned(), clean_up: true }];
    Ok(Tokenizer::new(Engine::Pipeline(Box::new(library)), frame, decoder))
}

/// The vocabulary of a `tokenizer.json`.
fn from_json(file: &mut File<'_>) -> Result<Vocabulary> {
    let ids = match file.take_model()?.vocab {
        Vocab::Ids(ids) => ids,
        _ => return Err(in_file(json::FILE, "model has no vocabulary of tokens and their ids")),
    };
    let ids = ids.iter().map(|(token, id)| (token.as_ref(), *id));
    Vocabulary::new(ids).map_err(|error| in_file(json::FILE, error))
}

/// The vocabulary of a text with a token a line: the ids are the numbers of the lines; `file` is its name in messages.
pub fn vocabulary(file: &str, text: &str) -> Result<Vocabulary> {
    Vocabulary::new(text.lines().map(str::trim_end).zip(0..)).map_err(|error| in_file(file, error))
}

/// KerasHub's `BertTokenizer`.
pub fn keras(layer: &Layer, vocabulary: &str) -> Result<Tokenizer> {
    let (unknown, prefix) = (layer.string("oov_token", "[UNK]")?, layer.string("suffix_indicator", "##")?);
    let vocabulary = self::vocabulary(KERAS, vocabulary)?;
    let id = |token: &str| vocabulary.id(token);
    let special = keras::special(KERAS, ["[CLS]", "[SEP]", "[PAD]", "[MASK]"], id)?;
    let [unknown_id] = keras::special(KERAS, [unknown], id)?;
    let words = Words::new(layer, unknown)?;
    let library = Pipeline::new(model(vocabulary, unknown.to_owned(), prefix.to_owned()));
    let decoder = vec![Step::WordPiece { prefix: prefix.to_owned(), clean_up: false }];
    let [cls, sep, pad, mask] = special;
    let mut tokenizer =
        Tokenizer::new(Engine::Words(Box::new((library, words))), Frame::bert(cls, sep), decoder);
    tokenizer.prompting = keras::prompting(sep, None, &special);
    tokenizer.named.0 = [None, None, Some(unknown_id), Some(sep), Some(pad), Some(cls), Some(mask)];
    Ok(tokenizer)
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

fn model(vocabulary: Vocabulary, unknown: String, prefix: String) -> Model {
    Model::WordPiece(WordPiece { vocabulary, unknown, prefix, max_chars: MAX_WORD_BYTES })
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
