//! The class of a tokenizer, as transformers' `AutoTokenizer` chooses it: by the name in `tokenizer_config.json` or in
//! `config.json`, else by the model's type. Code of the directory's own (`auto_map`) is never run, as there.

use rachis::loader::Preset;
use serde_json::Value;

use super::settings::{CONFIG, Settings};
use crate::error::{Result, clip, in_file};

/// A class of transformers 5.24 that is implemented here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// `BertTokenizer`: WordPiece.
    Bert,
    /// `BertJapaneseTokenizer`.
    BertJapanese,
    /// `DistilBertTokenizer`: BERT's, whose model has no segments.
    DistilBert,
    /// `ByT5Tokenizer`: bytes.
    ByT5,
    /// `GPT2Tokenizer`: byte-level BPE.
    Gpt2,
    /// `HerbertTokenizer`: BPE of words with an end.
    Herbert,
    /// `MPNetTokenizer`: BERT's with RoBERTa's frame.
    MpNet,
    /// `RobertaTokenizer`, which is `BartTokenizer` too: byte-level BPE.
    Roberta,
    /// `T5Tokenizer`: SentencePiece's unigram model.
    T5,
    /// `XLMRobertaTokenizer`: SentencePiece's unigram model.
    XlmRoberta,
    /// `TokenizersBackend`, which is `PreTrainedTokenizerFast` too: all of `tokenizer.json` as it stands.
    Backend,
}

impl Class {
    /// The class of a directory whose model is of the type `model_type`, and whose `tokenizer.json`, if there is one, has a
    /// model of this kind. Where nothing names a class, a file with another kind of model than the class of `model_type` has
    /// is used as it stands.
    pub fn of(preset: &Preset, model_type: &str, settings: &Settings, kind: Option<&str>) -> Result<Class> {
        let config = preset.config().value("tokenizer_class").and_then(Value::as_str);
        let (file, name) = match (settings.string("tokenizer_class")?, config) {
            (Some(name), _) => (CONFIG, name),
            (None, Some(name)) => ("config.json", name),
            (None, None) => {
                let class = Class::of_model(model_type);
                let fits = kind.is_none_or(|kind| class.has_model(kind));
                return Ok(if fits { class } else { Class::Backend });
            }
        };
        Class::named(name)
            .ok_or_else(|| in_file(file, format!("tokenizer_class {} is not implemented", clip(name))))
    }

    /// The class of a name, with or without transformers' old ending `Fast`.
    fn named(name: &str) -> Option<Class> {
        Some(match name.strip_suffix("Fast").unwrap_or(name) {
            "BertTokenizer" | "ConvBertTokenizer" | "MobileBertTokenizer" | "SqueezeBertTokenizer" => {
                Class::Bert
            }
            "DistilBertTokenizer" => Class::DistilBert,
            "BertJapaneseTokenizer" => Class::BertJapanese,
            "ByT5Tokenizer" => Class::ByT5,
            "GPT2Tokenizer" => Class::Gpt2,
            "HerbertTokenizer" => Class::Herbert,
            "MPNetTokenizer" => Class::MpNet,
            "RobertaTokenizer" | "BartTokenizer" => Class::Roberta,
            "T5Tokenizer" => Class::T5,
            "XLMRobertaTokenizer" => Class::XlmRoberta,
            "TokenizersBackend" | "PreTrainedTokenizer" => Class::Backend,
            // Classes of version 4, for which version 5 does the same.
            "BloomTokenizer"
            | "ElectraTokenizer"
            | "LayoutLMTokenizer"
            | "LongformerTokenizer"
            | "RetriBertTokenizer" => Class::Backend,
            _ => return None,
        })
    }

    /// The class of a model whose directory names none.
    fn of_model(model_type: &str) -> Class {
        match model_type {
            "bert" => Class::Bert,
            "bart" | "roberta" => Class::Roberta,
            "opt" => Class::Gpt2,
            "t5" | "mt5" => Class::T5,
            "mpnet" => Class::MpNet,
            "xlm-roberta" => Class::XlmRoberta,
            _ => Class::Backend,
        }
    }

    /// Whether a `tokenizer.json` of the class may have a model of this kind.
    fn has_model(self, kind: &str) -> bool {
        match self {
            Class::Bert | Class::BertJapanese | Class::DistilBert | Class::MpNet => kind == "WordPiece",
            Class::Gpt2 | Class::Herbert | Class::Roberta => kind == "BPE",
            Class::T5 | Class::XlmRoberta => kind == "Unigram",
            Class::ByT5 => false,
            Class::Backend => true,
        }
    }

    /// Whether the class tells the texts of a pair apart by segments. transformers 5 does not for HerBERT's and the Japanese
    /// one, but version 4 did, and the models were trained so.
    pub fn has_segments(self) -> bool {
        matches!(self, Class::Bert | Class::BertJapanese | Class::Herbert)
    }

    /// The special tokens that the class has by default.
    pub fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Class::Bert | Class::DistilBert | Class::BertJapanese => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Class::ByT5 | Class::T5 => {
                &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")]
            }
            Class::Gpt2 => &[
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("unk_token", "<|endoftext|>"),
            ],
            Class::Herbert => &[
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Class::MpNet => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "[UNK]"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Class::Roberta | Class::XlmRoberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Class::Backend => &[],
        }
    }
}
