//! BERT (Devlin et al., arXiv:1810.04805): a bidirectional encoder with absolute positions and segments. The reference
//! implementations are KerasHub's `BertBackbone` and transformers' `BertModel`.
//!
//! ```text
//! x = LayerNorm(E_token[id] + E_segment[segment] + E_position[position])
//! for each layer:
//!     x = LayerNorm(x + MultiHead(x, x, x))
//!     x = LayerNorm(x + FFN(x)),                FFN(x) = gelu(x W1 + b1) W2 + b2
//! sequence_output = x,   pooled_output = tanh(x[CLS] Wp + bp)
//! MultiHead(q, k, v) = Concat(head_1, ..., head_h) Wo,
//!     head_i = softmax(q Wq_i (k Wk_i)^T / sqrt(d_head)) v Wv_i
//! ```

mod config;
mod heads;

use rachis_kernels::{Activation, AttentionMask, Ctx, MatMut, MatRef};
use rachis_loader::Preset;

pub use config::BertConfig;
pub(crate) use heads::load as load_heads;

use crate::backbone::BackboneOf;
use crate::backbone::private::{Architecture, Network};
use crate::config::Fields;
use crate::error::{RequestError, Result, check_len};
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Embedding, Embeddings, Epilogue,
    FeedForwardNames, LayerRange, Linear, Norm, NormConfig, NormKind, NormPlacement, PositionCount,
    PositionEmbedding, Positions, Stack, StackBuffers, StackInput, StackSizes, StackWorkspace, matrix,
};
use crate::session::{
    Extent, First, Limits, Observer, SequenceOutput, Session, Tokens, Workspace, WorkspacePlan, take_front,
};
use crate::weights::{Tensors, WeightSource, first_held};

/// The inputs of a [`BertBackbone`]. The padding mask is part of the tokens.
#[derive(Debug, Clone, Copy)]
pub struct BertInputs<'a> {
    /// `token_ids` and `padding_mask`.
    pub tokens: Tokens<'a>,
    /// A segment id for each token id, in the same shape. `None` is all zeros.
    pub segment_ids: Option<&'a [u32]>,
}

/// The outputs of a [`BertBackbone`], in the session's memory.
#[derive(Debug, Clone, Copy)]
pub struct BertOutput<'s> {
    /// A vector for every token.
    pub sequence_output: SequenceOutput<'s>,
    /// `[batch, hidden_dim]`: tanh of a dense layer on the vector of the first position of each sequence, whatever the
    /// mask says about that position. `None` where the model has no such layer.
    pub pooled_output: Option<MatRef<'s, f32>>,
}

/// The BERT encoder. `forward` takes [`BertInputs`] and gives a [`BertOutput`].
pub type BertBackbone = BackboneOf<BertConfig>;

/// The layers of a BERT encoder.
#[derive(Debug)]
pub struct BertNetwork {
    stack: Stack,
    /// Hugging Face's masked language models and token classifiers have none.
    pooler: Option<Linear>,
    /// The largest number of positions of a sequence.
    positions: usize,
    num_segments: usize,
}

/// The names of weights.
struct Names {
    tokens: &'static str,
    positions: &'static str,
    segments: &'static str,
    norm: &'static str,
    layer: &'static str,
    block: BlockNames,
    pooler: &'static str,
}

const HUGGING_FACE: Names = Names {
    tokens: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    segments: "embeddings.token_type_embeddings",
    norm: "embeddings.LayerNorm",
    layer: "encoder.layer",
    block: BlockNames {
        attention: AttentionNames::Separate([
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ]),
        attention_norm: "attention.output.LayerNorm",
        cross: None,
        feed_forward: FeedForwardNames { input: "intermediate.dense", gate: None, output: "output.dense" },
        feed_forward_norm: Some("output.LayerNorm"),
    },
    pooler: "pooler.dense",
};

const KERAS: Names = Names {
    tokens: "reversible_embedding",
    positions: "position_embedding",
    segments: "embedding",
    norm: "layer_normalization",
    layer: "transformer_encoder",
    block: BlockNames::KERAS,
    pooler: "dense",
};

/// Lengths of the buffers of a forward pass, in elements of f32.
#[derive(Debug, Clone, Copy)]
struct BertSizes {
    stack: StackSizes,
    /// The vectors of the first positions, and as many for the pooled output.
    pooled: usize,
}

/// The buffers of a forward pass.
struct BertBuffers<'w> {
    stack: StackBuffers<'w>,
    first: &'w mut [f32],
    pooled: &'w mut [f32],
}

impl BertSizes {
    fn total(&self) -> usize {
        self.stack.total().saturating_add(self.pooled).saturating_add(self.pooled)
    }

    /// The buffers, one after another, at the front of `memory`.
    fn carve<'w>(&self, mut memory: &'w mut [f32]) -> BertBuffers<'w> {
        BertBuffers {
            stack: self.stack.take(&mut memory),
            first: take_front(&mut memory, self.pooled),
            pooled: take_front(&mut memory, self.pooled),
        }
    }
}

impl Architecture for BertConfig {
    type Network = BertNetwork;

    fn read(preset: &Preset) -> Result<BertConfig> {
        BertConfig::from_preset(preset)
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &WeightSource<'_>) -> Result<BertNetwork> {
        let config = self;
        config.validate()?;
        let hidden = config.hidden_dim;
        let norm = NormConfig { kind: NormKind::Layer, epsilon: config.layer_norm_epsilon };
        let root = source.root(&["bert.", ""], "embeddings.position_embeddings.weight");
        let names = source.pick(&HUGGING_FACE, &KERAS);
        let table = |name: &str, rows| Embedding::load(&root.at(name), rows, hidden);
        let head = config.tie_embedding_weights.then(|| root.at_root(heads::MATRIX));
        let tokens =
            Embedding::load(&first_held(root.at(names.tokens), head), config.vocabulary_size, hidden)?;
        let block = BlockConfig {
            attention: AttentionConfig::standard(hidden, config.num_heads, true),
            intermediate: config.intermediate_dim,
            activation: config.activation,
            norm,
            placement: NormPlacement::Post,
            mask: AttentionMask::None,
        };
        let layers = LayerRange { name: names.layer, first: 0, count: config.num_layers };
        let stack = Stack {
            embeddings: Embeddings {
                positions: Some(PositionEmbedding {
                    table: table(names.positions, config.max_sequence_length)?,
                    count: PositionCount::All,
                }),
                segments: Some(table(names.segments, config.num_segments)?),
                norm: Some(Norm::load(&root.at(names.norm), hidden, norm)?),
                ..Embeddings::of(tokens)
            },
            positions: Positions::Embedded,
            blocks: Stack::blocks(&root, layers, &names.block, block)?,
            config: block,
            norm: None,
            projection: None,
        };
        let pooler = root.at(names.pooler);
        let has_pooler = source.pick(pooler.has("weight") || pooler.has("bias"), true);
        let pooler = has_pooler.then(|| Linear::load(&pooler, hidden, hidden, true)).transpose()?;
        let (positions, num_segments) = (config.max_sequence_length, config.num_segments);
        Ok(BertNetwork { stack, pooler, positions, num_segments })
    }
}

impl Network for BertNetwork {
    type Inputs<'a> = BertInputs<'a>;
    type Output<'s> = BertOutput<'s>;
    type Observer<'o> = Observer<'o>;

    fn token_embedding(&self) -> &Embedding {
        &self.stack.embeddings.tokens
    }

    fn save<'m>(&'m self, like: &'m Self, tensors: &mut Tensors<'m>) {
        self.stack.save(&like.stack, tensors);
        if let (Some(pooler), Some(like)) = (&self.pooler, &like.pooler) {
            pooler.save(like, tensors);
        }
    }

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan> {
        let extent = Extent::of_batch(batch, seq, self.positions)?;
        let pooler = self.pooler.as_ref().map_or(0, |pooler| pooler.scratch_len(ctx, batch, 0));
        let plan = WorkspacePlan::of(&self.stack, ctx, extent);
        let activations = self.sizes(ctx, extent, batch).total();
        Ok(WorkspacePlan { activations, scratch: plan.scratch.max(pooler), ..plan })
    }

    fn run<'s>(
        &self,
        ctx: &Ctx,
        session: &'s mut Session<'_>,
        inputs: BertInputs<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<BertOutput<'s>> {
        let Session { work, stop, .. } = session;
        self.prepare(work, inputs)?;
        let (rows, batch, hidden) = (work.rows.len(), work.rows.spans.len(), self.stack.hidden_dim());
        let sizes = self.sizes(ctx, work.rows.extent(), batch);
        let BertBuffers { mut stack, first, pooled } = sizes.carve(work.activations.take(sizes.total())?);
        let (layout, segments) = (&work.rows, &work.segments);
        let threads = &mut work.threads;
        ctx.enter(|ctx| -> Result<()> {
            let workspace = StackWorkspace { buffers: stack.reborrow(), threads, stop };
            self.stack.run(ctx, StackInput { segments, ..StackInput::of(layout) }, workspace, observer)?;
            let Some(pooler) = &self.pooler else { return Ok(()) };
            let states = matrix(stack.states, [rows, hidden])?;
            for (span, to) in layout.spans.iter().zip(first.chunks_exact_mut(hidden)) {
                to.copy_from_slice(states.row(span.queries.start));
            }
            let (first, pooled) = (MatRef::new(first, batch, hidden)?, MatMut::new(pooled, batch, hidden)?);
            let scratch = &mut threads.caller.scratch;
            pooler.apply(ctx, scratch, first, Epilogue::activation(Activation::Tanh), pooled)
        })?;
        let BertBuffers { stack, pooled, .. } = sizes.carve(work.activations.take(sizes.total())?);
        let data = matrix(stack.states, [rows, hidden])?;
        Ok(BertOutput {
            sequence_output: SequenceOutput { data, rows: &work.rows },
            pooled_output: self.pooler.as_ref().map(|_| MatRef::new(pooled, batch, hidden)).transpose()?,
        })
    }
}

impl BertBackbone {
    /// Whether the model has the layer of the pooled output.
    pub fn has_pooler(&self) -> bool {
        self.network().pooler.is_some()
    }
}

impl BertNetwork {
    /// Checks the inputs and lays out the rows to compute.
    fn prepare(&self, work: &mut Workspace, inputs: BertInputs<'_>) -> Result<()> {
        let limits = Limits { vocabulary: self.stack.vocabulary_size(), positions: self.positions };
        work.rows.fill(inputs.tokens, limits, First::Always)?;
        work.segments.clear();
        match inputs.segment_ids {
            None => work.segments.resize(work.rows.len(), 0),
            Some(segments) => {
                check_len("segment_ids", segments.len(), inputs.tokens.ids().len())?;
                work.segments.extend(work.rows.id_index.iter().map(|at| segments[*at as usize]));
                let num_segments = self.num_segments;
                if let Some(id) = work.segments.iter().copied().find(|id| *id as usize >= num_segments) {
                    return Err(RequestError::SegmentId { id, num_segments }.into());
                }
            }
        }
        Ok(())
    }

    fn sizes(&self, ctx: &Ctx, extent: Extent, batch: usize) -> BertSizes {
        let pooled = if self.pooler.is_some() { batch * self.stack.hidden_dim() } else { 0 };
        BertSizes { stack: self.stack.sizes(ctx, extent), pooled }
    }
}
