//! Multi-head attention with its projections: to a layer's own rows, to those kept of earlier calls, or to another
//! sequence.

use rachis_kernels::{
    Activation, AnyMatMut, AnyMatRef, Attention, Bias, Ctx, Elem, Heads, MatMut, MatRef, RotaryRows, Scratch,
    Span, attention, attention_scratch_len, copy_rows, rotary_rows,
};

use crate::error::Result;
use crate::layers::{Linear, matrix_as, matrix_mut};
use crate::session::Kept;
use crate::weights::Scope;
use crate::weights::Tensors;

/// What the weights are called, below the layer's own name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AttentionNames {
    /// Queries, keys, values, and what mixes the heads.
    Apart([&'static str; 4]),
    /// All three in one, group by group of heads that share keys, and what mixes the heads.
    Fused([&'static str; 2]),
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionConfig {
    pub(crate) hidden: usize,
    /// Heads of queries, and of keys and values.
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Multiplies the scores.
    pub(crate) scale: f32,
    /// Whether projections have biases.
    pub(crate) bias: bool,
}

impl AttentionConfig {
    /// As many heads of keys as of queries, side by side as wide as the layer, and the usual scale.
    pub(crate) fn square(hidden: usize, heads: usize, bias: bool) -> AttentionConfig {
        let head_dim = hidden / heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        AttentionConfig { hidden, heads, kv_heads: heads, head_dim, scale, bias }
    }

    /// Columns of all heads' queries.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all heads' keys, and of their values.
    pub(crate) fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Columns of all three.
    pub(crate) fn width(&self) -> usize {
        self.query_width() + 2 * self.key_width()
    }
}

/// An attention with its weights.
#[derive(Debug)]
pub(crate) struct MultiHeadAttention {
    config: AttentionConfig,
    input: Input,
    output: Linear,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a layer has one, and it does not move")]
enum Input {
    Apart([Linear; 3]),
    Fused(Linear),
}

/// What a layer's rows attend to and what their positions do.
pub(crate) struct Around<'a> {
    /// The rows of each sequence, and those of its keys: its own, or kept ones.
    pub(crate) spans: &'a [Span],
    pub(crate) causal: bool,
    pub(crate) bias: Bias<'a>,
    /// Angles by which queries and keys are turned.
    pub(crate) rotary: Option<MatRef<'a, f32>>,
    /// Keys and values of this and of earlier calls, to which the layer's own are added.
    pub(crate) kept: Option<[Kept<'a>; 2]>,
}

/// Another sequence that a layer's rows attend to.
pub(crate) struct Memory<'a> {
    /// Its vectors; without any, keys and values are there from an earlier call.
    pub(crate) states: Option<MatRef<'a, f32>>,
    /// The layer's rows of each sequence, and those of the other.
    pub(crate) spans: &'a [Span],
    /// Keys and values, side by side.
    pub(crate) kept: Kept<'a>,
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
            AttentionNames::Apart([query, key, value, output]) => {
                let key = into(key, config.key_width())?;
                let value = into(value, config.key_width())?;
                (Input::Apart([into(query, config.query_width())?, key, value]), output)
            }
            AttentionNames::Fused([all, output]) => (Input::Fused(into(all, config.width())?), output),
        };
        let output = Linear::load(&scope.at(output), config.query_width(), hidden, bias)?;
        Ok(MultiHeadAttention { config, input, output })
    }

    /// What is to be stored, under the names of `like`, which may have the projections in one.
    pub(crate) fn save<'m>(&'m self, like: &'m MultiHeadAttention, tensors: &mut Tensors<'m>) {
        match (&self.input, &like.input) {
            (Input::Apart(input), Input::Apart(like)) => {
                input.iter().zip(like).for_each(|(layer, like)| layer.save(like, tensors));
            }
            (Input::Apart([query, key, value]), Input::Fused(like)) => {
                let AttentionConfig { heads, kv_heads, head_dim, .. } = self.config;
                let queries = heads / kv_heads * head_dim;
                let group = move |i: usize| {
                    let [queries, keys] = [queries, head_dim].map(|width| i * width..(i + 1) * width);
                    [(query, queries), (key, keys.clone()), (value, keys)]
                };
                Linear::save_fused((0..kv_heads).flat_map(group), like, tensors);
            }
            // No source of names has them apart where the model has them in one.
            (Input::Fused(input), Input::Fused(like) | Input::Apart([like, ..])) => input.save(like, tensors),
        }
        self.output.save(&like.output, tensors);
    }

    /// Elements of scratch that calls on `rows` rows need.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let input = match &self.input {
            Input::Apart([query, ..]) => query.scratch_len(ctx, rows, 2),
            Input::Fused(all) => all.scratch_len(ctx, rows, 0),
        };
        let attention = attention_scratch_len(ctx, self.config.head_dim);
        input.max(self.output.scratch_len(ctx, rows, 0)).max(attention)
    }

    /// How heads lie in what [`MultiHeadAttention::project`] makes, and the first columns of queries, keys and values.
    fn heads(&self) -> (Heads, [usize; 3]) {
        let AttentionConfig { heads, kv_heads, head_dim, .. } = self.config;
        match self.input {
            Input::Apart(_) => {
                let (query, key) = (self.config.query_width(), self.config.key_width());
                (Heads::dense(heads, kv_heads, head_dim), [0, query, query + key])
            }
            Input::Fused(_) => {
                let query = heads / kv_heads * head_dim;
                (Heads::fused(heads, kv_heads, head_dim), [0, query, query + head_dim])
            }
        }
    }

    /// Queries, keys and values of x, `[rows, width]`.
    pub(crate) fn project<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        x: MatRef<'_, f32>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        match &self.input {
            Input::Apart([query, key, value]) => Linear::apply_all([query, key, value], ctx, scratch, x, out),
            Input::Fused(all) => all.apply(ctx, scratch, x, (Activation::Identity, None), out),
        }
    }

    /// `out = softmax((q k^T + bias) scale) v`, of what [`MultiHeadAttention::project`] made in `projected`.
    pub(crate) fn mix<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        projected: &mut [f32],
        around: Around<'_>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let Around { spans, causal, bias, rotary, kept } = around;
        let (mut heads, [query, key, value]) = self.heads();
        let width = self.config.width();
        let shape = [out.rows(), width];
        if let Some(angles) = rotary {
            self.rotate(ctx, matrix_mut::<T>(projected, shape)?, angles)?;
        }
        let projected = matrix_as::<T>(projected, shape)?;
        let columns = |first| projected.columns(first, width - first);
        let [k, v]: [AnyMatRef<'_>; 2] = match kept {
            None => [columns(key)?.into(), columns(value)?.into()],
            Some(mut kept) => {
                for (kept, first) in kept.iter_mut().zip([key, value]) {
                    keep(ctx, (columns(first)?, heads), spans, kept)?;
                }
                heads.key_step = heads.dim;
                let [k, v] = kept;
                [k.into_ref()?, v.into_ref()?]
            }
        };
        let (q, scale) = (columns(query)?, self.config.scale);
        Ok(attention(ctx, scratch, Attention { q, k, v, heads, scale, bias, causal, spans, out })?)
    }

    /// Turns queries and keys by their angles.
    fn rotate<T: Elem>(&self, ctx: &Ctx, x: MatMut<'_, T>, angles: MatRef<'_, f32>) -> Result<()> {
        let AttentionConfig { heads, kv_heads, .. } = self.config;
        let op = match self.input {
            // All queries, then all keys.
            Input::Apart(_) => RotaryRows { x, angles, groups: 1, step: 0, heads: heads + kv_heads },
            // In each group, queries and then the key.
            Input::Fused(_) => {
                let (step, heads) = (self.heads().0.query_step, heads / kv_heads + 1);
                RotaryRows { x, angles, groups: kv_heads, step, heads }
            }
        };
        Ok(rotary_rows(ctx, op)?)
    }

    /// `out = softmax(q k^T scale) v` with the queries of x and the keys and values of another sequence; `queries` is
    /// room for them.
    pub(crate) fn mix_memory<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        (x, queries): (MatRef<'_, f32>, &mut [f32]),
        memory: Memory<'_>,
        out: MatMut<'_, T>,
    ) -> Result<()> {
        let Input::Apart([query, ..]) = &self.input else { return Ok(()) };
        let AttentionConfig { heads, kv_heads, head_dim, scale, .. } = self.config;
        let Memory { states, spans, mut kept } = memory;
        if let Some(states) = states {
            self.project_memory(ctx, scratch, states, &mut kept)?;
        }
        let shape = [x.rows(), self.config.query_width()];
        let plain = (Activation::Identity, None);
        query.apply(ctx, scratch, x, plain, matrix_mut::<T>(queries, shape)?)?;
        let [k, v] = kept.into_halves()?;
        let op = Attention {
            q: matrix_as::<T>(queries, shape)?,
            k,
            v,
            heads: Heads::dense(heads, kv_heads, head_dim),
            scale,
            bias: Bias::None,
            causal: false,
            spans,
            out,
        };
        Ok(attention(ctx, scratch, op)?)
    }

    /// Keys and values of another sequence, side by side.
    pub(crate) fn project_memory(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        states: MatRef<'_, f32>,
        kept: &mut Kept<'_>,
    ) -> Result<()> {
        let Input::Apart([_, key, value]) = &self.input else { return Ok(()) };
        let both = [key, value];
        match kept.matrix()? {
            AnyMatMut::F32(out) => Linear::apply_all(both, ctx, scratch, states, out),
            AnyMatMut::Bf16(out) => Linear::apply_all(both, ctx, scratch, states, out),
            AnyMatMut::F16(out) => Linear::apply_all(both, ctx, scratch, states, out),
        }
    }

    /// `out = residual + output(mixed)`
    pub(crate) fn finish<T: Elem>(
        &self,
        ctx: &Ctx,
        scratch: &mut Scratch,
        mixed: MatRef<'_, T>,
        (residual, out): (MatRef<'_, f32>, MatMut<'_, f32>),
    ) -> Result<()> {
        self.output.apply(ctx, scratch, mixed, (Activation::Identity, Some(residual)), out)
    }
}

/// Writes the heads of new keys, or values, behind those of their sequences, where heads lie side by side.
fn keep<T: Elem>(
    ctx: &Ctx,
    (new, heads): (MatRef<'_, T>, Heads),
    spans: &[Span],
    kept: &mut Kept<'_>,
) -> Result<()> {
    let Heads { groups, dim, key_step, .. } = heads;
    // Heads side by side are one piece.
    let (pieces, width) = if key_step == dim { (1, groups * dim) } else { (groups, dim) };
    let mut kept = kept.matrix()?;
    for Span { queries, keys } in spans {
        let to = keys.end - queries.len()..keys.end;
        for piece in 0..pieces {
            let from = new.rows_range(queries.clone()).columns(piece * key_step, width)?;
            copy_rows(ctx, from.into(), kept.block_mut(to.clone(), piece * width..(piece + 1) * width)?)?;
        }
    }
    Ok(())
}
