//! The presets that KerasHub 0.32 knows by name, of five families: BERT, OPT, BART, Falcon and T5.
//!
//! Each name stands for one version of one Kaggle model: `bert_tiny_en_uncased` stands for
//! `kaggle://keras/bert/keras/bert_tiny_en_uncased/3`.

use super::kaggle_model::KaggleModel;

/// A preset with a name of its own in KerasHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KerasPreset {
    model: &'static str,
    version: u32,
    name: &'static str,
}

impl KerasPreset {
    /// The name in KerasHub.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The Kaggle model, with its version, that the name stands for.
    pub fn kaggle(&self) -> KaggleModel {
        KaggleModel::keras(self.model, self.name, self.version)
    }
}

/// All presets that have a name in KerasHub.
pub fn keras_presets() -> &'static [KerasPreset] {
    PRESETS
}

/// The preset with this name.
pub(super) fn find(name: &str) -> Option<&'static KerasPreset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

const fn preset(model: &'static str, version: u32, name: &'static str) -> KerasPreset {
    KerasPreset { model, version, name }
}

#[rustfmt::skip]
const PRESETS: &[KerasPreset] = &[
    preset("bert", 3, "bert_tiny_en_uncased"),
    preset("bert", 3, "bert_small_en_uncased"),
    preset("bert", 3, "bert_medium_en_uncased"),
    preset("bert", 3, "bert_base_en_uncased"),
    preset("bert", 3, "bert_base_en"),
    preset("bert", 3, "bert_base_zh"),
    preset("bert", 3, "bert_base_multi"),
    preset("bert", 3, "bert_large_en_uncased"),
    preset("bert", 3, "bert_large_en"),
    preset("bert", 5, "bert_tiny_en_uncased_sst2"),
    preset("sentence-transformers", 1, "all_minilm_l6_v2_en"),
    preset("sentence-transformers", 1, "all_minilm_l6_v1_en"),
    preset("sentence-transformers", 1, "all_minilm_l12_v2_en"),
    preset("sentence-transformers", 1, "paraphrase_minilm_l3_v2_en"),
    preset("sentence-transformers", 1, "paraphrase_minilm_l6_v2_en"),
    preset("sentence-transformers", 1, "paraphrase_minilm_l12_v2_en"),
    preset("sentence-transformers", 1, "multi_qa_minilm_l6_cos_v1_en"),
    preset("sentence-transformers", 1, "multi_qa_minilm_l6_dot_v1_en"),
    preset("sentence-transformers", 1, "msmarco_minilm_l6_cos_v5_en"),
    preset("sentence-transformers", 1, "msmarco_minilm_l12_cos_v5_en"),
    preset("bge", 1, "bge_small_en"),
    preset("bge", 1, "bge_base_en"),
    preset("bge", 1, "bge_large_en"),
    preset("bge", 1, "bge_small_v1.5_en"),
    preset("bge", 1, "bge_base_v1.5_en"),
    preset("bge", 1, "bge_large_v1.5_en"),
    preset("bge", 1, "bge_base_zh"),
    preset("bge", 1, "bge_large_zh"),
    preset("bge", 1, "bge_small_v1.5_zh"),
    preset("bge", 1, "bge_base_v1.5_zh"),
    preset("bge", 1, "bge_large_v1.5_zh"),
    preset("bge", 1, "bge_llm_embedder"),
    preset("multilingual-e5", 1, "multilingual_e5_small"),
    preset("mxbai-embed", 1, "mxbai_embed_large_v1_en"),
    preset("mxbai-embed", 1, "mxbai_embed_2d_large_v1_en"),
    preset("mxbai-embed", 1, "mxbai_embed_xsmall_v1_en"),
    preset("opt", 3, "opt_125m_en"),
    preset("opt", 3, "opt_1.3b_en"),
    preset("opt", 3, "opt_2.7b_en"),
    preset("opt", 3, "opt_6.7b_en"),
    preset("bart", 3, "bart_base_en"),
    preset("bart", 3, "bart_large_en"),
    preset("bart", 3, "bart_large_en_cnn"),
    preset("falcon", 2, "falcon_refinedweb_1b_en"),
    preset("t5", 3, "t5_small_multi"),
    preset("t5", 2, "t5_1.1_small"),
    preset("t5", 3, "t5_base_multi"),
    preset("t5", 2, "t5_1.1_base"),
    preset("t5", 3, "t5_large_multi"),
    preset("t5", 2, "t5_1.1_large"),
    preset("t5", 2, "t5_1.1_xl"),
    preset("t5", 2, "t5_1.1_xxl"),
    preset("t5", 3, "flan_small_multi"),
    preset("t5", 3, "flan_base_multi"),
    preset("t5", 3, "flan_large_multi"),
];
