//! Multi-head attention with its projections: to a layer's own rows, to cached keys and values of earlier calls, or
//! to a source.

mod config;

use rachis_kernels::{
    AnyMatMut, AnyMatRef, Attention, AttentionMask, Bias, Ctx, Elem, Heads, MatMut, MatRef, RotaryRows,
    Scratch, Span, attention, attention_scratch_len, copy_rows, rotary_rows,
};

pub(crate) use config::{AttentionConfig, AttentionNames};

use crate::error::Result;
use crate::layers::{Epilogue, Linear, matrix_as, matrix_mut};
use crate::session::CachedKv;
use crate::weights::{Scope, Tensors};

/// An attention with its weights.
#[derive(Debug)]
pub(crate) struct MultiHeadAttention {
    config: AttentionConfig,
    input: InputProjection,
    output: Linear,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a layer has one, and it does not move")]
enum InputProjection {
    /// Queries, keys and values.
    Separate([Linear; 3]),
    Fused(Linear),
}

/// The arguments of self-attention beside queries, keys and values.
pub(crate) struct SelfAttentionArgs<'a> {
    /// The rows of each sequence, and the rows of its keys: its own rows, or rows of the cache.
    pub(crate) spans: &'a [Span],
    /// Whether a query attends to later keys.
    pub(crate) mask: AttentionMask,
    pub(crate) bias: Bias<'a>,
    /// The angles by which queries and keys are rotated.
    pub(crate) rotary: Option<MatRef<'a, f32>>,
    /// Cached keys and values, to which those of this call are appended.
    pub(crate) cache: Option<[CachedKv<'a>; 2]>,
}

/// The arguments of attention to a source beside the queries.
pub(crate) struct CrossAttentionArgs<'a> {
    /// The encoder's output. `None` when its keys and values are in `kv` already.
    pub(crate) states: Option<MatRef<'a, f32>>,
    /// The layer's rows of each sequence, and the rows of its source.
    pub(crate) spans: &'a [Span],
    /// Keys and values of the source, side by side.
    pub(crate) kv: CachedKv<'a>,
}

impl MultiHeadAttention {
    pub(crate) fn load(
        scope: &Scope<'_>,
        names: AttentionNames,
        config: AttentionConfig,
    ) -> Result<MultiHeadAttention> {
        let AttentionConfig { hidden, bias, .. } = config;
        let into = |name: &str, width| Linear::load(&scope.at(name), hidden, width, bias);
        let (input, output) = match names {
            AttentionNames::Separate([query, key, value, output]) => {
                let key = into(key, config.kv_width())?;
                let value = into(value, config.kv_width())?;
                (InputProjection::Separate([into(query, config.query_width())?, key, value]), output)
            }
            AttentionNames::Fused([qkv, output]) => {
                (InputProjection::Fused(into(qkv, config.qkv_width())?), output)
            }
        };
        let output = Linear::load(&scope.at(output), config.query_width(), hidden, bias)?;
        Ok(MultiHeadAttention { config, input, output })
    }

    /// Adds the tensors to save, under the names of `like`, which may have the input projections fused.
    pub(crate) fn save<'m>(&'m self, like: &'m MultiHeadAttention, tensors: &mut Tensors<'m>) {
        match (&self.input, &like.input) {
            (InputProjection::Separate(input), InputProjection::Separate(like)) => {
                input.iter().zip(like).for_each(|(layer, like)| layer.save(like, tensors));
            }
            (InputProjection::Separate([query, key, value]), InputProjection::Fused(like)) => {
                let AttentionConfig { heads, kv_heads, head_dim, .. } = self.config;
                let queries = heads / kv_heads * head_dim;
                let kv_head = move |i: usize| {
                    let [queries, keys] = [queries, head_dim].map(|width| i * width..(i + 1) * width);
                    [(query, queries), (key, keys.clone()), (value, keys)]
                };
                Linear::save_fused((0..kv_heads).flat_map(kv_head), like, tensors);
            }
            // Names are never separate where the model's weights are fused.
            (
                InputProjection::Fused(input),
                InputProjection::Fused(like) | InputProjection::Separate([like, ..]),
            ) => input.save(like, tensors),
        }
        self.output.save(&like.output, tensors);
    }

    /// Elements of scratch that calls on `rows` rows need.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let input = match &self.input {
            InputProjection::Separate([query, ..]) => query.scratch_len(ctx, rows, 2),
            InputProjection::Fused(qkv) => qkv.scratch_len(ctx, rows, 0),
        };
        let attention = attention_scratch_len(ctx, self.config.head_dim);
        input.max(self.output.scratch_len(ctx, rows, 0)).max(attention)
    }

    /// The layout of heads in the output of [`MultiHeadAttention::project`], and the first columns of queries, keys and
    /// values.
    fn heads(&self) -> (Heads, [usize; 3]) {
        let AttentionConfig { heads, kv_heads, head_dim, .. } = self.config;
        match self.input {
            InputProjection::Separate(_) => {
                let (query, key) = (self.config.query_width(), self.config.kv_width());
                (Heads::dense(heads, kv_heads, head_dim), [0, query, query + key])
            }
            InputProjection::Fused(_) => {
                let query = heads / kv_heads * head_dim;
                (Heads::fused(heads, kv_heads, head_dim), [0, query, query + head_dim])
            }
        }
    }

    /// Queries, keys and values of `x`: `out` is `[rows, qkv_width]`.
    pub(crate) fn project<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        match &self.input {
            InputProjection::Separate([query, key, value]) => {
                Linear::apply_all([query, key, value], ctx, scratch, x, out)
            }
            InputProjection::Fused(qkv) => qkv.apply(ctx, scratch, x, Epilogue::none(), out),
        }
    }

    /// `out = softmax((q k^T + bias) scale) v`, with the queries, keys and values that [`MultiHeadAttention::project`]
    /// wrote to `qkv`. The keys are cached ones, too, where there are any.
    pub(crate) fn attend<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        qkv: &mut [f32],
        args: SelfAttentionArgs<'_>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let SelfAttentionArgs { spans, mask, bias, rotary, cache } = args;
        let (mut heads, [query, key, value]) = self.heads();
        let width = self.config.qkv_width();
        let shape = [out.rows(), width];
        if let Some(angles) = rotary {
            self.rotate(ctx, matrix_mut::<T>(qkv, shape)?, angles)?;
        }
        let qkv = matrix_as::<T>(qkv, shape)?;
        let columns = |first| qkv.columns(first, width - first);
        let [k, v]: [AnyMatRef<'_>; 2] = match cache {
            None => [columns(key)?.into(), columns(value)?.into()],
            Some(mut cache) => {
                for (cache, first) in cache.iter_mut().zip([key, value]) {
                    append(ctx, NewHeads { rows: columns(first)?, heads }, spans, cache)?;
                }
                heads.kv_stride = heads.dim;
                let [k, v] = cache;
                [k.into_ref()?, v.into_ref()?]
            }
        };
        let (q, scale) = (columns(query)?, self.config.scale);
        Ok(attention(ctx, scratch, Attention { q, k, v, heads, scale, bias, mask, spans, out })?)
    }

    /// Rotates queries and keys by the angles of their positions.
    fn rotate<T: Elem>(&self, ctx: &Ctx, x: MatMut<'_, T>, angles: MatRef<'_, f32>) -> Result<()> {
        let AttentionConfig { heads, kv_heads, .. } = self.config;
        let op = match self.input {
            // The queries of all heads, then the keys of all heads.
            InputProjection::Separate(_) => {
                RotaryRows { x, angles, groups: 1, step: 0, heads: heads + kv_heads }
            }
            // For each key head, its queries and then its key.
            InputProjection::Fused(_) => {
                let (step, heads) = (self.heads().0.query_stride, heads / kv_heads + 1);
                RotaryRows { x, angles, groups: kv_heads, step, heads }
            }
        };
        Ok(rotary_rows(ctx, op)?)
    }

    /// The queries of `x` for attention to a source: `out` is `[rows, query_width]`. Only with separate projections.
    pub(crate) fn project_query<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let InputProjection::Separate([query, ..]) = &self.input else { return Ok(()) };
        query.apply(ctx, scratch, x, Epilogue::none(), out)
    }

    /// The keys and values of a source, side by side, from the encoder's output. Only with separate projections.
    pub(crate) fn project_source(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        states: MatRef<'_, f32>,
        kv: &mut CachedKv<'_>,
    ) -> Result<()> {
        let InputProjection::Separate([_, key, value]) = &self.input else { return Ok(()) };
        let both = [key, value];
        match kv.matrix_mut()? {
            AnyMatMut::F32(out) => Linear::apply_all(both, ctx, scratch, states, out),
            AnyMatMut::Bf16(out) => Linear::apply_all(both, ctx, scratch, states, out),
            AnyMatMut::F16(out) => Linear::apply_all(both, ctx, scratch, states, out),
        }
    }

    /// `out = softmax(q k^T scale) v` with the keys and values of a source.
    pub(crate) fn cross_attend<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        q: MatRef<'_, T>,
        args: CrossAttentionArgs<'_>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let AttentionConfig { heads, kv_heads, head_dim, scale, .. } = self.config;
        let CrossAttentionArgs { states, spans, mut kv } = args;
        if let Some(states) = states {
            self.project_source(ctx, scratch, states, &mut kv)?;
        }
        let [k, v] = kv.into_halves()?;
        let heads = Heads::dense(heads, kv_heads, head_dim);
        let op = Attention { q, k, v, heads, scale, bias: Bias::None, mask: AttentionMask::None, spans, out };
        Ok(attention(ctx, scratch, op)?)
    }

    /// `out = residual + output(context)`
    pub(crate) fn project_output<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        context: MatRef<'_, T>,
        residual: MatRef<'_, f32>,
        out: MatMut<'_, f32>,
    ) -> Result<()> {
        self.output.apply(ctx, scratch, context, Epilogue::residual(residual), out)
    }
}

/// The keys, or the values, of new rows.
struct NewHeads<'a, T> {
    rows: MatRef<'a, T>,
    heads: Heads,
}

/// Copies new keys, or values, behind those of their sequences in the cache, where heads lie side by side.
fn append<T: Elem>(
    ctx: &Ctx,
    NewHeads { rows, heads }: NewHeads<'_, T>,
    spans: &[Span],
    cache: &mut CachedKv<'_>,
) -> Result<()> {
    let Heads { kv_heads, dim, kv_stride, .. } = heads;
    // Heads that lie side by side already are copied as one.
    let (copies, width) = if kv_stride == dim { (1, kv_heads * dim) } else { (kv_heads, dim) };
    let mut cache = cache.matrix_mut()?;
    for Span { queries, keys } in spans {
        let to = keys.end - queries.len()..keys.end;
        for i in 0..copies {
            let from = rows.rows_range(queries.clone()).columns(i * kv_stride, width)?;
            copy_rows(ctx, from.into(), cache.block_mut(to.clone(), i * width..(i + 1) * width)?)?;
        }
    }
    Ok(())
}
