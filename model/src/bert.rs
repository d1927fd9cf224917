//! BERT (Devlin et al., arXiv:1810.04805): a bidirectional encoder with absolute positions, segments and layer
//! normalisation after each block. The reference implementations are KerasHub's `BertBackbone` and
//! transformers' `BertModel`.

mod config;
mod heads;

use std::path::Path;

use rachis_kernels::{
    Activation, Attention, Bias, Ctx, Elem, MatMut, MatRef, Precision, Span, attention,
    attention_scratch_len, bf16, reuse,
};
use rachis_loader::{Access, Preset};

pub use config::BertConfig;
pub use heads::BertPretrainingHeads;

use crate::config::DtypePolicy;
use crate::error::{Result, request};
use crate::layers::{Embedding, LayerNorm, Linear};
use crate::session::{Model, Plan, SequenceOutput, Session, Workspace};
use crate::tokens::Tokens;
use crate::weights::{Scope, Source};

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

/// Called with the number of a layer and its output; 0 is the input of the first layer.
pub type Observer<'o> = &'o mut (dyn FnMut(usize, SequenceOutput<'_>) + Send);

/// The BERT encoder.
#[derive(Debug)]
pub struct BertBackbone {
    config: BertConfig,
    dtype: DtypePolicy,
    token_embedding: Embedding,
    position_embedding: Embedding,
    segment_embedding: Embedding,
    embeddings_norm: LayerNorm,
    layers: Vec<Layer>,
    pooler: Linear,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

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
            embeddings_norm: LayerNorm::load(&embeddings.at("LayerNorm"), hidden, epsilon)?,
            layers: (0..config.num_layers)
                .map(|i| Layer::load(&encoder.at(i), &config))
                .collect::<Result<_>>()?,
            pooler: Linear::load(&root.at("pooler.dense"), hidden, hidden)?,
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
        let [x, _, _, _, pooled] = carve(work.hidden.take(sizes.iter().sum()), sizes);
        Ok(BertOutput {
            sequence_output: SequenceOutput { data: MatRef::new(x, rows, hidden)?, rows: &work.rows },
            pooled_output: MatRef::new(pooled, batch, hidden)?,
        })
    }

    /// Checks the inputs and lays out the rows to compute.
    fn prepare(&self, work: &mut Workspace, inputs: BertInputs<'_>) -> Result<()> {
        let BertConfig { vocabulary_size, max_sequence_length, num_segments, .. } = self.config;
        work.rows.fill(inputs.tokens, vocabulary_size, max_sequence_length)?;
        work.segments.clear();
        match inputs.segment_ids {
            None => work.segments.resize(work.rows.len(), 0),
            Some(segments) => {
                let (found, expected) = (segments.len(), inputs.tokens.ids().len());
                if found != expected {
                    return Err(request("length of segment_ids", found, expected));
                }
                work.segments.extend(work.rows.source.iter().map(|at| segments[*at as usize]));
                if let Some(segment) = work.segments.iter().find(|segment| **segment as usize >= num_segments)
                {
                    return Err(request("segment id", segment, format!("less than {num_segments}")));
                }
            }
        }
        Ok(())
    }

    /// Elements of x, y, the wide buffer, the first tokens and the pooled output.
    fn sizes(&self, rows: usize, batch: usize) -> [usize; 5] {
        let BertConfig { hidden_dim, intermediate_dim, .. } = self.config;
        let wide = (3 * hidden_dim).max(intermediate_dim);
        [rows * hidden_dim, rows * hidden_dim, rows * wide, batch * hidden_dim, batch * hidden_dim]
    }

    fn compute(&self, ctx: &Ctx, work: &mut Workspace, mut observer: Option<Observer<'_>>) -> Result<()> {
        let (rows, batch, hidden) = (work.rows.len(), work.rows.spans.len(), self.config.hidden_dim);
        let sizes = self.sizes(rows, batch);
        let [x, y, wide, first, pooled] = carve(work.hidden.take(sizes.iter().sum()), sizes);

        self.token_embedding.lookup(ctx, &work.rows.ids, MatMut::new(y, rows, hidden)?)?;
        self.position_embedding.add(ctx, &work.rows.positions, MatMut::new(y, rows, hidden)?)?;
        self.segment_embedding.add(ctx, &work.segments, MatMut::new(y, rows, hidden)?)?;
        self.embeddings_norm.apply(ctx, MatRef::new(y, rows, hidden)?, MatMut::new(x, rows, hidden)?)?;

        for i in 0..=self.layers.len() {
            if let Some(observe) = observer.as_mut() {
                observe(i, SequenceOutput { data: MatRef::new(x, rows, hidden)?, rows: &work.rows });
            }
            if let Some(layer) = self.layers.get(i) {
                let buffers = Buffers { x, y, wide, scratch: &mut work.scratch };
                match ctx.precision() {
                    Precision::Strict => layer.apply::<f32>(ctx, &self.config, &work.rows.spans, buffers)?,
                    Precision::Bf16 => layer.apply::<bf16>(ctx, &self.config, &work.rows.spans, buffers)?,
                }
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
        let limit = self.config.max_sequence_length;
        if seq > limit {
            return Err(request("sequence length", seq, format!("at most {limit}")));
        }
        let rows = batch.checked_mul(seq).filter(|rows| u32::try_from(*rows).is_ok());
        let rows = rows.ok_or_else(|| request("batch", batch, "at most 2^32 - 1 tokens in all"))?;
        let head_dim = self.config.hidden_dim / self.config.num_heads;
        let layers = self.layers.iter().flat_map(|layer| {
            [(&layer.query, 2), (&layer.attention_output, 0), (&layer.intermediate, 0), (&layer.output, 0)]
        });
        let products =
            layers.map(|(linear, others)| linear.scratch_len(ctx, rows, others)).max().unwrap_or(0);
        let scratch = products.max(attention_scratch_len(ctx, head_dim));
        let scratch = scratch.max(self.pooler.scratch_len(ctx, batch, 0));
        Ok(Plan { hidden: self.sizes(rows, batch).iter().sum(), scratch })
    }
}

/// A layer's working memory: its input and output, and two temporaries.
struct Buffers<'w> {
    x: &'w mut [f32],
    y: &'w mut [f32],
    wide: &'w mut [f32],
    scratch: &'w mut rachis_kernels::Scratch,
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &BertConfig) -> Result<Layer> {
        let (hidden, inner, epsilon) =
            (config.hidden_dim, config.intermediate_dim, config.layer_norm_epsilon);
        let attention = scope.at("attention");
        Ok(Layer {
            query: Linear::load(&attention.at("self.query"), hidden, hidden)?,
            key: Linear::load(&attention.at("self.key"), hidden, hidden)?,
            value: Linear::load(&attention.at("self.value"), hidden, hidden)?,
            attention_output: Linear::load(&attention.at("output.dense"), hidden, hidden)?,
            attention_norm: LayerNorm::load(&attention.at("output.LayerNorm"), hidden, epsilon)?,
            intermediate: Linear::load(&scope.at("intermediate.dense"), hidden, inner)?,
            output: Linear::load(&scope.at("output.dense"), inner, hidden)?,
            output_norm: LayerNorm::load(&scope.at("output.LayerNorm"), hidden, epsilon)?,
        })
    }

    /// `x = norm(x + attention(x)); x = norm(x + feed_forward(x))`
    ///
    /// What is used in products only, which round it to the context's precision anyway, is stored as `T`.
    fn apply<T: Elem>(
        &self,
        ctx: &Ctx,
        config: &BertConfig,
        spans: &[Span],
        buffers: Buffers<'_>,
    ) -> Result<()> {
        let Buffers { x, y, wide, scratch } = buffers;
        let (hidden, inner) = (config.hidden_dim, config.intermediate_dim);
        let rows = x.len() / hidden;

        let projected = &mut reuse::<T>(wide)[..rows * 3 * hidden];
        let (input, out) = (MatRef::new(x, rows, hidden)?, MatMut::new(projected, rows, 3 * hidden)?);
        Linear::apply_all([&self.query, &self.key, &self.value], ctx, scratch, input, out)?;
        let projected = MatRef::new(projected, rows, 3 * hidden)?;
        attention(
            ctx,
            scratch,
            Attention {
                q: projected.columns(0, hidden)?,
                k: projected.columns(hidden, hidden)?,
                v: projected.columns(2 * hidden, hidden)?,
                heads: config.num_heads,
                kv_heads: config.num_heads,
                bias: Bias::None,
                causal: false,
                scale: 1.0 / ((hidden / config.num_heads) as f32).sqrt(),
                spans,
                out: MatMut::new(&mut reuse::<T>(y)[..rows * hidden], rows, hidden)?,
            },
        )?;
        let residual = (Activation::Identity, Some(MatRef::new(x, rows, hidden)?));
        let mixed = MatRef::new(&reuse::<T>(y)[..rows * hidden], rows, hidden)?;
        let summed = &mut wide[..rows * hidden];
        self.attention_output.apply(ctx, scratch, mixed, residual, MatMut::new(summed, rows, hidden)?)?;
        self.attention_norm.apply(ctx, MatRef::new(summed, rows, hidden)?, MatMut::new(x, rows, hidden)?)?;

        let wide = &mut reuse::<T>(wide)[..rows * inner];
        let (input, activation) = (MatRef::new(x, rows, hidden)?, (config.activation, None));
        self.intermediate.apply(ctx, scratch, input, activation, MatMut::new(wide, rows, inner)?)?;
        let residual = (Activation::Identity, Some(MatRef::new(x, rows, hidden)?));
        let wide = MatRef::new(wide, rows, inner)?;
        self.output.apply(ctx, scratch, wide, residual, MatMut::new(y, rows, hidden)?)?;
        self.output_norm.apply(ctx, MatRef::new(y, rows, hidden)?, MatMut::new(x, rows, hidden)?)
    }
}

/// Cuts the front of `buffer` into pieces of the given lengths.
fn carve<const N: usize>(buffer: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = buffer;
    lengths.map(|len| {
        let piece;
        (piece, rest) = std::mem::take(&mut rest).split_at_mut(len);
        piece
    })
}
