//! The model of a preset, if it is tiny: loaded by both accesses, and random.

use rachis::kernels::Ctx;
use rachis::{
    Backbone, BertInputs, Dtype, Heads, PresetOptions, PresetWeights, Result, Seq2SeqInputs, SequenceOutput,
    Session, Tokens,
};
use rachis_loader::{Config, Preset};
use serde_json::Value;

use crate::checked;
use crate::directory::Directory;

/// Loads the same model from both.
pub fn loaded(directory: &Directory, mapped: &Preset, read: &Preset) {
    let options = PresetOptions::new().with_dtype(Dtype::Bfloat16);
    let models = [Backbone::load(mapped), Backbone::load(read)];
    let other = Backbone::load_with(mapped, options);
    let messages = models.each_ref().map(|model| error(directory, model));
    assert_eq!(messages[0], messages[1]);
    if let Ok(other) = &other {
        assert_eq!(other.dtype(), Dtype::Bfloat16);
    }
    error(directory, &other);
    if let Ok(model) = &models[0] {
        error(directory, &Heads::load(mapped, model));
    }
    if let [Ok(mapped), Ok(read)] = models {
        assert!(other.is_ok(), "the preset has a right dtype, which the option replaces");
        assert_eq!(forward(directory, &mapped), forward(directory, &read));
    }
}

/// A model of the same configuration, without the weights.
pub fn random(directory: &Directory, preset: &Preset) {
    if is_tiny(preset.config()) {
        let weights = PresetWeights::Random { seed: 1 };
        let options = PresetOptions::new().with_weights(weights);
        let model = Backbone::from_preset_with(preset.dir(), options);
        error(directory, &model);
        model.iter().for_each(|model| drop(forward(directory, model)));
    }
}

/// Whether no number in a configuration is large, whatever it is for.
fn is_tiny(config: &Config) -> bool {
    let small = |value: &Value| match value {
        Value::Number(number) => number.as_u64().is_none_or(|number| number <= 32),
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    };
    config.fields().all(|(_, value)| small(value))
}

fn error<T>(directory: &Directory, result: &Result<T>) -> Option<String> {
    result.as_ref().err().map(|error| checked(directory, &error.to_string()))
}

/// The bits of the first two tokens' vectors, or what is wrong with them.
fn forward(directory: &Directory, model: &Backbone) -> Result<Vec<u32>, String> {
    let mut session = Session::new(Ctx::detect());
    let tokens = Tokens::padded(&[0, 1], 1, 2);
    let inputs = Seq2SeqInputs { encoder: tokens, decoder: tokens };
    let output = match model {
        Backbone::Bert(bert) => bert
            .forward(&mut session, BertInputs { tokens, segment_ids: None })
            .map(|output| output.sequence_output),
        Backbone::Opt(model) => model.forward(&mut session, tokens),
        Backbone::BartEncoder(model) => model.forward(&mut session, tokens),
        Backbone::T5Encoder(model) => model.forward(&mut session, tokens),
        Backbone::Falcon(model) => model.forward(&mut session, tokens),
        Backbone::Bart(model) => {
            model.forward(&mut session, inputs).map(|output| output.decoder_sequence_output)
        }
        Backbone::T5(model) => {
            model.forward(&mut session, inputs).map(|output| output.decoder_sequence_output)
        }
        _ => unreachable!("all are above"),
    };
    error(directory, &output).map_or_else(|| Ok(output.map_or_else(|_| Vec::new(), bits)), Err)
}

fn bits(output: SequenceOutput<'_>) -> Vec<u32> {
    let rows = output.sequence(0);
    (0..rows.rows()).flat_map(|row| rows.row(row).iter().map(|x| x.to_bits())).collect()
}
