//! A transformer layer: self-attention, for some attention to another sequence, and a feed-forward block, each with
//! a residual and a normalisation.

use rachis_kernels::{
    Activation, Attention, Bias, Ctx, Elem, MatMut, MatRef, Precision, Scratch, Span, attention,
    attention_scratch_len, bf16, reuse,
};

use crate::error::Result;
use crate::layers::{LayerNorm, Linear};
use crate::weights::Scope;

/// What a layer's weights are called, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockNames {
    /// Queries, keys, values, and what mixes the heads.
    pub(crate) attention: [&'static str; 4],
    pub(crate) attention_norm: &'static str,
    /// The same of the attention to another sequence, and its norm, where there is one.
    pub(crate) cross: Option<([&'static str; 4], &'static str)>,
    /// Into the feed-forward block, and out of it.
    pub(crate) feed_forward: [&'static str; 2],
    pub(crate) feed_forward_norm: &'static str,
}

/// The sizes and choices of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockConfig {
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    /// Between the two dense layers.
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
    /// Whether dense layers have a bias, and norms a scale and a shift.
    pub(crate) bias: bool,
    pub(crate) affine: bool,
    /// Whether what goes into a block is normalised, rather than the sum that comes out.
    pub(crate) norm_first: bool,
    /// Whether a token sees no later ones.
    pub(crate) causal: bool,
}

/// A layer with its weights.
#[derive(Debug)]
pub(crate) struct Block {
    config: BlockConfig,
    attention: Heads,
    cross: Option<Heads>,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

/// The projections of an attention, and its norm.
#[derive(Debug)]
struct Heads {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
}

/// A layer's working memory, for some rows: its input and output, two more of that width, and one wide enough for
/// the widest product.
pub(crate) struct Buffers<'w> {
    pub(crate) x: &'w mut [f32],
    pub(crate) y: &'w mut [f32],
    pub(crate) z: &'w mut [f32],
    pub(crate) wide: &'w mut [f32],
    pub(crate) scratch: &'w mut Scratch,
}

/// What a layer attends to beside its own rows.
pub(crate) struct Memory<'m> {
    /// The other sequences' vectors.
    pub(crate) states: MatRef<'m, f32>,
    /// The layer's rows and those of the other sequence, for every sequence.
    pub(crate) spans: &'m [Span],
    /// Room for keys and values, twice the size of the vectors.
    pub(crate) projected: &'m mut [f32],
}

impl Heads {
    fn load(scope: &Scope<'_>, (names, norm): ([&str; 4], &str), config: &BlockConfig) -> Result<Heads> {
        let BlockConfig { hidden, epsilon, bias, affine, .. } = *config;
        let square = |name: &str| Linear::load(&scope.at(name), hidden, hidden, bias);
        let [query, key, value, output] = names;
        Ok(Heads {
            query: square(query)?,
            key: square(key)?,
            value: square(value)?,
            output: square(output)?,
            norm: LayerNorm::load(&scope.at(norm), hidden, epsilon, affine)?,
        })
    }
}

impl Block {
    /// The layer at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, names: &BlockNames, config: BlockConfig) -> Result<Block> {
        let BlockConfig { hidden, inner, epsilon, bias, affine, .. } = config;
        let [into, out_of] = names.feed_forward;
        Ok(Block {
            attention: Heads::load(scope, (names.attention, names.attention_norm), &config)?,
            cross: names.cross.map(|cross| Heads::load(scope, cross, &config)).transpose()?,
            intermediate: Linear::load(&scope.at(into), hidden, inner, bias)?,
            output: Linear::load(&scope.at(out_of), inner, hidden, bias)?,
            output_norm: LayerNorm::load(&scope.at(names.feed_forward_norm), hidden, epsilon, affine)?,
            config,
        })
    }

    /// Elements of x, y, z and the wide buffer for `rows` rows.
    pub(crate) fn sizes(config: &BlockConfig, rows: usize) -> [usize; 4] {
        let (narrow, wide) = (rows * config.hidden, rows * (3 * config.hidden).max(config.inner));
        [narrow, narrow, narrow, wide]
    }

    /// Elements of scratch that a call on `rows` rows needs, with up to as many in the other sequences.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let products = [
            (&self.attention.query, 2),
            (&self.attention.output, 0),
            (&self.intermediate, 0),
            (&self.output, 0),
        ];
        let products = products.map(|(linear, others)| linear.scratch_len(ctx, rows, others));
        let head_dim = self.config.hidden / self.config.heads;
        products.into_iter().max().unwrap_or(0).max(attention_scratch_len(ctx, head_dim))
    }

    /// Replaces x by the layer's output. A layer with attention to another sequence needs its `memory`.
    pub(crate) fn apply(
        &self,
        ctx: &Ctx,
        spans: &[Span],
        memory: Option<Memory<'_>>,
        buffers: Buffers<'_>,
    ) -> Result<()> {
        match ctx.precision() {
            Precision::Strict => self.apply_in::<f32>(ctx, spans, memory, buffers),
            Precision::Bf16 => self.apply_in::<bf16>(ctx, spans, memory, buffers),
        }
    }

    /// What is used in products only, which round it to the context's precision anyway, is stored as `T`.
    fn apply_in<T: Elem>(
        &self,
        ctx: &Ctx,
        spans: &[Span],
        memory: Option<Memory<'_>>,
        mut buffers: Buffers<'_>,
    ) -> Result<()> {
        self.attend::<T>(ctx, spans, &mut buffers)?;
        self.finish(ctx, &self.attention.norm, &mut buffers)?;
        let cross = self.cross.as_ref().zip(memory);
        // Each block swaps x and z; two leave them where they were.
        let swapped = self.config.norm_first && cross.is_some();
        if let Some((heads, memory)) = cross {
            self.attend_to::<T>(ctx, heads, memory, &mut buffers)?;
            self.finish(ctx, &heads.norm, &mut buffers)?;
        }
        self.feed_forward::<T>(ctx, &mut buffers)?;
        self.finish(ctx, &self.output_norm, &mut buffers)?;
        if swapped {
            buffers.z.copy_from_slice(buffers.x);
        }
        Ok(())
    }

    /// `z = x + attention(x)`
    fn attend<T: Elem>(&self, ctx: &Ctx, spans: &[Span], buffers: &mut Buffers<'_>) -> Result<()> {
        let hidden = self.config.hidden;
        let Heads { query, key, value, output, norm } = &self.attention;
        let rows = buffers.x.len() / hidden;
        let projected = &mut reuse::<T>(buffers.wide)[..rows * 3 * hidden];
        let out = MatMut::new(projected, rows, 3 * hidden)?;
        let input = self.input(ctx, norm, buffers.x, buffers.y)?;
        Linear::apply_all([query, key, value], ctx, buffers.scratch, input, out)?;
        let projected = MatRef::new(projected, rows, 3 * hidden)?;
        let keys = [projected.columns(hidden, hidden)?, projected.columns(2 * hidden, hidden)?];
        let mixed = &mut reuse::<T>(buffers.y)[..rows * hidden];
        let out = MatMut::new(mixed, rows, hidden)?;
        self.mix(
            ctx,
            buffers.scratch,
            projected.columns(0, hidden)?,
            keys,
            (spans, self.config.causal),
            out,
        )?;
        let residual = (Activation::Identity, Some(MatRef::new(buffers.x, rows, hidden)?));
        let (mixed, out) = (MatRef::new(mixed, rows, hidden)?, MatMut::new(buffers.z, rows, hidden)?);
        output.apply(ctx, buffers.scratch, mixed, residual, out)
    }

    /// `z = x + attention(x, memory)`
    fn attend_to<T: Elem>(
        &self,
        ctx: &Ctx,
        heads: &Heads,
        memory: Memory<'_>,
        buffers: &mut Buffers<'_>,
    ) -> Result<()> {
        let hidden = self.config.hidden;
        let Heads { query, key, value, output, norm } = heads;
        let (rows, others) = (buffers.x.len() / hidden, memory.states.rows());
        let keys = &mut reuse::<T>(memory.projected)[..others * 2 * hidden];
        let out = MatMut::new(keys, others, 2 * hidden)?;
        Linear::apply_all([key, value], ctx, buffers.scratch, memory.states, out)?;
        let keys = MatRef::new(keys, others, 2 * hidden)?;
        let keys = [keys.columns(0, hidden)?, keys.columns(hidden, hidden)?];
        let queries = &mut reuse::<T>(buffers.wide)[..rows * hidden];
        let input = self.input(ctx, norm, buffers.x, buffers.y)?;
        let plain = (Activation::Identity, None);
        query.apply(ctx, buffers.scratch, input, plain, MatMut::new(queries, rows, hidden)?)?;
        let mixed = &mut reuse::<T>(buffers.y)[..rows * hidden];
        let (queries, out) = (MatRef::new(queries, rows, hidden)?, MatMut::new(mixed, rows, hidden)?);
        self.mix(ctx, buffers.scratch, queries, keys, (memory.spans, false), out)?;
        let residual = (Activation::Identity, Some(MatRef::new(buffers.x, rows, hidden)?));
        let (mixed, out) = (MatRef::new(mixed, rows, hidden)?, MatMut::new(buffers.z, rows, hidden)?);
        output.apply(ctx, buffers.scratch, mixed, residual, out)
    }

    /// `out = softmax(q k^T / sqrt(head_dim)) v`
    fn mix<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        q: MatRef<'_, T>,
        [k, v]: [MatRef<'_, T>; 2],
        (spans, causal): (&[Span], bool),
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let BlockConfig { hidden, heads, .. } = self.config;
        let scale = 1.0 / ((hidden / heads) as f32).sqrt();
        let heads = rachis_kernels::Heads::dense(heads, heads, hidden / heads);
        let (k, v) = (k.into(), v.into());
        let op = Attention { q, k, v, heads, scale, bias: Bias::None, causal, spans, out };
        Ok(attention(ctx, scratch, op)?)
    }

    /// `z = x + feed_forward(x)`
    fn feed_forward<T: Elem>(&self, ctx: &Ctx, buffers: &mut Buffers<'_>) -> Result<()> {
        let BlockConfig { hidden, inner, activation, .. } = self.config;
        let rows = buffers.x.len() / hidden;
        let wide = &mut reuse::<T>(buffers.wide)[..rows * inner];
        let input = self.input(ctx, &self.output_norm, buffers.x, buffers.y)?;
        let out = MatMut::new(wide, rows, inner)?;
        self.intermediate.apply(ctx, buffers.scratch, input, (activation, None), out)?;
        let residual = (Activation::Identity, Some(MatRef::new(buffers.x, rows, hidden)?));
        let (wide, out) = (MatRef::new(wide, rows, inner)?, MatMut::new(buffers.z, rows, hidden)?);
        self.output.apply(ctx, buffers.scratch, wide, residual, out)
    }

    /// What goes into a block: x, or its norm in y.
    fn input<'a>(
        &self,
        ctx: &Ctx,
        norm: &LayerNorm,
        x: &'a [f32],
        y: &'a mut [f32],
    ) -> Result<MatRef<'a, f32>> {
        let hidden = self.config.hidden;
        let x = MatRef::new(x, x.len() / hidden, hidden)?;
        if !self.config.norm_first {
            return Ok(x);
        }
        norm.apply(ctx, x, MatMut::new(y, x.rows(), hidden)?)?;
        Ok(MatRef::new(y, x.rows(), hidden)?)
    }

    /// Makes of the sum in z the block's output in x: its norm, or itself.
    fn finish(&self, ctx: &Ctx, norm: &LayerNorm, buffers: &mut Buffers<'_>) -> Result<()> {
        if self.config.norm_first {
            std::mem::swap(&mut buffers.x, &mut buffers.z);
            return Ok(());
        }
        let (hidden, rows) = (self.config.hidden, buffers.x.len() / self.config.hidden);
        norm.apply(ctx, MatRef::new(buffers.z, rows, hidden)?, MatMut::new(buffers.x, rows, hidden)?)
    }
}
