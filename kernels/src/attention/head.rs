//! One head of one sequence: products, softmax and mixture of a few queries after the other.

use super::KEYS;
use super::bias::HeadBias;
use super::one::{self, One};
use super::softmax::{Scores, Softmax};
use crate::ctx::Precision;
use crate::gemm::epilogue::{Orientation, StoreTurned, Sums};
use crate::gemm::pack::{Operand, pack_rows, pack_turned};
use crate::gemm::task::Strip;
use crate::gemm::tile::{Columns, Tile, stage_len};
use crate::gemm::word::{Single, Word};
use crate::isa::{Kernel, LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{KernelAt, avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::view::{AnyMatMut, AnyMatRef, MatRef};

/// One sequence's part of one head.
pub(super) struct Head<'a> {
    /// `[queries, head_dim]`
    pub(super) q: AnyMatRef<'a>,
    /// `[keys, head_dim]`
    pub(super) k: AnyMatRef<'a>,
    /// `[keys, head_dim]`
    pub(super) v: AnyMatRef<'a>,
    pub(super) scale: f32,
    pub(super) bias: HeadBias<'a>,
    /// Keys before that of the first query, if later ones are hidden.
    pub(super) before: Option<usize>,
    /// Whether operands are rounded to bf16.
    pub(super) precision: Precision,
    /// `[queries, head_dim]`
    pub(super) out: AnyMatMut<'a>,
}

/// The computation of a head with words of some kind.
pub(super) struct Run<'a, W> {
    pub(super) word: W,
    pub(super) head: Head<'a>,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Run<'_, Single> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl KernelAt<Avx512> for Run<'_, Bf16Pairs> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl<W: Copy> Run<'_, W> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S)
    where
        W: Word<S>,
    {
        let Run { word, head: Head { q, k, v, scale, bias, before, precision, mut out }, scratch } = self;
        let (depth, lanes) = (q.cols(), S::TILE_VECTORS * LANES);
        let width = padded::<S>(depth);
        let (packed, scratch) = scratch.split_at_mut(depth * lanes);
        let (state, scratch) = scratch.split_at_mut(2 * lanes);
        let (scores, scratch) = scratch.split_at_mut(rows_of_scores::<S>() * lanes);
        let (mixed, scratch) = scratch.split_at_mut(width * lanes);
        let (stage, values) = scratch.split_at_mut(stage_len::<S>());
        let queries_of = Operand::of(q, true, precision);
        let keys_of = Operand::of(k, true, precision);
        let round = precision == Precision::Bf16;
        // Of a lone query that later keys are hidden from, none are there.
        if one::takes::<S, W>(q.rows(), depth) && before.is_none_or(|before| before + 1 == k.rows()) {
            let v = Operand::of(v, false, precision);
            let one = One { word, q: queries_of, k: keys_of, v, scale, bias, round, out: &mut out };
            one.run(s, packed, scores, mixed);
            return;
        }
        for start in (0..q.rows()).step_by(lanes) {
            let queries = start..q.rows().min(start + lanes);
            let stride = queries.len().next_multiple_of(LANES);
            pack_turned(s, word, queries_of, queries.clone(), lanes, packed);
            let before = before.map(|before| before + start);
            let visible = before.map_or(k.rows(), |before| before + queries.len());
            let scores_as = Scores { scale, bias, query: start, before };
            let mut softmax = Softmax { word, round, stride, state: &mut *state };
            softmax.start();
            for keys in (0..visible).step_by(KEYS) {
                let first = keys == 0;
                let keys = keys..visible.min(keys + KEYS);
                let strip = Strip {
                    x: keys_of,
                    rows: keys.clone(),
                    stage: &mut *stage,
                    k: 0..depth,
                    lanes: 0..queries.len(),
                    packed: &mut *packed,
                    unpacked: None,
                    sums: &mut *scores,
                    stride,
                };
                Tile(word).multiply(s, strip, None);
                let sums = &mut mixed[..depth * stride];
                match stride / LANES {
                    3 if lanes >= 3 * LANES => {
                        softmax.weigh::<S, 3>(s, scores_as, scores, keys.clone(), sums)
                    }
                    2 if lanes >= 2 * LANES => {
                        softmax.weigh::<S, 2>(s, scores_as, scores, keys.clone(), sums)
                    }
                    _ => softmax.weigh::<S, 1>(s, scores_as, scores, keys.clone(), sums),
                }
                let words = keys.len().div_ceil(W::VALUES);
                let v = Operand::of(v.block(keys.clone(), 0..depth), false, precision);
                let values = match as_words::<S, W>(v) {
                    Some(v) => v,
                    None => {
                        pack_rows(s, word, v, 0..keys.len(), 0..width, values);
                        MatRef::packed(&values[..words * width], words, width)
                    }
                };
                for row in (0..depth).step_by(S::TILE_ROWS) {
                    let (x, v) = (Columns::of(values, row), (&scores[..words * stride], stride));
                    Tile(word).multiply_columns(s, x, v, &mut mixed[row * stride..], first);
                }
            }
            softmax.finish(s, &mut mixed[..depth * stride]);
            let block = mixed.len();
            let sums = Sums {
                orientation: Orientation::Turned,
                m: queries.clone(),
                n: 0..depth,
                stride,
                data: &mut *mixed,
                block,
            };
            // SAFETY: these rows are used by nobody else while this block of them is.
            let out = unsafe { out.block(queries, 0..depth) };
            s.call(StoreTurned { sums: &sums, out });
        }
    }
}

/// The matrix, if its elements are words as they are and its columns whole register tiles.
#[inline(always)]
fn as_words<'a, S: Simd, W: Word<S>>(v: Operand<'a>) -> Option<MatRef<'a, f32>> {
    match v.matrix {
        AnyMatRef::F32(matrix) if W::VALUES == 1 && !v.round => {
            matrix.cols().is_multiple_of(S::TILE_ROWS).then_some(matrix)
        }
        _ => None,
    }
}

/// Elements of scratch for one head.
pub(super) struct RoomLen {
    pub(super) head_dim: usize,
}

impl Kernel for RoomLen {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        let lanes = S::TILE_VECTORS * LANES;
        let width = padded::<S>(self.head_dim);
        (self.head_dim + 2 + rows_of_scores::<S>() + width) * lanes + stage_len::<S>() + KEYS * width
    }
}

/// Keys up to whole register tiles.
const fn rows_of_scores<S: Simd>() -> usize {
    KEYS.next_multiple_of(S::TILE_ROWS)
}

/// The width of a head up to whole register tiles, and to whole vectors.
fn padded<S: Simd>(head_dim: usize) -> usize {
    head_dim.next_multiple_of(S::TILE_ROWS).next_multiple_of(LANES)
}
