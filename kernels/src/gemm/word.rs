//! What a lane of the micro-kernels holds: one f32, or a pair of bf16 that are multiplied at once.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::__m512;

use crate::elem::Elem;
use crate::isa::{LANES, Simd};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx512::Avx512, avx512_bf16::Bf16Pairs};
use crate::mem;
use crate::view::MatRef;

/// Where a word is: so many words behind a place, with no alignment. Instructions that read it where they need it take
/// both apart.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) base: *const f32,
    pub(crate) index: usize,
}

/// 4 bytes with one or more successive values of k.
pub(crate) trait Word<S: Simd>: Copy + Send + Sync {
    /// Values of k in a word.
    const VALUES: usize;

    /// `sum` and the products of the values in words `x` and `v`.
    fn mul_add(self, s: S, x: S::F32, v: S::F32, sum: S::F32) -> S::F32;

    /// [`Word::mul_add`] of the word at `x`, in all lanes, and each of `v`, to each of `sums`.
    ///
    /// # Safety
    /// The word must be readable.
    #[inline(always)]
    unsafe fn mul_add_by<const V: usize>(self, s: S, x: Place, v: [S::F32; V], sums: &mut [S::F32; V]) {
        // SAFETY: the caller's contract.
        let x = s.splat(unsafe { x.base.add(x.index).read_unaligned() });
        for (sum, v) in sums.iter_mut().zip(v) {
            *sum = self.mul_add(s, x, v, *sum);
        }
    }

    /// 16 words that follow one another in a row, rounded to bf16 if they are to be.
    ///
    /// # Safety
    /// The elements of 16 words must be readable at `from`.
    unsafe fn along<T: Elem>(self, s: S, from: *const T, round: bool) -> S::F32;

    /// [`Word::along`] from an element of a row on, zeros past the row's end.
    fn along_ragged<T: Elem>(self, s: S, row: &[T], at: usize, round: bool) -> S::F32;

    /// 16 words of each of 16 rows `stride` elements apart, turned: vector `i` holds word `i` of every row.
    ///
    /// # Safety
    /// The elements of 16 words must be readable at `from` and in each further row.
    #[inline(always)]
    unsafe fn turned<T: Elem>(self, s: S, from: *const T, stride: usize, round: bool) -> [S::F32; LANES] {
        if size_of::<T>() * Self::VALUES == size_of::<f32>() && !round {
            // SAFETY: the caller's contract; the words are as they must be.
            return unsafe { s.load_turned(from.cast(), stride.wrapping_mul(size_of::<T>())) };
        }
        let mut block = [s.splat(0.0); LANES];
        for (i, v) in block.iter_mut().enumerate() {
            // SAFETY: the caller's contract.
            *v = unsafe { self.along(s, from.wrapping_add(i * stride), round) };
        }
        s.transpose(block)
    }

    /// 16 words side by side, their values from successive rows `stride` elements apart.
    ///
    /// # Safety
    /// 16 elements must be readable at `from` and in each further row of a word.
    unsafe fn across<T: Elem>(self, s: S, from: *const T, stride: usize, round: bool) -> S::F32;

    /// [`Word::across`] from row `k` and column `n` of a matrix on, zeros past its ends.
    fn across_ragged<T: Elem>(self, s: S, from: MatRef<'_, T>, at: (usize, usize), round: bool) -> S::F32;

    /// A word of each lane's values, of which those past [`Word::VALUES`] do not count, rounded to bf16 if they are
    /// to be.
    fn compose(self, s: S, values: [S::F32; 2], round: bool) -> S::F32;

    /// The `i`th words of those in the storage that four lanes' bits are, of which there are
    /// [`words_in`] `16`. Storage that must be rounded is, if words are narrower than f32.
    fn unpack<T: Elem>(self, s: S, stored: [S::F32; 4], i: usize) -> S::F32;
}

/// Words of `values` values in as many bytes of storage.
pub(crate) const fn words_in<T>(bytes: usize, values: usize) -> usize {
    bytes / size_of::<T>() / values
}

/// An f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Single;

impl<S: Simd> Word<S> for Single {
    const VALUES: usize = 1;

    #[inline(always)]
    fn mul_add(self, s: S, x: S::F32, v: S::F32, sum: S::F32) -> S::F32 {
        s.mul_add(x, v, sum)
    }

    #[inline(always)]
    unsafe fn along<T: Elem>(self, s: S, from: *const T, round: bool) -> S::F32 {
        // SAFETY: the caller's contract.
        let v = unsafe { T::load(s, from) };
        if round { s.round_to_bf16(v) } else { v }
    }

    #[inline(always)]
    fn along_ragged<T: Elem>(self, s: S, row: &[T], at: usize, round: bool) -> S::F32 {
        let v = mem::load(s, row, at.min(row.len()));
        if round { s.round_to_bf16(v) } else { v }
    }

    #[inline(always)]
    unsafe fn across<T: Elem>(self, s: S, from: *const T, _: usize, round: bool) -> S::F32 {
        // SAFETY: the caller's contract.
        unsafe { Word::<S>::along(self, s, from, round) }
    }

    #[inline(always)]
    fn across_ragged<T: Elem>(self, s: S, from: MatRef<'_, T>, at: (usize, usize), round: bool) -> S::F32 {
        self.along_ragged(s, from.row(at.0), at.1, round)
    }

    #[inline(always)]
    fn compose(self, s: S, [v, _]: [S::F32; 2], round: bool) -> S::F32 {
        if round { s.round_to_bf16(v) } else { v }
    }

    #[inline(always)]
    fn unpack<T: Elem>(self, s: S, stored: [S::F32; 4], i: usize) -> S::F32 {
        let each = size_of::<f32>() / size_of::<T>();
        T::split(s, stored[i / each])[i % each]
    }
}

/// Two bf16.
#[cfg(target_arch = "x86_64")]
impl Word<Avx512> for Bf16Pairs {
    const VALUES: usize = 2;

    #[inline(always)]
    fn mul_add(self, s: Avx512, x: __m512, v: __m512, sum: __m512) -> __m512 {
        Bf16Pairs::mul_add(self, s, x, v, sum)
    }

    /// A broadcast of its own would take as long as a product: where few share it, each product reads the word itself.
    /// 16 rows of `[N, K]` run at 0.9 of the peak instead of 0.65, 8 at 0.75 instead of 0.5; for 8 vectors, one
    /// broadcast is 0.05 faster.
    #[inline(always)]
    unsafe fn mul_add_by<const V: usize>(self, s: Avx512, x: Place, v: [__m512; V], sums: &mut [__m512; V]) {
        // SAFETY: the caller's contract.
        unsafe {
            let shared = s.splat(x.base.add(x.index).read_unaligned());
            for (sum, v) in sums.iter_mut().zip(v) {
                *sum = match V {
                    0..=4 => self.mul_add_at(s, x.base, x.index, v, *sum),
                    _ => Word::mul_add(self, s, shared, v, *sum),
                };
            }
        }
    }

    #[inline(always)]
    unsafe fn along<T: Elem>(self, s: Avx512, from: *const T, _: bool) -> __m512 {
        // SAFETY: the caller's contract: 32 elements.
        unsafe {
            if T::IS_BF16 {
                s.load(from.cast())
            } else {
                self.join(s, T::load(s, from), T::load(s, from.add(LANES)))
            }
        }
    }

    #[inline(always)]
    fn along_ragged<T: Elem>(self, s: Avx512, row: &[T], at: usize, round: bool) -> __m512 {
        if at + 2 * LANES <= row.len() {
            // SAFETY: 32 elements are there.
            return unsafe { self.along(s, row[at..].as_ptr(), round) };
        }
        let (first, second) = (at.min(row.len()), (at + LANES).min(row.len()));
        self.join(s, mem::load(s, row, first), mem::load(s, row, second))
    }

    #[inline(always)]
    unsafe fn across<T: Elem>(self, s: Avx512, from: *const T, stride: usize, _: bool) -> __m512 {
        let next = from.wrapping_add(stride);
        // SAFETY: the caller's contract: 16 elements of two rows.
        unsafe {
            if T::IS_BF16 {
                self.load_alternating(s, from.cast(), next.cast())
            } else {
                self.interleave(s, T::load(s, from), T::load(s, next))
            }
        }
    }

    #[inline(always)]
    fn across_ragged<T: Elem>(self, s: Avx512, from: MatRef<'_, T>, at: (usize, usize), _: bool) -> __m512 {
        let row = |k: usize| if k < from.rows() { from.row(k) } else { &[] };
        let (even, odd) = (row(at.0), row(at.0 + 1));
        self.interleave(s, mem::load(s, even, at.1.min(even.len())), mem::load(s, odd, at.1.min(odd.len())))
    }

    #[inline(always)]
    fn compose(self, s: Avx512, [even, odd]: [__m512; 2], _: bool) -> __m512 {
        self.interleave(s, even, odd)
    }

    #[inline(always)]
    fn unpack<T: Elem>(self, s: Avx512, stored: [__m512; 4], i: usize) -> __m512 {
        if T::IS_BF16 {
            return stored[i];
        }
        if size_of::<T>() == size_of::<f32>() {
            return self.interleave(s, stored[2 * i], stored[2 * i + 1]);
        }
        let [even, odd] = T::split(s, stored[i]);
        self.interleave(s, even, odd)
    }
}
