//! A transformer layer: self-attention, in some decoders attention to a source, and a feed-forward block. Each of these
//! sub-layers adds its input as a residual and has a norm before or behind it.

mod config;

use rachis_kernels::{Ctx, Dtype, Elem, MatMut, MatRef, Scratch, bf16};

pub(crate) use config::{BlockConfig, BlockNames, NormPlacement};

use crate::error::Result;
use crate::layers::attention::{AttentionConfig, CrossAttentionArgs, MultiHeadAttention, SelfAttentionArgs};
use crate::layers::buffers::{BlockBuffers, RowSizes};
use crate::layers::feed_forward::{FeedForward, FeedForwardConfig};
use crate::layers::{Norm, matrix, matrix_as, matrix_len, matrix_mut};
use crate::session::CachedKv;
use crate::weights::{Scope, Tensors};

/// A layer with its weights.
#[derive(Debug)]
pub(crate) struct Block {
    config: BlockConfig,
    attention: MultiHeadAttention,
    attention_norm: Norm,
    cross: Option<CrossAttention>,
    feed_forward: FeedForward,
    feed_forward_norm: Option<Norm>,
}

/// The attention to a source and its norm.
#[derive(Debug)]
struct CrossAttention {
    attention: MultiHeadAttention,
    norm: Norm,
}

/// The memory that all sub-layers of a layer use.
struct Shared<'b> {
    rows: usize,
    intermediate: &'b mut [f32],
    scratch: &'b mut Scratch,
}

/// The buffers of one sub-layer: `to = from + f(norm(from))`, or `from + f(from)` without a norm before it.
struct SubLayer<'b> {
    from: &'b [f32],
    /// Memory for `norm(from)`.
    normed: &'b mut [f32],
    to: &'b mut [f32],
}

impl Block {
    /// The layer at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, names: &BlockNames, config: BlockConfig) -> Result<Block> {
        let AttentionConfig { hidden, bias, .. } = config.attention;
        let attention = |names| MultiHeadAttention::load(scope, names, config.attention);
        let norm = |name: &str| Norm::load(&scope.at(name), hidden, config.norm);
        let cross = |(names, norm_name)| -> Result<_> {
            Ok(CrossAttention { attention: attention(names)?, norm: norm(norm_name)? })
        };
        let BlockConfig { intermediate, activation, .. } = config;
        let dense = FeedForwardConfig { hidden, intermediate, activation, bias };
        Ok(Block {
            attention: attention(names.attention)?,
            attention_norm: norm(names.attention_norm)?,
            cross: names.cross.map(cross).transpose()?,
            feed_forward: FeedForward::load(scope, &names.feed_forward, dense)?,
            feed_forward_norm: names.feed_forward_norm.map(norm).transpose()?,
            config,
        })
    }

    /// Adds the tensors to save, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Block, tensors: &mut Tensors<'m>) {
        self.attention.save(&like.attention, tensors);
        self.attention_norm.save(&like.attention_norm, tensors);
        if let (Some(cross), Some(like)) = (&self.cross, &like.cross) {
            cross.attention.save(&like.attention, tensors);
            cross.norm.save(&like.norm, tensors);
        }
        self.feed_forward.save(&like.feed_forward, tensors);
        if let (Some(norm), Some(like)) = (&self.feed_forward_norm, &like.feed_forward_norm) {
            norm.save(like, tensors);
        }
    }

    /// Elements that a row takes in each buffer.
    pub(crate) fn row_sizes(config: &BlockConfig) -> RowSizes {
        let AttentionConfig { hidden, .. } = config.attention;
        let len = |width| matrix_len([1, width]);
        let intermediate = len(config.attention.qkv_width().max(config.intermediate));
        RowSizes {
            states: len(hidden),
            context: len(config.attention.query_width().max(hidden)),
            sum: len(hidden),
            // Attention to a source has both its queries and its heads' outputs there.
            intermediate: intermediate.max(2 * len(config.attention.query_width())),
        }
    }

    /// Elements of scratch that a call on `rows` rows needs, with up to as many rows in the sources.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        self.attention.scratch_len(ctx, rows).max(self.feed_forward.scratch_len(ctx, rows))
    }

    /// Writes the keys and values of sources, from the encoder's output, if the layer attends to any.
    pub(crate) fn project_source(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        states: MatRef<'_, f32>,
        kv: &mut CachedKv<'_>,
    ) -> Result<()> {
        match &self.cross {
            Some(cross) => cross.attention.project_source(ctx, scratch, states, kv),
            None => Ok(()),
        }
    }

    /// Replaces the states by the layer's output. A layer with attention to a source needs the arguments `cross`.
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        args: SelfAttentionArgs<'_>,
        cross: Option<CrossAttentionArgs<'_>>,
        buffers: BlockBuffers<'_>,
    ) -> Result<()> {
        match ctx.precision().operand_dtype() {
            Dtype::Bfloat16 => self.apply_in::<bf16>(ctx, args, cross, buffers),
            Dtype::Float32 | Dtype::Float16 => self.apply_in::<f32>(ctx, args, cross, buffers),
        }
    }

    /// Applies the layer with the operands of products stored as `T`: products round them to the context's precision
    /// anyway.
    fn apply_in<T: Elem>(
        &self,
        ctx: &Ctx,
        args: SelfAttentionArgs<'_>,
        cross: Option<CrossAttentionArgs<'_>>,
        buffers: BlockBuffers<'_>,
    ) -> Result<()> {
        let BlockBuffers { rows, states, context, sum, intermediate, scratch } = buffers;
        let shared = &mut Shared { rows, intermediate, scratch };
        let shape = [rows, self.config.attention.hidden];
        let norm = |norm: &Norm, from: &[f32], to: &mut [f32]| {
            norm.apply(ctx, matrix(from, shape)?, matrix_mut(to, shape)?)
        };
        let cross = self.cross.as_ref().zip(cross);
        self.self_attention::<T>(ctx, args, SubLayer { from: states, normed: context, to: sum }, shared)?;
        match self.config.placement {
            NormPlacement::Post => {
                norm(&self.attention_norm, sum, states)?;
                if let Some((cross, args)) = cross {
                    let io = SubLayer { from: states, normed: context, to: sum };
                    self.cross_attention::<T>(ctx, cross, args, io, shared)?;
                    norm(&cross.norm, sum, states)?;
                }
                self.feed_forward::<T>(ctx, SubLayer { from: states, normed: context, to: sum }, shared)?;
                norm(self.feed_forward_norm(), sum, states)
            }
            // The states move from buffer to buffer, so that the last sub-layer writes them to where the first read
            // them.
            NormPlacement::Pre => match cross {
                None => {
                    self.feed_forward::<T>(ctx, SubLayer { from: sum, normed: context, to: states }, shared)
                }
                Some((cross, args)) => {
                    let io = SubLayer { from: sum, normed: states, to: context };
                    self.cross_attention::<T>(ctx, cross, args, io, shared)?;
                    self.feed_forward::<T>(ctx, SubLayer { from: context, normed: sum, to: states }, shared)
                }
            },
            NormPlacement::Parallel => {
                norm(self.feed_forward_norm(), states, context)?;
                let input = matrix(context, shape)?;
                self.dense::<T>(ctx, input, matrix(sum, shape)?, matrix_mut(states, shape)?, shared)
            }
        }
    }

    /// `to = from + attention(from)`
    fn self_attention<T: Elem>(
        &self,
        ctx: &Ctx,
        args: SelfAttentionArgs<'_>,
        SubLayer { from, normed, to }: SubLayer<'_>,
        shared: &mut Shared<'_>,
    ) -> Result<()> {
        let Shared { rows, intermediate, scratch } = shared;
        let config = &self.config.attention;
        let (heads, shape) = (&self.attention, [*rows, config.hidden]);
        let input = self.input(ctx, &self.attention_norm, from, normed, *rows)?;
        heads.project(ctx, scratch, input, matrix_mut::<T>(intermediate, [*rows, config.qkv_width()])?)?;
        // The norm is not needed any more: the outputs of the heads take its memory.
        let (context, context_shape) = (normed, [*rows, config.query_width()]);
        heads.attend(ctx, scratch, intermediate, args, matrix_mut::<T>(context, context_shape)?)?;
        let context = matrix_as::<T>(context, context_shape)?;
        heads.project_output(ctx, scratch, context, matrix(from, shape)?, matrix_mut(to, shape)?)
    }

    /// `to = from + attention(from, source)`
    fn cross_attention<T: Elem>(
        &self,
        ctx: &Ctx,
        cross: &CrossAttention,
        args: CrossAttentionArgs<'_>,
        SubLayer { from, normed, to }: SubLayer<'_>,
        shared: &mut Shared<'_>,
    ) -> Result<()> {
        let Shared { rows, intermediate, scratch } = shared;
        let (heads, shape) = (&cross.attention, [*rows, self.config.attention.hidden]);
        let heads_shape = [*rows, self.config.attention.query_width()];
        let (queries, context) = intermediate.split_at_mut(matrix_len(heads_shape));
        let input = self.input(ctx, &cross.norm, from, normed, *rows)?;
        heads.project_query(ctx, scratch, input, matrix_mut::<T>(queries, heads_shape)?)?;
        let queries = matrix_as::<T>(queries, heads_shape)?;
        heads.cross_attend(ctx, scratch, queries, args, matrix_mut::<T>(context, heads_shape)?)?;
        let context = matrix_as::<T>(context, heads_shape)?;
        heads.project_output(ctx, scratch, context, matrix(from, shape)?, matrix_mut(to, shape)?)
    }

    /// `to = from + feed_forward(from)`
    fn feed_forward<T: Elem>(
        &self,
        ctx: &Ctx,
        SubLayer { from, normed, to }: SubLayer<'_>,
        shared: &mut Shared<'_>,
    ) -> Result<()> {
        let shape = [shared.rows, self.config.attention.hidden];
        let input = self.input(ctx, self.feed_forward_norm(), from, normed, shared.rows)?;
        self.dense::<T>(ctx, input, matrix(from, shape)?, matrix_mut(to, shape)?, shared)
    }

    /// `out = residual + output(activation(input(x)))`
    fn dense<T: Elem>(
        &self,
        ctx: &Ctx,
        x: MatRef<'_, f32>,
        residual: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
        shared: &mut Shared<'_>,
    ) -> Result<()> {
        let Shared { rows, intermediate, scratch } = shared;
        let shape = [*rows, self.config.intermediate];
        self.feed_forward.expand(ctx, scratch, x, matrix_mut::<T>(intermediate, shape)?)?;
        self.feed_forward.contract(ctx, scratch, matrix_as::<T>(intermediate, shape)?, residual, out)
    }

    /// The feed-forward block's norm.
    fn feed_forward_norm(&self) -> &Norm {
        self.feed_forward_norm.as_ref().unwrap_or(&self.attention_norm)
    }

    /// The input of a sub-layer's first product: `from`, or its norm, written to `normed`.
    fn input<'a>(
        &self,
        ctx: &Ctx,
        norm: &Norm,
        from: &'a [f32],
        normed: &'a mut [f32],
        rows: usize,
    ) -> Result<MatRef<'a, f32>> {
        let shape = [rows, self.config.attention.hidden];
        let from = matrix(from, shape)?;
        if self.config.placement == NormPlacement::Post {
            return Ok(from);
        }
        norm.apply(ctx, from, matrix_mut(normed, shape)?)?;
        matrix(normed, shape)
    }
}
