//! One head of one sequence: products, softmax and mixture of a few queries after the other.

use super::KEYS;
#[cfg(target_arch = "x86_64")]
use super::amx::OnTiles;
use super::bias::HeadBias;
use super::one::{One, Room};
use super::products::{Keys, Lengths, Products, Queries, Values, Weights};
use super::softmax::{Scores, Softmax};
use crate::ctx::Precision;
use crate::gemm::epilogue::{Orientation, StoreTurned, Sums};
use crate::gemm::pack::Operand;
use crate::gemm::tile::Tile;
use crate::gemm::word::Single;
use crate::isa::{Kernel, LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{KernelAt, avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::view::{AnyMatMut, AnyMatRef};

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

/// The computation of a head with some way to multiply.
pub(super) struct Run<'a, P> {
    pub(super) products: P,
    pub(super) head: Head<'a>,
    pub(super) scratch: &'a mut [f32],
}

impl Kernel for Run<'_, Tile<Single>> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl KernelAt<Avx512> for Run<'_, Tile<Bf16Pairs>> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

#[cfg(target_arch = "x86_64")]
impl KernelAt<Avx512> for Run<'_, OnTiles> {
    type Output = ();

    #[inline(always)]
    fn run_at(self, s: Avx512) {
        self.run_with(s);
    }
}

impl<P> Run<'_, P> {
    #[inline(always)]
    fn run_with<S: Simd>(self, s: S)
    where
        P: Products<S>,
    {
        let Run { products, head: Head { q, k, v, scale, bias, before, precision, mut out }, scratch } = self;
        let (width, lengths) = (q.cols(), P::lengths(q.cols()));
        let (packed, scratch) = scratch.split_at_mut(lengths.packed);
        let (state, scratch) = scratch.split_at_mut(2 * P::QUERIES);
        let (scores, scratch) = scratch.split_at_mut(lengths.scores);
        let (mixed, scratch) = scratch.split_at_mut(lengths.mixed);
        let (stage, values) = scratch.split_at_mut(lengths.stage);
        let queries_of = Operand::of(q, true, precision);
        let keys_of = Operand::of(k, true, precision);
        let round = precision == Precision::Bf16;
        // Of a lone query that later keys are hidden from, none are there.
        if q.rows() == 1 && P::takes_one(width) && before.is_none_or(|before| before + 1 == k.rows()) {
            let v = Operand::of(v, false, precision);
            let one = One { q: queries_of, k: keys_of, v, scale, bias, round, out: &mut out };
            one.run(s, &products, Room { packed, scores, mixed, stage, values });
            return;
        }
        for start in (0..q.rows()).step_by(P::QUERIES) {
            let queries = start..q.rows().min(start + P::QUERIES);
            let stride = P::stride(queries.len());
            products.pack(s, queries_of, queries.clone(), packed);
            let before = before.map(|before| before + start);
            let visible = before.map_or(k.rows(), |before| before + queries.len());
            let scores_as = Scores { scale, bias, query: start, before };
            let mut softmax = Softmax { word: products.word(), round, stride, state: &mut *state };
            softmax.start();
            for keys in (0..visible).step_by(KEYS) {
                let first = keys == 0;
                let keys = keys..visible.min(keys + KEYS);
                let of_keys = Keys { k: keys_of, keys: keys.clone(), stage: &mut *stage };
                products.score(
                    s,
                    Queries { packed: &mut *packed, count: queries.len(), stride },
                    of_keys,
                    scores,
                );
                let sums = &mut mixed[..width * stride];
                match stride / LANES {
                    3 if P::QUERIES >= 3 * LANES => {
                        softmax.weigh::<S, 3>(s, scores_as, scores, keys.clone(), sums)
                    }
                    2 if P::QUERIES >= 2 * LANES => {
                        softmax.weigh::<S, 2>(s, scores_as, scores, keys.clone(), sums)
                    }
                    _ => softmax.weigh::<S, 1>(s, scores_as, scores, keys.clone(), sums),
                }
                let v = Operand::of(v.block(keys, 0..width), false, precision);
                let weights = Weights { words: &mut *scores, queries: queries.len(), stride };
                products.mix(s, weights, Values { v, room: &mut *values, first }, mixed);
            }
            softmax.finish(s, &mut mixed[..width * stride]);
            let block = mixed.len();
            let sums = Sums {
                orientation: Orientation::Turned,
                m: queries.clone(),
                n: 0..width,
                stride,
                data: &mut *mixed,
                block,
            };
            // SAFETY: these rows are used by nobody else while this block of them is.
            let out = unsafe { out.block(queries, 0..width) };
            s.call(StoreTurned { sums: &sums, out });
        }
    }
}

/// Elements of scratch for one head of this width.
pub(super) fn room_len<S: Simd, P: Products<S>>(width: usize) -> usize {
    let Lengths { packed, scores, mixed, stage, values } = P::lengths(width);
    packed + 2 * P::QUERIES + scores + mixed + stage + values
}

/// [`room_len`] of a level's register tile.
pub(super) struct RoomLen {
    pub(super) width: usize,
}

impl Kernel for RoomLen {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        room_len::<S, Tile<Single>>(self.width)
    }
}
