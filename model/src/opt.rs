//! OPT (Zhang et al., arXiv:2205.01068): a causal decoder with learned positions. The reference implementations are
//! KerasHub's `OPTBackbone` and transformers' `OPTModel`.

mod config;

use std::path::Path;

use rachis_kernels::{Activation, Ctx, MatMut, MatRef};
use rachis_loader::{Access, Preset};

pub use config::{OptConfig, OptPositions};

use crate::config::{DtypePolicy, unused_positions};
use crate::error::Result;
use crate::layers::{Block, BlockConfig, BlockNames, Buffers, Embedding, LayerNorm, Linear};
use crate::session::{Model, Observer, Plan, SequenceOutput, Session, Workspace, carve};
use crate::tokens::{First, Tokens};
use crate::weights::Source;

/// The inputs of an [`OptBackbone`]; the padding mask is part of the tokens.
#[derive(Debug, Clone, Copy)]
pub struct OptInputs<'a> {
    /// `token_ids` and `padding_mask`.
    pub tokens: Tokens<'a>,
}

/// The OPT decoder.
#[derive(Debug)]
pub struct OptBackbone {
    config: OptConfig,
    dtype: DtypePolicy,
    token_embedding: Embedding,
    position_embedding: Embedding,
    project_in: Option<Linear>,
    layers: Vec<Block>,
    final_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
    logits: Linear,
}

const NAMES: BlockNames = BlockNames {
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    attention_norm: "self_attn_layer_norm",
    cross: None,
    feed_forward: ["fc1", "fc2"],
    feed_forward_norm: "final_layer_norm",
};

/// Of every norm; no configuration has another.
const EPSILON: f32 = 1e-5;

impl OptBackbone {
    /// The model in a preset directory, its weights memory-mapped.
    ///
    /// The files must not be truncated or written in place while the model lives; see [`Access::Map`], and
    /// [`OptBackbone::load`] for presets opened otherwise.
    ///
    /// # Errors
    /// A file that is missing or malformed, another architecture, a weight that is missing or misshapen.
    pub fn from_preset(dir: impl AsRef<Path>) -> Result<OptBackbone> {
        OptBackbone::load(&Preset::open(dir, Access::Map)?)
    }

    /// The model in an opened preset, which it shares rather than copies.
    ///
    /// # Errors
    /// As [`OptBackbone::from_preset`].
    pub fn load(preset: &Preset) -> Result<OptBackbone> {
        let config = OptConfig::from_preset(preset)?;
        let unused_positions = unused_positions(preset);
        OptBackbone::build(
            config,
            DtypePolicy::of(preset.config())?,
            unused_positions,
            &Source::Preset(preset),
        )
    }

    /// A model of this configuration with random weights: kernels and embeddings truncated normal with standard
    /// deviation 0.02, biases zero. The same seed gives the same model.
    ///
    /// # Errors
    /// A configuration that no model can have.
    pub fn random(config: OptConfig, seed: u64) -> Result<OptBackbone> {
        OptBackbone::build(config, DtypePolicy::Float32, 0, &Source::random(seed))
    }

    fn build(
        config: OptConfig,
        dtype: DtypePolicy,
        unused_positions: usize,
        source: &Source<'_>,
    ) -> Result<OptBackbone> {
        config.validate()?;
        let (hidden, width, affine) = (config.hidden_dim, config.embedding_dim, config.norm_affine);
        let root = source.scope(source.prefix(&["model.decoder.", "decoder.", ""], "embed_tokens.weight"));
        let token_embedding = Embedding::load(&root.at("embed_tokens"), config.vocabulary_size, width)?;
        let projection = |name: &str, from, to| {
            (width != hidden).then(|| Linear::load(&root.at(name), from, to, false)).transpose()
        };
        let final_norm = || LayerNorm::load(&root.at("final_layer_norm"), hidden, EPSILON, affine);
        Ok(OptBackbone {
            position_embedding: Embedding::load_after(
                &root.at("embed_positions"),
                unused_positions,
                config.max_sequence_length,
                hidden,
            )?,
            project_in: projection("project_in", width, hidden)?,
            layers: (0..config.num_layers)
                .map(|i| Block::load(&root.at("layers").at(i), &NAMES, block(&config)))
                .collect::<Result<_>>()?,
            final_norm: config.norm_first.then(final_norm).transpose()?,
            project_out: projection("project_out", hidden, width)?,
            logits: Linear::tied(token_embedding.weight(), None),
            token_embedding,
            config,
            dtype,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &OptConfig {
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

    /// One forward pass: a vector of `embedding_dim` for every token.
    ///
    /// # Errors
    /// [`crate::Error::Request`] when the inputs do not fit the model; nothing is computed then.
    pub fn forward<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: OptInputs<'_>,
    ) -> Result<SequenceOutput<'s>> {
        self.forward_observed(session, inputs, None)
    }

    /// One forward pass that shows every layer's output, of width `hidden_dim`, to `observer`.
    ///
    /// # Errors
    /// As [`OptBackbone::forward`].
    pub fn forward_observed<'s>(
        &self,
        session: &'s mut Session<'_>,
        inputs: OptInputs<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<SequenceOutput<'s>> {
        let Session { ctx, work } = session;
        let OptConfig { vocabulary_size, max_sequence_length, .. } = self.config;
        work.rows.fill(inputs.tokens, (vocabulary_size, max_sequence_length), First::IfReal)?;
        self.index_positions(work);
        ctx.enter(|| self.compute(ctx, work, observer))?;
        let (rows, width) = (work.rows.len(), self.config.embedding_dim);
        let sizes = self.sizes(rows);
        let [x, y, ..] = carve(&mut work.hidden, sizes);
        let output = if self.project_out.is_some() { y } else { x };
        Ok(SequenceOutput { data: MatRef::new(&output[..rows * width], rows, width)?, rows: &work.rows })
    }

    /// Logits `[rows, vocabulary_size]` of rows of the output, copied out of the session first: all of them, or only
    /// those that are needed, such as the last of each sequence.
    ///
    /// # Errors
    /// Shapes that disagree.
    pub fn logits(&self, session: &mut Session<'_>, rows: MatRef<'_, f32>, logits: &mut [f32]) -> Result<()> {
        self.logits.logits(session, rows, logits)
    }

    /// The position of every token.
    fn index_positions(&self, work: &mut Workspace) {
        let Workspace { rows, indices, .. } = work;
        indices.clear();
        for span in &rows.spans {
            for (count, row) in span.queries.clone().enumerate() {
                let position = match self.config.positions {
                    OptPositions::Absolute => rows.positions[row],
                    OptPositions::Counted => count as u32,
                };
                indices.push(position);
            }
        }
    }

    /// Elements of x, y, z and the wide buffer. x, y and the wide one also hold vectors as wide as the table's.
    fn sizes(&self, rows: usize) -> [usize; 4] {
        let [x, y, z, wide] = Block::sizes(&block(&self.config), rows);
        let table = rows * self.config.embedding_dim;
        [x.max(table), y.max(table), z, wide.max(table)]
    }

    fn compute(&self, ctx: &Ctx, work: &mut Workspace, mut observer: Option<Observer<'_>>) -> Result<()> {
        let (rows, hidden, width) = (work.rows.len(), self.config.hidden_dim, self.config.embedding_dim);
        let sizes = self.sizes(rows);
        let [table_x, table_y, z, table_wide] = carve(&mut work.hidden, sizes);
        let scratch = &mut work.scratch;
        let plain = (Activation::Identity, None);

        let x = &mut table_x[..rows * hidden];
        match &self.project_in {
            None => self.token_embedding.lookup(ctx, &work.rows.ids, MatMut::new(x, rows, hidden)?)?,
            Some(project_in) => {
                let narrow = &mut table_y[..rows * width];
                self.token_embedding.lookup(ctx, &work.rows.ids, MatMut::new(narrow, rows, width)?)?;
                let narrow = MatRef::new(narrow, rows, width)?;
                project_in.apply(ctx, scratch, narrow, plain, MatMut::new(x, rows, hidden)?)?;
            }
        }
        self.position_embedding.add(ctx, &work.indices, MatMut::new(x, rows, hidden)?)?;

        for i in 0..=self.layers.len() {
            if let Some(observe) = observer.as_mut() {
                observe(i, SequenceOutput { data: MatRef::new(x, rows, hidden)?, rows: &work.rows });
            }
            if let Some(layer) = self.layers.get(i) {
                let (y, wide) = (&mut table_y[..rows * hidden], &mut *table_wide);
                layer.apply(ctx, &work.rows.spans, None, Buffers { x, y, z, wide, scratch })?;
            }
        }

        if let Some(norm) = &self.final_norm {
            let normed = &mut z[..rows * hidden];
            normed.copy_from_slice(x);
            norm.apply(ctx, MatRef::new(normed, rows, hidden)?, MatMut::new(x, rows, hidden)?)?;
        }
        if let Some(project_out) = &self.project_out {
            let out = MatMut::new(&mut table_y[..rows * width], rows, width)?;
            project_out.apply(ctx, scratch, MatRef::new(x, rows, hidden)?, plain, out)?;
        }
        Ok(())
    }
}

impl Model for OptBackbone {
    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = crate::session::rows(batch, (seq, self.config.max_sequence_length))?;
        let layers = self.layers.first().map_or(0, |layer| layer.scratch_len(ctx, rows));
        let projections = self.project_in.iter().chain(&self.project_out);
        let projections = projections.map(|projection| projection.scratch_len(ctx, rows, 0));
        let scratch = projections.fold(layers, usize::max);
        Ok(Plan { hidden: self.sizes(rows).iter().sum(), scratch })
    }
}

/// The configuration of every layer.
fn block(config: &OptConfig) -> BlockConfig {
    BlockConfig {
        hidden: config.hidden_dim,
        inner: config.intermediate_dim,
        heads: config.num_heads,
        activation: config.activation,
        epsilon: EPSILON,
        bias: config.use_bias,
        affine: config.norm_affine,
        norm_first: config.norm_first,
        causal: true,
    }
}
