//! BERT (Devlin et al., arXiv:1810.04805): a bidirectional encoder with absolute positions, segments and layer
//! normalisation after each block. The reference implementations are KerasHub's `BertBackbone` and
//! transformers' `BertModel`.

mod config;
mod heads;

use rachis_kernels::{Activation, Ctx, MatMut, MatRef};
use rachis_loader::Preset;

pub use config::BertConfig;
pub use heads::BertPretrainingHeads;

use crate::backbone::BackboneOf;
use crate::backbone::private::{Architecture, Forward};
use crate::config::Fields;
use crate::error::{Result, request};
use crate::layers::{
    AttentionConfig, AttentionNames, BlockConfig, BlockNames, Counting, Embedding, Embeddings,
    FeedForwardNames, Linear, Norm, NormKind, Order, PositionEmbedding, Positions, Room, Scene, Stack,
    matrix,
};
use crate::session::{self, Observer, Plan, SequenceOutput, Session, Workspace, carve};
use crate::session::{First, Tokens};
use crate::weights::Source;
use crate::weights::Tensors;

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
    /// mask says about it. `None` where the model has no such layer.
    pub pooled_output: Option<MatRef<'s, f32>>,
}

/// The BERT encoder. `forward` takes [`BertInputs`] and gives a [`BertOutput`].
pub type BertBackbone = BackboneOf<BertConfig>;

/// What a BERT encoder is made of.
#[derive(Debug)]
pub struct BertParts {
    stack: Stack,
    /// Masked language models and token classifiers of Hugging Face's have none.
    pooler: Option<Linear>,
    /// The most positions of a sequence.
    positions: usize,
    num_segments: usize,
}

/// What weights are called.
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
        attention: AttentionNames::Apart([
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

impl Architecture for BertConfig {
    type Parts = BertParts;

    fn read(preset: &Preset) -> Result<BertConfig> {
        BertConfig::from_preset(preset)
    }

    fn to_hugging_face(&self) -> Result<Fields> {
        self.to_hugging_face()
    }

    fn build(&self, source: &Source<'_>) -> Result<BertParts> {
        let config = self;
        config.validate()?;
        let (hidden, norm) = (config.hidden_dim, (NormKind::Layer, config.layer_norm_epsilon));
        let root = source.root(&["bert.", ""], "embeddings.word_embeddings.weight");
        let names = source.pick(&HUGGING_FACE, &KERAS);
        let table = |name: &str, rows| Embedding::load(&root.at(name), rows, hidden);
        let block = BlockConfig {
            attention: AttentionConfig::square(hidden, config.num_heads, true),
            inner: config.intermediate_dim,
            activation: config.activation,
            norm,
            order: Order::NormLast,
            causal: false,
        };
        let stack = Stack {
            embeddings: Embeddings {
                positions: Some(PositionEmbedding {
                    table: table(names.positions, config.max_sequence_length)?,
                    counting: Counting::Absolute,
                }),
                segments: Some(table(names.segments, config.num_segments)?),
                norm: Some(Norm::load(&root.at(names.norm), hidden, norm)?),
                ..Embeddings::of(table(names.tokens, config.vocabulary_size)?)
            },
            positions: Positions::Embedded,
            blocks: Stack::blocks(&root, (names.layer, 0, config.num_layers), &names.block, block)?,
            config: block,
            norm: None,
            projection: None,
        };
        let pooler = root.at(names.pooler);
        let has_pooler = source.pick(pooler.has("weight") || pooler.has("bias"), true);
        let pooler = has_pooler.then(|| Linear::load(&pooler, hidden, hidden, true)).transpose()?;
        let (positions, num_segments) = (config.max_sequence_length, config.num_segments);
        Ok(BertParts { stack, pooler, positions, num_segments })
    }
}

impl Forward for BertParts {
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

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = session::rows(batch, (seq, self.positions))?;
        let pooler = self.pooler.as_ref().map_or(0, |pooler| pooler.scratch_len(ctx, batch, 0));
        let plan = Plan::of(&self.stack, ctx, (rows, seq));
        let hidden = self.sizes(ctx, (rows, seq), batch).iter().sum();
        Ok(Plan { hidden, scratch: plan.scratch.max(pooler), ..plan })
    }

    fn run<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: BertInputs<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<BertOutput<'s>> {
        let Session { call: ctx, work, stop, .. } = session;
        self.prepare(work, inputs)?;
        let (rows, batch, hidden) = (work.rows.len(), work.rows.spans.len(), self.stack.hidden_dim());
        let sizes = self.sizes(ctx, (rows, work.rows.end()), batch);
        let [x, y, z, wide, positions, first, pooled] = carve(&mut work.hidden, sizes)?;
        let (tokens, segments) = (&work.rows, &work.segments);
        let threads = &mut work.threads;
        ctx.enter(|ctx| -> Result<()> {
            let room = Room { pieces: [&mut *x, y, z, wide, positions], threads, stop };
            self.stack.run(ctx, Scene { segments, ..Scene::of(tokens) }, room, observer)?;
            let Some(pooler) = &self.pooler else { return Ok(()) };
            let x = matrix(x, [rows, hidden])?;
            for (span, to) in tokens.spans.iter().zip(first.chunks_exact_mut(hidden)) {
                to.copy_from_slice(x.row(span.queries.start));
            }
            let (first, pooled) = (MatRef::new(first, batch, hidden)?, MatMut::new(pooled, batch, hidden)?);
            pooler.apply(ctx, &mut threads.caller.scratch, first, (Activation::Tanh, None), pooled)
        })?;
        let [x, .., pooled] = carve(&mut work.hidden, sizes)?;
        let x = matrix(x, [rows, hidden])?;
        Ok(BertOutput {
            sequence_output: SequenceOutput { data: x, rows: &work.rows },
            pooled_output: self.pooler.as_ref().map(|_| MatRef::new(pooled, batch, hidden)).transpose()?,
        })
    }
}

impl BertParts {
    /// Checks the inputs and lays out the rows to compute.
    fn prepare(&self, work: &mut Workspace, inputs: BertInputs<'_>) -> Result<()> {
        let num_segments = self.num_segments;
        let limits = (self.stack.vocabulary_size(), self.positions);
        work.rows.fill(inputs.tokens, limits, First::Always)?;
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

    /// Elements of the stack's pieces, of the first tokens and of the pooled output.
    fn sizes(&self, ctx: &Ctx, rows: (usize, usize), batch: usize) -> [usize; 7] {
        let [x, y, z, wide, positions] = self.stack.sizes(ctx, rows);
        let pooled = if self.pooler.is_some() { batch * self.stack.hidden_dim() } else { 0 };
        [x, y, z, wide, positions, pooled, pooled]
    }
}
