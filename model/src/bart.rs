//! BART (Lewis et al., arXiv:1910.13461): an encoder and a causal decoder that attends to it, with learned positions
//! and normalisation after each block. The reference implementations are KerasHub's `BartBackbone` and transformers'
//! `BartModel`.

mod config;

use std::path::Path;

use rachis_kernels::{Ctx, MatMut, MatRef, Span};
use rachis_loader::{Access, Preset};

pub use config::BartConfig;

use crate::config::{DtypePolicy, unused_positions};
use crate::error::{Result, request};
use crate::layers::{Block, BlockConfig, BlockNames, Buffers, Embedding, LayerNorm, Linear, Memory};
use crate::session::{Model, Plan, SequenceOutput, Session, Tower, TowerObserver, Workspace, carve};
use crate::tokens::{First, Rows, Tokens};
use crate::weights::{Init, Scope, Source};

/// The inputs of a [`BartBackbone`], as many sequences in each; the padding masks are part of the tokens.
#[derive(Debug, Clone, Copy)]
pub struct BartInputs<'a> {
    /// `encoder_token_ids` and `encoder_padding_mask`.
    pub encoder: Tokens<'a>,
    /// `decoder_token_ids` and `decoder_padding_mask`.
    pub decoder: Tokens<'a>,
}

/// The outputs of a [`BartBackbone`], in the session's memory.
#[derive(Debug, Clone, Copy)]
pub struct BartOutput<'s> {
    /// A vector for every token of the encoder.
    pub encoder_sequence_output: SequenceOutput<'s>,
    /// A vector for every token of the decoder.
    pub decoder_sequence_output: SequenceOutput<'s>,
}

/// The BART encoder and decoder.
#[derive(Debug)]
pub struct BartBackbone {
    config: BartConfig,
    dtype: DtypePolicy,
    token_embedding: Embedding,
    encoder: Stack,
    decoder: Stack,
    logits: Linear,
}

/// The encoder or the decoder.
#[derive(Debug)]
struct Stack {
    position_embedding: Embedding,
    embeddings_norm: LayerNorm,
    layers: Vec<Block>,
    block: BlockConfig,
}

const SELF_ATTENTION: [&str; 4] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"];
const CROSS_ATTENTION: [&str; 4] =
    ["encoder_attn.q_proj", "encoder_attn.k_proj", "encoder_attn.v_proj", "encoder_attn.out_proj"];

const ENCODER: BlockNames = BlockNames {
    attention: SELF_ATTENTION,
    attention_norm: "self_attn_layer_norm",
    cross: None,
    feed_forward: ["fc1", "fc2"],
    feed_forward_norm: "final_layer_norm",
};
const DECODER: BlockNames =
    BlockNames { cross: Some((CROSS_ATTENTION, "encoder_attn_layer_norm")), ..ENCODER };

/// Of every norm; no configuration has another.
const EPSILON: f32 = 1e-5;

impl BartBackbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`BartBackbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<BartBackbone> {
        BartBackbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`BartBackbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<BartBackbone> {
        let (config, dtype) = (BartConfig::from_preset(preset)?, DtypePolicy::of(preset.config())?);
        let has_bias = preset.tensor("final_logits_bias").is_some();
        BartBackbone::build(config, dtype, (unused_positions(preset), has_bias), &Source::Preset(preset))
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have.
    pub fn random(config: BartConfig, seed: u64) -> Result<BartBackbone> {
        BartBackbone::build(config, DtypePolicy::Float32, (0, false), &Source::random(seed))
    }

    fn build(
        config: BartConfig,
        dtype: DtypePolicy,
        (unused_positions, has_logits_bias): (usize, bool),
        source: &Source<'_>,
    ) -> Result<BartBackbone> {
        config.validate()?;
        let (hidden, vocabulary) = (config.hidden_dim, config.vocabulary_size);
        let root = source.scope(source.prefix(&["model.", ""], "shared.weight"));
        let table = Embedding::load(&root.at("shared"), vocabulary, hidden)?;
        let bias = || source.scope("").weight("final_logits_bias", &[1, vocabulary], Init::Zeros);
        let logits = Linear::tied(table.weight(), has_logits_bias.then(bias).transpose()?);
        let scale = if config.scale_embedding { (hidden as f32).sqrt() } else { 1.0 };
        let block = BlockConfig {
            hidden,
            inner: config.intermediate_dim,
            heads: config.num_heads,
            activation: config.activation,
            epsilon: EPSILON,
            bias: true,
            affine: true,
            norm_first: false,
            causal: false,
        };
        let positions = (unused_positions, config.max_sequence_length);
        let encoder = Stack::load(&root.at("encoder"), &ENCODER, (positions, config.num_layers), block)?;
        let block = BlockConfig {
            inner: config.decoder_intermediate_dim,
            heads: config.decoder_num_heads,
            causal: true,
            ..block
        };
        let layers = config.decoder_num_layers;
        let decoder = Stack::load(&root.at("decoder"), &DECODER, (positions, layers), block)?;
        Ok(BartBackbone { token_embedding: table.scaled(scale), encoder, decoder, logits, config, dtype })
    }

    /// The configuration.
    pub fn config(&self) -> &BartConfig {
        &self.config
    }

    /// The dtype policy that the preset states.
    pub fn dtype(&self) -> DtypePolicy {
        self.dtype
    }

    /// The table of token vectors, which is also that of the logits.
    pub fn token_embedding(&self) -> &Embedding {
        &self.token_embedding
    }

    /// One forward pass of encoder and decoder.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: BartInputs<'_>,
    ) -> Result<BartOutput<'s>> {
        self.forward_observed(session, inputs, None)
    }

    /// One forward pass that shows every layer's output to `observer`.
    ///
    /// # Errors
    /// As [`BartBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: BartInputs<'_>,
        observer: Option<TowerObserver<'_>>,
    ) -> Result<BartOutput<'s>> {
        let Session { ctx, work } = session;
        self.prepare(work, inputs)?;
        ctx.enter(|| self.compute(ctx, work, observer))?;
        let (hidden, from, to) = (self.config.hidden_dim, work.source.len(), work.rows.len());
        let sizes = self.sizes(from, to);
        let [source, x, ..] = carve(&mut work.hidden, sizes);
        Ok(BartOutput {
            encoder_sequence_output: SequenceOutput {
                data: MatRef::new(source, from, hidden)?,
                rows: &work.source,
            },
            decoder_sequence_output: SequenceOutput {
                data: MatRef::new(&x[..to * hidden], to, hidden)?,
                rows: &work.rows,
            },
        })
    }

    /// Logits `[rows, vocabulary_size]` of rows of the decoder's output, copied out of the session first: all of
    /// them, or only those that are needed, such as the last of each sequence.
    ///
    /// # Errors
    /// Shapes that disagree.
    pub fn logits(&self, session: &mut Session<'_>, rows: MatRef<'_, f32>, logits: &mut [f32]) -> Result<()> {
        self.logits.logits(session, rows, logits)
    }

    /// Checks the inputs and lays out the rows to compute.
    fn prepare(&self, work: &mut Workspace, inputs: BartInputs<'_>) -> Result<()> {
        let limits = (self.config.vocabulary_size, self.config.max_sequence_length);
        let (from, to) = (inputs.encoder.batch(), inputs.decoder.batch());
        if from != to {
            return Err(request("sequences of the decoder", to, format!("{from}, as in the encoder")));
        }
        work.source.fill(inputs.encoder, limits, First::IfReal)?;
        work.rows.fill(inputs.decoder, limits, First::IfReal)?;
        work.cross.clear();
        let spans = work.rows.spans.iter().zip(&work.source.spans);
        work.cross
            .extend(spans.map(|(to, from)| Span { queries: to.queries.clone(), keys: from.keys.clone() }));
        Ok(())
    }

    /// Elements of the encoder's output, of x, y, z and the wide buffer, and of keys and values of the encoder.
    fn sizes(&self, from: usize, to: usize) -> [usize; 6] {
        let encoder = Block::sizes(&self.encoder.block, from);
        let decoder = Block::sizes(&self.decoder.block, to);
        let [x, y, z, wide]: [usize; 4] = std::array::from_fn(|i| encoder[i].max(decoder[i]));
        let source = from * self.config.hidden_dim;
        [source, x, y, z, wide, 2 * source]
    }

    fn compute(
        &self,
        ctx: &Ctx,
        work: &mut Workspace,
        mut observer: Option<TowerObserver<'_>>,
    ) -> Result<()> {
        let (hidden, from, to) = (self.config.hidden_dim, work.source.len(), work.rows.len());
        let sizes = self.sizes(from, to);
        let [source, x, y, z, wide, projected] = carve(&mut work.hidden, sizes);
        let scratch = &mut work.scratch;
        let table = &self.token_embedding;

        let (y_from, z_from) = (&mut y[..from * hidden], &mut z[..from * hidden]);
        self.encoder.embed(ctx, table, &work.source, (&mut *source, &mut *y_from))?;
        for i in 0..=self.encoder.layers.len() {
            if let Some(observe) = observer.as_mut() {
                let states = SequenceOutput { data: MatRef::new(source, from, hidden)?, rows: &work.source };
                observe(Tower::Encoder, i, states);
            }
            if let Some(layer) = self.encoder.layers.get(i) {
                let buffers = Buffers { x: source, y: y_from, z: z_from, wide, scratch };
                layer.apply(ctx, &work.source.spans, None, buffers)?;
            }
        }

        let (x, y, z) = (&mut x[..to * hidden], &mut y[..to * hidden], &mut z[..to * hidden]);
        self.decoder.embed(ctx, table, &work.rows, (&mut *x, &mut *y))?;
        for i in 0..=self.decoder.layers.len() {
            if let Some(observe) = observer.as_mut() {
                let states = SequenceOutput { data: MatRef::new(x, to, hidden)?, rows: &work.rows };
                observe(Tower::Decoder, i, states);
            }
            if let Some(layer) = self.decoder.layers.get(i) {
                let states = MatRef::new(source, from, hidden)?;
                let memory = Memory { states, spans: &work.cross, projected };
                let buffers = Buffers { x, y, z, wide, scratch };
                layer.apply(ctx, &work.rows.spans, Some(memory), buffers)?;
            }
        }
        Ok(())
    }
}

impl Stack {
    fn load(
        scope: &Scope<'_>,
        names: &BlockNames,
        ((unused, positions), layers): ((usize, usize), usize),
        block: BlockConfig,
    ) -> Result<Stack> {
        let hidden = block.hidden;
        Ok(Stack {
            position_embedding: Embedding::load_after(
                &scope.at("embed_positions"),
                unused,
                positions,
                hidden,
            )?,
            embeddings_norm: LayerNorm::load(&scope.at("layernorm_embedding"), hidden, EPSILON, true)?,
            layers: (0..layers)
                .map(|i| Block::load(&scope.at("layers").at(i), names, block))
                .collect::<Result<_>>()?,
            block,
        })
    }

    /// The input of the first layer, in x; y is used on the way.
    fn embed(
        &self,
        ctx: &Ctx,
        table: &Embedding,
        rows: &Rows,
        (x, y): (&mut [f32], &mut [f32]),
    ) -> Result<()> {
        let (count, hidden) = (rows.len(), self.block.hidden);
        table.lookup(ctx, &rows.ids, MatMut::new(y, count, hidden)?)?;
        self.position_embedding.add(ctx, &rows.positions, MatMut::new(y, count, hidden)?)?;
        self.embeddings_norm.apply(ctx, MatRef::new(y, count, hidden)?, MatMut::new(x, count, hidden)?)
    }
}

impl Model for BartBackbone {
    /// For sequences of up to `seq` tokens in the encoder and as many in the decoder.
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = crate::session::rows(batch, (seq, self.config.max_sequence_length))?;
        let first = self.encoder.layers.first().into_iter().chain(self.decoder.layers.first());
        let scratch = first.map(|layer| layer.scratch_len(ctx, rows)).fold(0, usize::max);
        Ok(Plan { hidden: self.sizes(rows, rows).iter().sum(), scratch })
    }
}
