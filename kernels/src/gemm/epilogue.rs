//! From sums to the output: bias, activation, residual, one rounding, and the turn of a transposed tile.

use super::tile::Tile;
use super::{Gemm, Layout};
use crate::elem::Elem;
use crate::isa::{LANES, Simd};
use crate::mem;
use crate::view::{MatMut, any};

/// Finishes the sums of `tile` into `out`, whose top left corner in X rows and V lanes is `at` before the
/// tile's.
#[inline(always)]
pub(super) fn finish<S: Simd, A: Elem, C: Elem>(
    s: S,
    op: &Gemm<'_, A, C>,
    tile: Tile<'_>,
    out: &mut MatMut<'_, C>,
    at: (usize, usize),
) {
    match op.weights.layout {
        Layout::Kn => {
            for (i, row) in tile.x.clone().enumerate() {
                for j in (0..tile.v.len()).step_by(LANES) {
                    let y = mem::load(s, tile.sums, i * tile.stride + j);
                    let y = match op.bias {
                        Some(bias) => s.add(y, any!(AnySlice, bias, b => mem::load(s, b, tile.v.start + j))),
                        None => y,
                    };
                    let y = op.activation.eval(s, y);
                    store(
                        s,
                        op,
                        (row, tile.v.start + j),
                        &mut out.row_mut(at.0 + i)[at.1..][..tile.v.len()],
                        j,
                        y,
                    );
                }
            }
        }
        Layout::Nk => {
            for i in (0..tile.x.len()).step_by(LANES) {
                let bias = match op.bias {
                    Some(bias) => {
                        let mut lanes = [0.0; LANES];
                        any!(AnySlice, bias, b => mem::store(s, &mut lanes, 0, mem::load(s, b, tile.x.start + i)));
                        lanes
                    }
                    None => [0.0; LANES],
                };
                for j in (0..tile.v.len()).step_by(LANES) {
                    let mut block = [s.splat(0.0); LANES];
                    for (r, y) in block.iter_mut().enumerate() {
                        let sum = mem::load(s, tile.sums, (i + r) * tile.stride + j);
                        *y = op
                            .activation
                            .eval(s, if op.bias.is_some() { s.add(sum, s.splat(bias[r])) } else { sum });
                    }
                    let block = s.transpose(block);
                    for (lane, y) in block.into_iter().enumerate().take(tile.v.len() - j) {
                        let row = tile.v.start + j + lane;
                        let to = &mut out.row_mut(at.1 + j + lane)[at.0..][..tile.x.len()];
                        store(s, op, (row, tile.x.start + i), to, i, y);
                    }
                }
            }
        }
    }
}

/// Adds the residual at row and column `at` of the output and stores at `to[j..]`.
#[inline(always)]
fn store<S: Simd, A, C: Elem>(
    s: S,
    op: &Gemm<'_, A, C>,
    at: (usize, usize),
    to: &mut [C],
    j: usize,
    y: S::F32,
) {
    let y = match &op.residual {
        Some(residual) => s.add(y, mem::load(s, residual.row(at.0), at.1)),
        None => y,
    };
    mem::store(s, to, j, y);
}
