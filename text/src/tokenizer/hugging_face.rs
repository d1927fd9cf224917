//! The tokenizer of a Hugging Face directory, as transformers' `AutoTokenizer` opens it.

use rachis::loader::Preset;
use serde_json::Value;

use super::class::Class;
use super::encoding::Side;
use super::json::{self, File};
use super::model::Model;
use super::settings::{NAMES, Settings};
use super::special::Named;
use super::{
    Engine, Limits, Tokenizer, backend, byte_level, japanese, missing, python, sentence_piece, word_piece,
};
use crate::error::Result;

/// The tokenizer of transformers for a model of this type.
pub fn open(preset: &Preset, model_type: &str, mut file: Option<File<'_>>) -> Result<Tokenizer> {
    let mut settings = Settings::read(preset, file.as_ref())?;
    let kind = file.as_ref().and_then(|file| file.model.as_ref()?.kind.as_deref());
    let class = Class::of(preset, model_type, &settings, kind)?;
    settings.set_defaults(class.defaults());
    let side = |step: Option<&Value>| {
        let left = step.is_some_and(|step| step["direction"] == "Left");
        if left { Side::Left } else { Side::Right }
    };
    let truncation = side(file.as_ref().and_then(|file| file.truncation.as_ref()));
    let padding = side(file.as_ref().and_then(|file| file.padding.as_ref()));
    let json = file.as_mut();
    let mut tokenizer = match class {
        Class::Bert | Class::DistilBert => {
            word_piece::hugging_face(preset, json, &settings, word_piece::Kind::Bert)?
        }
        Class::MpNet => word_piece::hugging_face(preset, json, &settings, word_piece::Kind::MpNet)?,
        Class::Gpt2 => byte_level::hugging_face(preset, json, &settings, byte_level::Kind::Gpt2)?,
        Class::Herbert => byte_level::hugging_face(preset, json, &settings, byte_level::Kind::Herbert)?,
        Class::Roberta => byte_level::hugging_face(preset, json, &settings, byte_level::Kind::Roberta)?,
        Class::T5 => sentence_piece::hugging_face(preset, json, &mut settings, sentence_piece::Class::T5)?,
        Class::XlmRoberta => {
            sentence_piece::hugging_face(preset, json, &mut settings, sentence_piece::Class::XlmRoberta)?
        }
        Class::ByT5 => python::byt5(&mut settings)?,
        Class::BertJapanese => japanese::hugging_face(preset, &settings)?,
        Class::Backend => {
            let file = json.ok_or_else(|| missing(preset, json::FILE))?;
            if let Some(token) = file.padding.as_ref().and_then(|padding| padding["pad_token"].as_str()) {
                settings.set_default("pad_token", token);
            }
            backend::hugging_face(file, &settings)?
        }
    };
    let segments = match settings.value("model_input_names").map(Value::as_array) {
        None => class.has_segments(),
        Some(names) => names.is_some_and(|names| names.iter().any(|name| name == "token_type_ids")),
    };
    if !segments {
        tokenizer.frame = tokenizer.frame.in_one_segment();
    }
    tokenizer.named =
        Named(NAMES.map(|name| settings.token_text(name).and_then(|token| tokenizer.token_to_id(&token))));
    let bpe = match &tokenizer.engine {
        Engine::Pipeline(library) => matches!(library.get_model(), Model::Bpe(_)),
        _ => false,
    };
    const CLEANS_BPE: &str = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    tokenizer.limits = Limits {
        model_max_length: settings.model_max_length()?,
        truncation_side: settings.side("truncation_side")?.unwrap_or(truncation),
        padding_side: settings.side("padding_side")?.unwrap_or(padding),
        clean_up: settings.flag("clean_up_tokenization_spaces")?.unwrap_or(false),
        never_clean_up: bpe && !settings.flag(CLEANS_BPE)?.unwrap_or(false),
    };
    Ok(tokenizer)
}
