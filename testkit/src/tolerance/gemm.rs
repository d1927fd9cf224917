//! The bound of a matrix product.
//!
//! A sum `s = sum_i a_i w_i` whose every term goes through at most n roundings, its own product's among them, comes out as
//! `sum_i a_i w_i (1 + d_i)` with `|d_i| <= gamma(n)` (Higham, section 3.1). So its error is at most
//! `gamma(n) sum_i |a_i w_i|`: relative to the magnitude of the terms, not to the value of the sum, which may cancel.

use super::{ACTIVATION, Bound, SMALLEST_NORMAL, TINY, U, gamma};
use crate::oracle::{Activation, Dot};
use crate::shapes::K_BLOCK;

/// How a matrix product sums.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// Products in a sum.
    pub terms: usize,
    /// The most roundings that one of them goes through.
    pub roundings: usize,
    /// The magnitude below which a term or a sum may be lost.
    pub smallest: f64,
}

impl Sums {
    /// `terms` products in ascending order, in blocks of [`K_BLOCK`] that are summed from zero and then added up. The first
    /// term of a block goes through as many roundings as the block has terms; then its block's sum is added to those of
    /// earlier blocks and meets at most `terms / K_BLOCK` later ones.
    pub fn ascending(terms: usize) -> Sums {
        Sums { terms, roundings: in_blocks(terms, K_BLOCK), smallest: TINY }
    }

    /// Pairs of products in ascending order, as `vdpbf16ps` sums them, in blocks of [`K_BLOCK`] pairs. The instruction
    /// rounds after either product of a pair, and takes operands and results below [`SMALLEST_NORMAL`] for zero: a product
    /// and a sum may each lose that much.
    pub fn in_pairs(terms: usize) -> Sums {
        Sums { terms, roundings: in_blocks(terms, 2 * K_BLOCK), smallest: 2.0 * SMALLEST_NORMAL }
    }

    /// Blocks of 32 products, as `tdpbf16ps` sums them: 16 with even k and 16 with odd k apart, then both to the sum so far.
    /// A term goes through at most 16 roundings in its block, two when the block is added, and one for each later block,
    /// `18 + terms / 32` in total. [`Sums::ascending`] allows more than that up to 16,896 terms, and is used for shorter
    /// sums. Subnormal numbers are lost as in [`Sums::in_pairs`].
    pub fn in_tiles(terms: usize) -> Sums {
        Sums { smallest: 2.0 * SMALLEST_NORMAL, ..Sums::ascending(terms) }
    }

    /// Blocks of 32 products of operands that are split into three bf16 terms each: six tile instructions for each block.
    /// A term goes through at most 18 roundings in its own instruction and one for each of the others. Splitting is exact
    /// (three times 8 bits are the 24 of an f32), and the three products that are left out are at most 2^-23 of the whole:
    /// two units. That makes 20, and 4 are to spare. A term below [`SMALLEST_NORMAL`] is lost, and its product with the
    /// `largest` values of the activations and of the weights with it.
    pub fn in_split_tiles(terms: usize, largest: [f64; 2]) -> Sums {
        let smallest = SMALLEST_NORMAL * (largest[0] + largest[1] + 1.0);
        Sums { terms, roundings: 6 * terms.div_ceil(32) + 24, smallest }
    }
}

/// The most roundings of a term in blocks of this many terms.
fn in_blocks(terms: usize, block: usize) -> usize {
    terms.min(block) + terms / block + 1
}

/// The bound of a matrix product with its epilogue.
///
/// Adding the bias rounds once. An activation passes the error on, multiplied by at most its steepest slope, and adds the
/// error of [`activation`](super::activation). Adding the residual rounds once more.
pub fn gemm(dot: &Dot, activation: Activation, sums: Sums) -> Bound {
    let Sums { terms, roundings, smallest } = sums;
    let lost = terms as f64 * smallest;
    let sum = if dot.sum.is_finite() { gamma(roundings as f64) * dot.magnitude + lost } else { 0.0 };
    let biased = sum + U * (dot.biased.abs() + sum);
    let activated = match activation {
        _ if dot.biased.is_infinite() => 0.0,
        Activation::Identity | Activation::Relu => biased,
        other => other.steepest() * biased + ACTIVATION * (dot.biased.abs() + biased) + TINY,
    };
    Bound { exact: dot.exact, error: activated + U * (dot.exact.abs() + activated) }
}
