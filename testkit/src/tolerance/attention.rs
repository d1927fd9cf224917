//! The bound of attention.
//!
//! For one query and head, with n keys and a head of width d, let `s_j = (q . k_j + b_j) scale` be the exact scores,
//! `p_j = e^(s_j) / sum_i e^(s_i)` the attention weights, and `y = sum_j p_j v_j` a column of the output.
//!
//! **Scores.** A product of d terms goes through at most d roundings, adding the bias (which may be a rounded product
//! itself) and multiplying by the scale through 3 more; one is to spare for blocks of k. So a computed score is off by at
//! most `e = (d + 4) U max_j (|q| . |k_j| + |b_j|) scale`.
//!
//! **Weights from wrong scores.** If each score is off by at most e, each `e^(s_j)` and their sum are off by a factor between
//! `e^-e` and `e^e`, and so each weight by one between `e^(-2 e)` and `e^(2 e)`: `|p'_j - p_j| <= 2 e p_j` to first order.
//! The weights add up to 1, hence `|y' - y| <= 2 e max_j |v_j|`.
//!
//! **Rounding after the scores**, in units of U and relative to `max_j |v_j|`:
//!
//! - the sum of the weights: at most n, for adding n terms;
//! - the weighted sum: at most n, for n products and additions in one rounding each;
//! - exponentials: 2.1 each ([`EXP`](super::EXP)) in the numerator and the denominator, so 4.2, and subtracting the maximum
//!   rounds a difference x, which changes `e^-x` by x U: weighted with `e^-x` that is below 1, in both again, so 2;
//! - the division: 1;
//! - a maximum that grows from one block of keys to the next scales what is summed: an exponential and a product, 3 for each
//!   block. A block has 128 keys, and a term goes through 128 additions and one for each block, so blocks save far more
//!   roundings than this costs: it is within the n of the sums, except for a single key more than one block, where 4
//!   suffice.
//!
//! That is `2 n + 11.2`, allowed for as `2 n + 12`.
//!
//! **Rounded weights.** At the precision bf16 each weight is rounded to bf16 before it multiplies a value, while the sum of
//! the weights is of the unrounded ones: [`BF16_U`](super::BF16_U) more.

use super::{Bound, U};
use crate::oracle;

/// A query of a head: the operands as the precision multiplies them.
#[derive(Debug, Clone)]
pub struct AttentionRow<'a> {
    /// The query, as wide as the head.
    pub query: &'a [f64],
    /// The keys that the query sees.
    pub keys: Vec<&'a [f64]>,
    /// As many values.
    pub values: Vec<&'a [f64]>,
    /// Added to the product with each key.
    pub bias: Vec<f64>,
    /// Multiplies the sum of product and bias.
    pub scale: f64,
    /// The relative error of rounding an attention weight before it is multiplied: 0 or [`BF16_U`](super::BF16_U).
    pub weight_rounding: f64,
}

/// The bounds of a row of attention, column after column of the head.
pub fn attention(row: &AttentionRow<'_>) -> Vec<Bound> {
    let (mut scores, mut score_error) = (Vec::new(), 0.0f64);
    for (key, bias) in row.keys.iter().zip(&row.bias) {
        let products = row.query.iter().zip(*key).map(|(q, k)| q * k);
        let (sum, magnitude) =
            products.fold((0.0, 0.0), |(sum, magnitude), x| (sum + x, magnitude + x.abs()));
        scores.push((sum + bias) * row.scale);
        let roundings = row.query.len() as f64 + 4.0;
        score_error = score_error.max(roundings * U * (magnitude + bias.abs()) * row.scale);
    }
    let relative = 2.0 * score_error + (2.0 * row.keys.len() as f64 + 12.0) * U + row.weight_rounding;
    let exact = oracle::weighted_sum(&scores, &row.values);
    let columns = exact.into_iter().enumerate();
    let bound = |(column, exact): (usize, f64)| {
        let largest = row.values.iter().fold(0.0, |largest: f64, value| largest.max(value[column].abs()));
        Bound { exact, error: relative * largest }
    };
    columns.map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Rng;
    use crate::tolerance::BF16_U;
    use half::bf16;

    /// A query with keys and values, in numbers that f32 holds.
    struct Operands {
        query: Vec<f64>,
        keys: Vec<Vec<f64>>,
        values: Vec<Vec<f64>>,
        bias: Vec<f64>,
    }

    const WIDTH: usize = 16;

    impl Operands {
        fn random(keys: usize) -> Operands {
            let mut rng = Rng::new(keys as u64);
            let mut row = || (0..WIDTH).map(|_| f64::from(rng.signed() as f32)).collect::<Vec<f64>>();
            let query = row();
            let bias = (0..keys).map(|key| -0.125 * key as f64).collect();
            let (keys, values) = ((0..keys).map(|_| row()).collect(), (0..keys).map(|_| row()).collect());
            Operands { query, keys, values, bias }
        }

        fn row(&self) -> AttentionRow<'_> {
            AttentionRow {
                query: &self.query,
                keys: self.keys.iter().map(Vec::as_slice).collect(),
                values: self.values.iter().map(Vec::as_slice).collect(),
                bias: self.bias.clone(),
                scale: 0.25,
                weight_rounding: 0.0,
            }
        }
    }

    /// Attention in f32 arithmetic, by the definition; `rounded` is what becomes of a weight before it multiplies a value.
    fn in_f32(row: &AttentionRow<'_>, rounded: fn(f32) -> f32) -> Vec<f32> {
        let score = |(key, bias): (&&[f64], &f64)| {
            let products = row.query.iter().zip(*key).map(|(q, k)| *q as f32 * *k as f32);
            (products.sum::<f32>() + *bias as f32) * row.scale as f32
        };
        let scores: Vec<f32> = row.keys.iter().zip(&row.bias).map(score).collect();
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
        let total: f32 = weights.iter().sum();
        let terms = |column: usize| {
            row.values.iter().zip(&weights).map(move |(v, weight)| rounded(*weight) * v[column] as f32)
        };
        (0..WIDTH).map(|column| terms(column).sum::<f32>() / total).collect()
    }

    fn admits(bounds: &[Bound], got: &[f32]) -> bool {
        assert_eq!(bounds.len(), got.len());
        bounds.iter().zip(got).all(|(bound, got)| bound.admits(*got))
    }

    #[test]
    fn arithmetic_in_f32_is_within_the_bounds() {
        for keys in [1, 2, 17, 128, 129, 1000] {
            let operands = Operands::random(keys);
            let bounds = attention(&operands.row());
            assert!(admits(&bounds, &in_f32(&operands.row(), |weight| weight)), "{keys} keys");
            // Values are below 1: the bound is a few units for each key and each column of the head.
            let largest = bounds.iter().fold(0.0, |largest: f64, bound| largest.max(bound.error));
            assert!(largest < (4.0 * keys as f64 + 1000.0) * U, "{keys} keys: {largest:e}");
        }
    }

    #[test]
    fn weights_rounded_to_bf16_are_within_their_bounds_and_outside_those_of_f32() {
        let operands = Operands::random(17);
        let rounded = in_f32(&operands.row(), |weight| bf16::from_f32(weight).to_f32());
        assert!(!admits(&attention(&operands.row()), &rounded));
        assert!(admits(&attention(&AttentionRow { weight_rounding: BF16_U, ..operands.row() }), &rounded));
    }

    /// Each wrong result is refused, also where weights may be rounded.
    #[test]
    fn a_wrong_result_is_outside_the_bounds() {
        let operands = Operands::random(17);
        let right = operands.row();
        let one_key_less = AttentionRow {
            keys: right.keys[..16].to_vec(),
            values: right.values[..16].to_vec(),
            bias: right.bias[..16].to_vec(),
            ..right.clone()
        };
        let no_bias = AttentionRow { bias: vec![0.0; 17], ..right.clone() };
        let mut shifted = right.bias.clone();
        shifted.rotate_right(1);
        let shifted_bias = AttentionRow { bias: shifted, ..right.clone() };
        let no_scale = AttentionRow { scale: 1.0, ..right.clone() };
        let mut swapped = right.values.clone();
        swapped.swap(0, 1);
        let swapped_values = AttentionRow { values: swapped, ..right.clone() };
        for weight_rounding in [0.0, BF16_U] {
            let bounds = attention(&AttentionRow { weight_rounding, ..right.clone() });
            for (i, wrong) in
                [&one_key_less, &no_bias, &shifted_bias, &no_scale, &swapped_values].into_iter().enumerate()
            {
                let wrong: Vec<f32> = attention(wrong).iter().map(|bound| bound.exact as f32).collect();
                assert!(!admits(&bounds, &wrong), "mistake {i}, weight rounding {weight_rounding}");
            }
        }
        // In f32 even a scale that is off by 1 / 2000 is refused.
        let scale = AttentionRow { scale: 0.25 * 1.0005, ..right.clone() };
        let wrong: Vec<f32> = attention(&scale).iter().map(|bound| bound.exact as f32).collect();
        assert!(!admits(&attention(&right), &wrong));
    }

    #[test]
    fn scores_that_are_not_finite_leave_no_bound() {
        let mut operands = Operands::random(3);
        operands.query[0] = f64::NAN;
        let bounds = attention(&operands.row());
        assert!(bounds.iter().all(|bound| bound.admits(f32::NAN) && !bound.admits(0.0f32)));
    }
}
