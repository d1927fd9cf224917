//! BERT (Devlin et al., arXiv:1810.04805): a bidirectional encoder with absolute positions, segments and layer
//! normalisation after each block. The reference implementations are KerasHub's `BertBackbone` and
//! transformers' `BertModel`.

mod config;
mod heads;

use std::path::Path;

use rachis_kernels::{Activation, Ctx, MatMut, MatRef};
use rachis_loader::{Access, Preset};

pub use config::BertConfig;
pub use heads::BertPretrainingHeads;

use crate::config::DtypePolicy;
use crate::error::{Result, request};
use crate::layers::{Block, BlockConfig, BlockNames, Buffers, Embedding, LayerNorm, Linear};
use crate::session::{Model, Observer, Plan, SequenceOutput, Session, Workspace, carve};
use crate::tokens::{First, Tokens};
use crate::weights::Source;

/// The inputs of a [`BertBackbone`]; the padding mask is part of the tokens.
#[derive(Debug, Clone, Copy)]
pub struct BertInputs<'a> {
    /// `token_ids` and `padding_mask`.
    pub tokens: Tokens<'a>,
    /// One for each token id, in the same shape; `None` is all zeros.
    pub segment_ids: Option<&'a [u32]>,
}

/// The outputs of a [`BertBackbone`], in the session's memory.
#[derive(Debug, Clone, Copy)]
pub struct BertOutput<'s> {
    /// A vector for every token.
    pub sequence_output: SequenceOutput<'s>,
    /// `[batch, hidden_dim]`: the tanh of a dense layer on the first position of each sequence, whatever the
    /// mask says about it.
    pub pooled_output: MatRef<'s, f32>,
}

/// The BERT encoder.
#[derive(Debug)]
pub struct BertBackbone {
    config: BertConfig,
    dtype: DtypePolicy,
    token_embedding: Embedding,
    position_embedding: Embedding,
    segment_embedding: Embedding,
    embeddings_norm: LayerNorm,
    layers: Vec<Block>,
    pooler: Linear,
}

const NAMES: BlockNames = BlockNames {
    attention: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ],
    attention_norm: "attention.output.LayerNorm",
    cross: None,
    feed_forward: ["intermediate.dense", "output.dense"],
    feed_forward_norm: "output.LayerNorm",
};

impl BertBackbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`BertBackbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<BertBackbone> {
        BertBackbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`BertBackbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<BertBackbone> {
        let config = BertConfig::from_preset(preset)?;
        BertBackbone::build(config, DtypePolicy::of(preset.config())?, &Source::Preset(preset))
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have.
    pub fn random(config: BertConfig, seed: u64) -> Result<BertBackbone> {
        BertBackbone::build(config, DtypePolicy::Float32, &Source::random(seed))
    }

    fn build(config: BertConfig, dtype: DtypePolicy, source: &Source<'_>) -> Result<BertBackbone> {
        config.validate()?;
        let (hidden, epsilon) = (config.hidden_dim, config.layer_norm_epsilon);
        let prefix = source.prefix(&["bert.", ""], "embeddings.word_embeddings.weight");
        let root = source.scope(prefix);
        let embeddings = root.at("embeddings");
        let encoder = root.at("encoder.layer");
        Ok(BertBackbone {
            token_embedding: Embedding::load(
                &embeddings.at("word_embeddings"),
                config.vocabulary_size,
                hidden,
            )?,
            position_embedding: Embedding::load(
                &embeddings.at("position_embeddings"),
                config.max_sequence_length,
                hidden,
            )?,
            segment_embedding: Embedding::load(
                &embeddings.at("token_type_embeddings"),
                config.num_segments,
                hidden,
            )?,
            embeddings_norm: LayerNorm::load(&embeddings.at("LayerNorm"), hidden, epsilon, true)?,
            layers: (0..config.num_layers)
                .map(|i| Block::load(&encoder.at(i), &NAMES, block(&config)))
                .collect::<Result<_>>()?,
            pooler: Linear::load(&root.at("pooler.dense"), hidden, hidden, true)?,
            config,
            dtype,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors.
    pub fn token_embedding(&self) -> &Embedding {
        &self.token_embedding
    }

    /// One forward pass.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: BertInputs<'_>,
    ) -> Result<BertOutput<'s>> {
        self.forward_observed(session, inputs, None)
    }

    /// One forward pass that shows every layer's output to `observer`.
    ///
    /// # Errors
    /// As [`BertBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: BertInputs<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<BertOutput<'s>> {
        let Session { ctx, work } = session;
        self.prepare(work, inputs)?;
        ctx.enter(|| self.compute(ctx, work, observer))?;
        let (rows, hidden) = (work.rows.len(), self.config.hidden_dim);
        let batch = work.rows.spans.len();
        let sizes = self.sizes(rows, batch);
        let [x, _, _, _, _, pooled] = carve(&mut work.hidden, sizes);
        Ok(BertOutput {
            sequence_output: SequenceOutput { data: MatRef::new(x, rows, hidden)?, rows: &work.rows },
            pooled_output: MatRef::new(pooled, batch, hidden)?,
        })
    }

    /// Checks the inputs and lays out the rows to compute.
    fn prepare(&self, work: &mut Workspace, inputs: BertInputs<'_>) -> Result<()> {
        let BertConfig { vocabulary_size, max_sequence_length, num_segments, .. } = self.config;
        work.rows.fill(inputs.tokens, (vocabulary_size, max_sequence_length), First::Always)?;
        work.indices.clear();
        match inputs.segment_ids {
            None => work.indices.resize(work.rows.len(), 0),
            Some(segments) => {
                let (found, expected) = (segments.len(), inputs.tokens.ids().len());
                if found != expected {
                    return Err(request("length of segment_ids", found, expected));
                }
                work.indices.extend(work.rows.source.iter().map(|at| segments[*at as usize]));
                if let Some(segment) = work.indices.iter().find(|segment| **segment as usize >= num_segments)
                {
                    return Err(request("segment id", segment, format!("less than {num_segments}")));
                }
            }
        }
        Ok(())
    }

    /// Elements of x, y, z, the wide buffer, the first tokens and the pooled output.
    fn sizes(&self, rows: usize, batch: usize) -> [usize; 6] {
        let [x, y, z, wide] = Block::sizes(&block(&self.config), rows);
        let pooled = batch * self.config.hidden_dim;
        [x, y, z, wide, pooled, pooled]
    }

    fn compute(&self, ctx: &Ctx, work: &mut Workspace, mut observer: Option<Observer<'_>>) -> Result<()> {
        let (rows, batch, hidden) = (work.rows.len(), work.rows.spans.len(), self.config.hidden_dim);
        let sizes = self.sizes(rows, batch);
        let [x, y, z, wide, first, pooled] = carve(&mut work.hidden, sizes);

        self.token_embedding.lookup(ctx, &work.rows.ids, MatMut::new(y, rows, hidden)?)?;
        self.position_embedding.add(ctx, &work.rows.positions, MatMut::new(y, rows, hidden)?)?;
        self.segment_embedding.add(ctx, &work.indices, MatMut::new(y, rows, hidden)?)?;
        self.embeddings_norm.apply(ctx, MatRef::new(y, rows, hidden)?, MatMut::new(x, rows, hidden)?)?;

        for i in 0..=self.layers.len() {
            if let Some(observe) = observer.as_mut() {
                observe(i, SequenceOutput { data: MatRef::new(x, rows, hidden)?, rows: &work.rows });
            }
            if let Some(layer) = self.layers.get(i) {
                let buffers = Buffers { x, y, z, wide, scratch: &mut work.scratch };
                layer.apply(ctx, &work.rows.spans, None, buffers)?;
            }
        }

        for (span, to) in work.rows.spans.iter().zip(first.chunks_exact_mut(hidden)) {
            let at = span.queries.start * hidden;
            to.copy_from_slice(&x[at..at + hidden]);
        }
        let (first, pooled) = (MatRef::new(first, batch, hidden)?, MatMut::new(pooled, batch, hidden)?);
        self.pooler.apply(ctx, &mut work.scratch, first, (Activation::Tanh, None), pooled)
    }
}

impl Model for BertBackbone {
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = crate::session::rows(batch, (seq, self.config.max_sequence_length))?;
        let scratch = self.layers.first().map_or(0, |layer| layer.scratch_len(ctx, rows));
        let scratch = scratch.max(self.pooler.scratch_len(ctx, batch, 0));
        Ok(Plan { hidden: self.sizes(rows, batch).iter().sum(), scratch })
    }
}

/// The configuration of every layer.
fn block(config: &BertConfig) -> BlockConfig {
    BlockConfig {
        hidden: config.hidden_dim,
        inner: config.intermediate_dim,
        heads: config.num_heads,
        activation: config.activation,
        epsilon: config.layer_norm_epsilon,
        bias: true,
        affine: true,
        norm_first: false,
        causal: false,
    }
}
