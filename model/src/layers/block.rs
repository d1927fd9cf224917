//! A transformer layer: self-attention and a feed-forward block, each with a residual and a normalisation.

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
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
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

impl Block {
    /// The layer at `scope`.
    pub(crate) fn load(scope: &Scope<'_>, names: &BlockNames, config: BlockConfig) -> Result<Block> {
        let BlockConfig { hidden, inner, epsilon, bias, affine, .. } = config;
        let square = |name: &str| Linear::load(&scope.at(name), hidden, hidden, bias);
        let norm = |name: &str| LayerNorm::load(&scope.at(name), hidden, epsilon, affine);
        let [query, key, value, attention_output] = names.attention;
        let [into, out_of] = names.feed_forward;
        Ok(Block {
            config,
            query: square(query)?,
            key: square(key)?,
            value: square(value)?,
            attention_output: square(attention_output)?,
            attention_norm: norm(names.attention_norm)?,
            intermediate: Linear::load(&scope.at(into), hidden, inner, bias)?,
            output: Linear::load(&scope.at(out_of), inner, hidden, bias)?,
            output_norm: norm(names.feed_forward_norm)?,
        })
    }

    /// Elements of x, y, z and the wide buffer for `rows` rows.
    pub(crate) fn sizes(config: &BlockConfig, rows: usize) -> [usize; 4] {
        let (narrow, wide) = (rows * config.hidden, rows * (3 * config.hidden).max(config.inner));
        [narrow, narrow, narrow, wide]
    }

    /// Elements of scratch that a call on `rows` rows needs.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let products =
            [(&self.query, 2), (&self.attention_output, 0), (&self.intermediate, 0), (&self.output, 0)];
        let products = products.map(|(linear, others)| linear.scratch_len(ctx, rows, others));
        let head_dim = self.config.hidden / self.config.heads;
        products.into_iter().max().unwrap_or(0).max(attention_scratch_len(ctx, head_dim))
    }

    /// Replaces x by the layer's output.
    pub(crate) fn apply(&self, ctx: &Ctx, spans: &[Span], buffers: Buffers<'_>) -> Result<()> {
        match ctx.precision() {
            Precision::Strict => self.apply_in::<f32>(ctx, spans, buffers),
            Precision::Bf16 => self.apply_in::<bf16>(ctx, spans, buffers),
        }
    }

    /// What is used in products only, which round it to the context's precision anyway, is stored as `T`.
    fn apply_in<T: Elem>(&self, ctx: &Ctx, spans: &[Span], buffers: Buffers<'_>) -> Result<()> {
        let Buffers { mut x, y, mut z, wide, scratch } = buffers;
        let BlockConfig { hidden, inner, heads, activation, norm_first, causal, .. } = self.config;
        let rows = x.len() / hidden;

        let projected = &mut reuse::<T>(wide)[..rows * 3 * hidden];
        let out = MatMut::new(projected, rows, 3 * hidden)?;
        let input = self.input(ctx, &self.attention_norm, x, y)?;
        Linear::apply_all([&self.query, &self.key, &self.value], ctx, scratch, input, out)?;
        let projected = MatRef::new(projected, rows, 3 * hidden)?;
        let mixed = &mut reuse::<T>(y)[..rows * hidden];
        let op = Attention {
            q: projected.columns(0, hidden)?,
            k: projected.columns(hidden, hidden)?,
            v: projected.columns(2 * hidden, hidden)?,
            heads,
            kv_heads: heads,
            scale: 1.0 / ((hidden / heads) as f32).sqrt(),
            bias: Bias::None,
            causal,
            spans,
            out: MatMut::new(mixed, rows, hidden)?,
        };
        attention(ctx, scratch, op)?;
        let residual = (Activation::Identity, Some(MatRef::new(x, rows, hidden)?));
        let mixed = MatRef::new(mixed, rows, hidden)?;
        self.attention_output.apply(ctx, scratch, mixed, residual, MatMut::new(z, rows, hidden)?)?;
        if norm_first {
            std::mem::swap(&mut x, &mut z);
        } else {
            self.attention_norm.apply(ctx, MatRef::new(z, rows, hidden)?, MatMut::new(x, rows, hidden)?)?;
        }

        let wide = &mut reuse::<T>(wide)[..rows * inner];
        let input = self.input(ctx, &self.output_norm, x, y)?;
        let epilogue = (activation, None);
        self.intermediate.apply(ctx, scratch, input, epilogue, MatMut::new(wide, rows, inner)?)?;
        let residual = (Activation::Identity, Some(MatRef::new(x, rows, hidden)?));
        let wide = MatRef::new(wide, rows, inner)?;
        self.output.apply(ctx, scratch, wide, residual, MatMut::new(z, rows, hidden)?)?;
        if norm_first {
            // The second swap: z is what was x at first.
            return Ok(());
        }
        self.output_norm.apply(ctx, MatRef::new(z, rows, hidden)?, MatMut::new(x, rows, hidden)?)
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
}
