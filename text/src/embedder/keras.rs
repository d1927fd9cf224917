//! KerasHub's `BertTextEmbedder`: the fields of `task.json`, and of its preprocessor.

use rachis::Pooling;
use rachis::loader::Preset;

use crate::error::Result;
use crate::sentence_transformers::Fields;

/// The default of KerasHub's preprocessor.
const SEQUENCE_LENGTH: usize = 256;

/// What a Keras preset says about its embedder.
pub(super) struct KerasTask {
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
    /// Maximum number of tokens of a text, [CLS] and [SEP] included.
    pub(super) sequence_length: usize,
}

impl KerasTask {
    /// Reads the `BertTextEmbedder` of `task.json` and its preprocessor, which is in the same file or in
    /// `preprocessor.json`. The default without them, or when they describe other classes, is KerasHub's.
    pub(super) fn read(preset: &Preset) -> Result<KerasTask> {
        let task = arguments(preset, "task.json", "BertTextEmbedder")?;
        let preprocessor = match task.object("preprocessor")?.object("config")? {
            own if !own.is_empty() => own,
            _ => arguments(preset, "preprocessor.json", "BertTextEmbedderPreprocessor")?,
        };
        let pooling = match task.opt_str("pooling_mode") {
            Ok(None | Some("mean")) => Pooling::Mean,
            Ok(Some("cls")) => Pooling::Cls,
            Ok(Some("max")) => Pooling::Max,
            _ => return Err(task.wrong("pooling_mode", "mean, cls or max")),
        };
        Ok(KerasTask {
            pooling,
            normalize: task.opt_bool("normalize")?.unwrap_or(true),
            sequence_length: preprocessor.opt_count("sequence_length")?.unwrap_or(SEQUENCE_LENGTH),
        })
    }
}

/// The constructor's arguments of the layer that a file describes; none when there is no such file, or it describes
/// another class.
fn arguments(preset: &Preset, file: &str, class: &str) -> Result<Fields> {
    let layer = Fields::read(file.to_owned(), |name| Ok(preset.read_json(name)?))?;
    match layer {
        Some(layer) if layer.opt_str("class_name")? == Some(class) => layer.object("config"),
        _ => Ok(Fields::none(file)),
    }
}
