//! The head of BART's classifier of sequences.

use rachis_kernels::Activation;
use rachis_loader::Preset;

use super::BartBackbone;
use crate::config::field;
use crate::error::Result;
use crate::heads::{Heads, SequenceHead};
use crate::layers::Classifier;
use crate::weights::{Naming, WeightSource};

/// The heads of a preset that holds `backbone`.
pub(crate) fn load(preset: &Preset, backbone: &BartBackbone) -> Result<Heads> {
    let source = WeightSource::Preset(preset);
    let scope = source.scope("classification_head.");
    if source.naming() == Naming::Keras || !scope.holds_any() {
        return Ok(Heads::default());
    }
    let classifier = Classifier::load(&scope.at("out_proj"), backbone.config().hidden_dim, backbone.dtype())?
        .after(&scope.at("dense"), Activation::Tanh)?;
    let token = |name: &'static str| {
        let id = preset.config().opt_usize(name)?.unwrap_or(DEFAULT_END);
        u32::try_from(id).map_err(|_| field(name, id, "a token id"))
    };
    let (start, end) = (token("decoder_start_token_id")?, token("eos_token_id")?);
    Ok(Heads { sequence: Some(SequenceHead::of_last_end(classifier, start, end)), ..Heads::default() })
}

/// transformers' default of `eos_token_id` and of `decoder_start_token_id`.
const DEFAULT_END: usize = 2;
