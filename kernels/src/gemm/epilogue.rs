//! From sums to the output: bias, activation, residual, one rounding, and the turn of a transposed tile.

use super::tile::Tile;
use super::{Layout, Product};
use crate::activation::Activation;
use crate::elem::Elem;
use crate::elem::private::Storage;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::{AnyMatMut, MatMut, any};

/// Finishes the sums of `tile` into `out`, whose top left corner in X rows and V lanes is `at` before the
/// tile's.
#[inline(always)]
pub(super) fn finish<S: Simd>(
    s: S,
    op: &Product<'_>,
    mut tile: Tile<'_>,
    out: &mut AnyMatMut<'_>,
    at: (usize, usize),
) {
    if op.bias.is_some() || op.activation != Activation::Identity {
        for i in 0..tile.x.len() {
            activate_row(s, op, &mut tile, i);
        }
    }
    any!(AnyMatMut, out, out => match op.weights.layout {
        Layout::Kn => store(s, op, &tile, out, at),
        Layout::Nk => store_turned(s, op, &tile, out, at),
    });
}

/// Adds the bias to row `i` of the sums and applies the activation, in place.
#[inline(always)]
fn activate_row<S: Simd>(s: S, op: &Product<'_>, tile: &mut Tile<'_>, i: usize) {
    let lanes = tile.v.len().next_multiple_of(LANES);
    let sums = &mut tile.sums[i * tile.stride..][..lanes];
    if let Some(bias) = op.bias {
        any!(AnySlice, bias, bias => {
            let same = match op.weights.layout {
                Layout::Nk => s.splat(bias[tile.x.start + i].widen()),
                Layout::Kn => s.splat(0.0),
            };
            for at in (0..lanes).step_by(LANES) {
                let bias = match op.weights.layout {
                    Layout::Nk => same,
                    Layout::Kn => mem::load(s, bias, tile.v.start + at),
                };
                let y = s.add(mem::load(s, sums, at), bias);
                mem::store(s, sums, at, y);
            }
        });
    }
    op.activation.apply(s, sums);
}

/// Stores a tile whose rows are rows of the output.
#[inline(always)]
fn store<S: Simd, C: Elem>(
    s: S,
    op: &Product<'_>,
    tile: &Tile<'_>,
    out: &mut MatMut<'_, C>,
    at: (usize, usize),
) {
    let residual = op.residual.and_then(C::typed);
    for i in 0..tile.x.len() {
        let residual = residual.map(|residual| &residual.row(tile.x.start + i)[tile.v.start..]);
        let to = &mut out.row_mut(at.0 + i)[at.1..][..tile.v.len()];
        for j in (0..to.len()).step_by(LANES) {
            let y = mem::load(s, tile.sums, i * tile.stride + j);
            let y = if let Some(residual) = residual { s.add(y, mem::load(s, residual, j)) } else { y };
            mem::store(s, to, j, y);
        }
    }
}

/// Stores a tile whose rows are columns of the output, turning 16 x 16 blocks in registers.
#[inline(always)]
fn store_turned<S: Simd, C: Elem>(
    s: S,
    op: &Product<'_>,
    tile: &Tile<'_>,
    out: &mut MatMut<'_, C>,
    at: (usize, usize),
) {
    let residual = op.residual.and_then(C::typed);
    for j in (0..tile.v.len()).step_by(LANES) {
        for i in (0..tile.x.len()).step_by(LANES) {
            let sums = &tile.sums[i * tile.stride + j..];
            let mut block = [s.splat(0.0); LANES];
            for (r, y) in block.iter_mut().enumerate() {
                *y = mem::load(s, sums, r * tile.stride);
            }
            for (lane, y) in s.transpose(block).into_iter().enumerate().take(tile.v.len() - j) {
                let to = &mut out.row_mut(at.1 + j + lane)[at.0..][..tile.x.len()];
                let y = match residual {
                    Some(residual) => {
                        s.add(y, mem::load(s, residual.row(tile.v.start + j + lane), tile.x.start + i))
                    }
                    None => y,
                };
                mem::store(s, to, i, y);
            }
        }
    }
}
