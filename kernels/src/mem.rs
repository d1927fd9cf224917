//! Bounds-checked vector loads and stores: 16 elements of a slice, or its last few.

use crate::elem::Elem;
use crate::isa::{LANES, Simd};
use crate::view::{AnySlice, any};

/// The elements `at .. at + 16` of `from`, or as many as there are; missing lanes are zero.
#[inline(always)]
pub(crate) fn load<S: Simd, T: Elem>(s: S, from: &[T], at: usize) -> S::F32 {
    let rest = &from[at..];
    if rest.len() >= LANES {
        // SAFETY: 16 elements are there.
        unsafe { T::load(s, rest.as_ptr()) }
    } else {
        let mut lanes = [T::default(); LANES];
        lanes[..rest.len()].copy_from_slice(rest);
        // SAFETY: the array has 16 elements.
        unsafe { T::load(s, lanes.as_ptr()) }
    }
}

/// [`load`] from a slice whose storage type is known at run time.
#[inline(always)]
pub(crate) fn load_any<S: Simd>(s: S, from: AnySlice<'_>, at: usize) -> S::F32 {
    any!(AnySlice, from, from => load(s, from, at))
}

/// Stores into the elements `at .. at + 16` of `to`, or as many as there are.
#[inline(always)]
pub(crate) fn store<S: Simd, T: Elem>(s: S, to: &mut [T], at: usize, v: S::F32) {
    let rest = &mut to[at..];
    if rest.len() >= LANES {
        // SAFETY: 16 elements are there.
        unsafe { T::store(s, rest.as_mut_ptr(), v) }
    } else {
        let mut lanes = [T::default(); LANES];
        // SAFETY: the array has 16 elements.
        unsafe { T::store(s, lanes.as_mut_ptr(), v) };
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}
