//! A transformer layer: self-attention, for some attention to another sequence, and a feed-forward block, each with
//! a residual and a normalisation.

use rachis_kernels::{Activation, Ctx, Elem, MatRef, Precision, Scratch, bf16};

use crate::error::Result;
use crate::layers::attention::{Around, AttentionConfig, AttentionNames, Memory, MultiHeadAttention};
use crate::layers::feed_forward::{FeedForward, FeedForwardNames};
use crate::layers::{Norm, NormKind, matrix, matrix_as, matrix_len, matrix_mut};
use crate::session::Kept;
use crate::weights::Scope;
use crate::weights::Tensors;

/// What a layer's weights are called, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockNames {
    pub(crate) attention: AttentionNames,
    pub(crate) attention_norm: &'static str,
    /// The attention to another sequence and its norm, where there is one.
    pub(crate) cross: Option<(AttentionNames, &'static str)>,
    pub(crate) feed_forward: FeedForwardNames,
    /// Without a name it is the attention's norm.
    pub(crate) feed_forward_norm: Option<&'static str>,
}

impl BlockNames {
    /// KerasHub's `TransformerEncoder`.
    pub(crate) const KERAS: BlockNames = BlockNames {
        attention: AttentionNames::Apart([
            "_self_attention_layer/query_dense",
            "_self_attention_layer/key_dense",
            "_self_attention_layer/value_dense",
            "_self_attention_layer/output_dense",
        ]),
        attention_norm: "_self_attention_layer_norm",
        cross: None,
        feed_forward: FeedForwardNames {
            input: "_feedforward_intermediate_dense",
            gate: None,
            output: "_feedforward_output_dense",
        },
        feed_forward_norm: Some("_feedforward_layer_norm"),
    };

    /// KerasHub's `TransformerDecoder` with attention to an encoder.
    pub(crate) const KERAS_CROSS: BlockNames = BlockNames {
        cross: Some((
            AttentionNames::Apart([
                "_cross_attention_layer/query_dense",
                "_cross_attention_layer/key_dense",
                "_cross_attention_layer/value_dense",
                "_cross_attention_layer/output_dense",
            ]),
            "_cross_attention_layer_norm",
        )),
        ..BlockNames::KERAS
    };
}

/// The sizes and choices of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockConfig {
    pub(crate) attention: AttentionConfig,
    /// Between the two dense layers of the feed-forward block.
    pub(crate) inner: usize,
    pub(crate) activation: Activation,
    pub(crate) norm: (NormKind, f32),
    pub(crate) order: Order,
    /// Whether a token sees no later ones.
    pub(crate) causal: bool,
}

/// Where a layer normalises, and what goes into its feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// `x = norm(x + attention(x)); x = norm(x + feed_forward(x))`
    NormLast,
    /// `x = x + attention(norm(x)); x = x + feed_forward(norm(x))`
    NormFirst,
    /// `x = x + attention(norm(x)) + feed_forward(norm(x))`
    Parallel,
}

/// A layer with its weights.
#[derive(Debug)]
pub(crate) struct Block {
    config: BlockConfig,
    attention: MultiHeadAttention,
    attention_norm: Norm,
    cross: Option<(MultiHeadAttention, Norm)>,
    feed_forward: FeedForward,
    feed_forward_norm: Option<Norm>,
}

/// A layer's working memory, for some rows: its input and output, two more of that width, one of which may hold the
/// heads side by side, and one wide enough for the widest product. In each lies a [`matrix`].
pub(crate) struct Buffers<'w> {
    pub(crate) rows: usize,
    pub(crate) x: &'w mut [f32],
    pub(crate) y: &'w mut [f32],
    pub(crate) z: &'w mut [f32],
    pub(crate) wide: &'w mut [f32],
    pub(crate) scratch: &'w mut Scratch,
}

impl Block {
    /// The layer at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, names: &BlockNames, config: BlockConfig) -> Result<Block> {
        let AttentionConfig { hidden, bias, .. } = config.attention;
        let attention = |names| MultiHeadAttention::load(scope, names, config.attention);
        let norm = |name: &str| Norm::load(&scope.at(name), hidden, config.norm);
        let cross = |(names, norm_name)| -> Result<_> { Ok((attention(names)?, norm(norm_name)?)) };
        let (sizes, dense) = ([hidden, config.inner], (config.activation, bias));
        Ok(Block {
            attention: attention(names.attention)?,
            attention_norm: norm(names.attention_norm)?,
            cross: names.cross.map(cross).transpose()?,
            feed_forward: FeedForward::load(scope, &names.feed_forward, sizes, dense)?,
            feed_forward_norm: names.feed_forward_norm.map(norm).transpose()?,
            config,
        })
    }

    /// What is to be stored, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Block, tensors: &mut Tensors<'m>) {
        self.attention.save(&like.attention, tensors);
        self.attention_norm.save(&like.attention_norm, tensors);
        if let (Some((attention, norm)), Some((like_attention, like_norm))) = (&self.cross, &like.cross) {
            attention.save(like_attention, tensors);
            norm.save(like_norm, tensors);
        }
        self.feed_forward.save(&like.feed_forward, tensors);
        if let (Some(norm), Some(like)) = (&self.feed_forward_norm, &like.feed_forward_norm) {
            norm.save(like, tensors);
        }
    }

    /// Elements of y, z and the wide buffer for `rows` rows.
    pub(crate) fn sizes(config: &BlockConfig, rows: usize) -> [usize; 3] {
        let AttentionConfig { hidden, .. } = config.attention;
        let mixed = config.attention.query_width().max(hidden);
        let wide = config.attention.width().max(config.inner);
        let [y, z, wide] = [mixed, hidden, wide].map(|width| matrix_len([rows, width]));
        // Attention to another sequence has queries there beside what it mixes.
        [y, z, wide.max(2 * matrix_len([rows, config.attention.query_width()]))]
    }

    /// Elements of scratch that a call on `rows` rows needs, with up to as many in the other sequences.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        self.attention.scratch_len(ctx, rows).max(self.feed_forward.scratch_len(ctx, rows))
    }

    /// Keys and values of another sequence that the layer attends to.
    pub(crate) fn project_memory(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        states: MatRef<'_, f32>,
        kept: &mut Kept<'_>,
    ) -> Result<()> {
        match &self.cross {
            Some((heads, _)) => heads.project_memory(ctx, scratch, states, kept),
            None => Ok(()),
        }
    }

    /// Replaces x by the layer's output. A layer with attention to another sequence needs its `memory`.
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        around: Around<'_>,
        memory: Option<Memory<'_>>,
        buffers: Buffers<'_>,
    ) -> Result<()> {
        match ctx.precision() {
            Precision::Strict | Precision::Bf16x6 => self.apply_in::<f32>(ctx, around, memory, buffers),
            Precision::Bf16 => self.apply_in::<bf16>(ctx, around, memory, buffers),
        }
    }

    /// What is used in products only, which round it to the context's precision anyway, is stored as `T`.
    fn apply_in<T: Elem>(
        &self,
        ctx: &Ctx,
        around: Around<'_>,
        memory: Option<Memory<'_>>,
        mut buffers: Buffers<'_>,
    ) -> Result<()> {
        self.attend::<T>(ctx, around, &mut buffers)?;
        if self.config.order == Order::Parallel {
            return self.feed_forward::<T>(ctx, &mut buffers);
        }
        self.finish(ctx, &self.attention_norm, &mut buffers)?;
        let cross = self.cross.as_ref().zip(memory);
        let crossed = cross.is_some();
        if let Some(((heads, norm), memory)) = cross {
            self.attend_to::<T>(ctx, (heads, norm), memory, &mut buffers)?;
            self.finish(ctx, norm, &mut buffers)?;
        }
        self.feed_forward::<T>(ctx, &mut buffers)?;
        self.finish(ctx, self.last_norm(), &mut buffers)?;
        if crossed && self.config.order == Order::NormFirst {
            // Each block has exchanged x and z, and there were three.
            buffers.z.copy_from_slice(buffers.x);
        }
        Ok(())
    }

    /// `z = x + attention(x)`
    fn attend<T: Elem>(&self, ctx: &Ctx, around: Around<'_>, buffers: &mut Buffers<'_>) -> Result<()> {
        let Buffers { rows, x, y, z, wide, scratch } = buffers;
        let config = &self.config.attention;
        let (heads, outer) = (&self.attention, [*rows, config.hidden]);
        let input = self.input(ctx, &self.attention_norm, (x, *rows), y)?;
        heads.project(ctx, scratch, input, matrix_mut::<T>(wide, [*rows, config.width()])?)?;
        let shape = [*rows, config.query_width()];
        heads.mix(ctx, scratch, wide, around, matrix_mut::<T>(y, shape)?)?;
        let ends = (matrix(x, outer)?, matrix_mut(z, outer)?);
        heads.finish(ctx, scratch, matrix_as::<T>(y, shape)?, ends)
    }

    /// `z = x + attention(x, memory)`
    fn attend_to<T: Elem>(
        &self,
        ctx: &Ctx,
        (heads, norm): (&MultiHeadAttention, &Norm),
        memory: Memory<'_>,
        buffers: &mut Buffers<'_>,
    ) -> Result<()> {
        let Buffers { rows, x, y, z, wide, scratch } = buffers;
        let outer = [*rows, self.config.attention.hidden];
        let shape = [*rows, self.config.attention.query_width()];
        // The input may lie in y, where the mixture would.
        let (queries, mixed) = wide.split_at_mut(matrix_len(shape));
        let input = self.input(ctx, norm, (x, *rows), y)?;
        heads.mix_memory(ctx, scratch, (input, queries), memory, matrix_mut::<T>(mixed, shape)?)?;
        let ends = (matrix(x, outer)?, matrix_mut(z, outer)?);
        heads.finish(ctx, scratch, matrix_as::<T>(mixed, shape)?, ends)
    }

    /// `z = x + feed_forward(x)`; in parallel to the attention, whose sum is in z, `x = z + feed_forward(x)`.
    fn feed_forward<T: Elem>(&self, ctx: &Ctx, buffers: &mut Buffers<'_>) -> Result<()> {
        let Buffers { rows, x, y, z, wide, scratch } = buffers;
        let (outer, inner) = ([*rows, self.config.attention.hidden], [*rows, self.config.inner]);
        let input = self.input(ctx, self.last_norm(), (x, *rows), y)?;
        self.feed_forward.widen(ctx, scratch, input, matrix_mut::<T>(wide, inner)?)?;
        let (residual, out) = if self.config.order == Order::Parallel { (z, x) } else { (x, z) };
        let ends = (matrix(residual, outer)?, matrix_mut(out, outer)?);
        self.feed_forward.narrow(ctx, scratch, matrix_as::<T>(wide, inner)?, ends)
    }

    /// The feed-forward block's norm.
    fn last_norm(&self) -> &Norm {
        self.feed_forward_norm.as_ref().unwrap_or(&self.attention_norm)
    }

    /// What goes into a block: x, or its norm in y.
    fn input<'a>(
        &self,
        ctx: &Ctx,
        norm: &Norm,
        (x, rows): (&'a [f32], usize),
        y: &'a mut [f32],
    ) -> Result<MatRef<'a, f32>> {
        let shape = [rows, self.config.attention.hidden];
        let x = matrix(x, shape)?;
        if self.config.order == Order::NormLast {
            return Ok(x);
        }
        norm.apply(ctx, x, matrix_mut(y, shape)?)?;
        matrix(y, shape)
    }

    /// Makes of the sum in z the block's output in x: its norm, or itself.
    fn finish(&self, ctx: &Ctx, norm: &Norm, buffers: &mut Buffers<'_>) -> Result<()> {
        if self.config.order != Order::NormLast {
            std::mem::swap(&mut buffers.x, &mut buffers.z);
            return Ok(());
        }
        let shape = [buffers.rows, self.config.attention.hidden];
        norm.apply(ctx, matrix(buffers.z, shape)?, matrix_mut(buffers.x, shape)?)
    }
}
