//! The heads of BERT's tasks: where they are in a preset's files.
//!
//! transformers decides by the class that the program names, and the files do not say which class that was:
//! `classifier` is the last layer of a sequence and of a token classifier. A classifier of sequences reads the pooled
//! output, so the files have the pooler; `architectures` decides where they have it for no reason.

use rachis_kernels::Activation;
use rachis_loader::{Config, Preset};

use super::{BertBackbone, BertConfig};
use crate::error::Result;
use crate::heads::{Heads, SequenceHead};
use crate::layers::{Classifier, MaskedLmHead, MaskedLmParts, NormConfig, NormKind};
use crate::weights::{Init, Naming, Role, Scope, WeightSource};

/// The matrix of the masked-language-model head, which is tied to the token table unless the files hold it.
pub(super) const MATRIX: &str = "cls.predictions.decoder.";

/// The heads of a preset that holds `backbone`.
pub(crate) fn load(preset: &Preset, backbone: &BertBackbone) -> Result<Heads> {
    let source = WeightSource::Preset(preset);
    match source.naming() {
        Naming::HuggingFace => hugging_face(&source, preset.config(), backbone),
        Naming::Keras => match preset.task()? {
            Some(task) => keras(&WeightSource::Preset(&task), backbone),
            None => Ok(Heads::default()),
        },
    }
}

fn hugging_face(source: &WeightSource<'_>, config: &Config, backbone: &BertBackbone) -> Result<Heads> {
    let classifier = |scope: Scope<'_>| -> Result<Option<Classifier>> {
        if !scope.holds(Role::Weight) {
            return Ok(None);
        }
        Classifier::load(&scope, backbone.config().hidden_dim, backbone.dtype()).map(Some)
    };
    let mut heads = Heads {
        masked_lm: masked_lm(&source.scope("cls.predictions."), backbone)?,
        next_sentence: classifier(source.scope("cls.seq_relationship."))?,
        span: classifier(source.scope("qa_outputs."))?,
        ..Heads::default()
    };
    let class = classifier(source.scope("classifier."))?;
    if of_tokens(config, backbone) {
        heads.token = class;
    } else {
        heads.sequence = class.map(SequenceHead::of_pooled);
    }
    Ok(heads)
}

/// Whether `classifier` is a layer on every token.
fn of_tokens(config: &Config, backbone: &BertBackbone) -> bool {
    let classes = config.value("architectures").and_then(|classes| classes.as_array());
    let mut classes = classes.into_iter().flatten().filter_map(|class| class.as_str());
    !backbone.has_pooler() || classes.any(|class| class == "BertForTokenClassification")
}

fn masked_lm(scope: &Scope<'_>, backbone: &BertBackbone) -> Result<Option<MaskedLmHead>> {
    if !scope.holds_any() {
        return Ok(None);
    }
    let BertConfig { activation, layer_norm_epsilon: epsilon, .. } = *backbone.config();
    let table = backbone.token_embedding();
    let (vocabulary, transform) = (backbone.config().vocabulary_size, scope.at("transform"));
    let decoder = scope.at_root(MATRIX);
    let matrix = match decoder.holds(Role::Weight) {
        true => decoder.weight(Role::Weight, &[vocabulary, backbone.config().hidden_dim], Init::KERNEL)?,
        false => table.weight(),
    };
    let parts = MaskedLmParts {
        transform: transform.at("dense"),
        activation,
        norm: (transform.at("LayerNorm"), NormConfig { kind: NormKind::Layer, epsilon }),
        matrix,
        bias: scope.first_of(&["decoder.bias", "bias"], &[vocabulary], Init::Zeros)?,
    };
    MaskedLmHead::load(parts, table, backbone.dtype()).map(Some)
}

/// The heads of KerasHub's `BertTextClassifier` and `BertMaskedLM`.
fn keras(source: &WeightSource<'_>, backbone: &BertBackbone) -> Result<Heads> {
    let root = source.root(&[], "");
    let mut heads = Heads::default();
    let logits = root.at("dense");
    if logits.holds(Role::Weight) {
        let class = Classifier::load(&logits, backbone.config().hidden_dim, backbone.dtype())?;
        heads.sequence = Some(SequenceHead::of_pooled(class));
    }
    let head = root.at("masked_lm_head");
    if head.holds_any() {
        let table = backbone.token_embedding();
        let parts = MaskedLmParts {
            transform: head.at("_intermediate_dense"),
            activation: Activation::GeluErf,
            // The layer's own constant, whatever the backbone's is.
            norm: (head.at("_intermediate_layer_norm"), NormConfig { kind: NormKind::Layer, epsilon: 1e-5 }),
            matrix: table.weight(),
            bias: head.named("vars/0", &[backbone.config().vocabulary_size], Init::Zeros)?,
        };
        heads.masked_lm = Some(MaskedLmHead::load(parts, table, backbone.dtype())?);
    }
    Ok(heads)
}
