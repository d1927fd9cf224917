//! Bytes as typed slices, and back.
//!
//! Weight files are little-endian, and so must be the machine: then a cast is all that is needed. Whether a
//! cast is possible is asked once, when a tensor is made ([`fits`]); [`typed`] then cannot fail.

use bytemuck::Pod;

#[cfg(target_endian = "big")]
compile_error!("weight files are little-endian and are used in place: big-endian targets are not supported");

/// Whether `bytes` can be seen as a slice of `T`: aligned for it, and a whole number of them.
pub(crate) fn fits<T: Pod>(bytes: &[u8]) -> bool {
    bytemuck::try_cast_slice::<u8, T>(bytes).is_ok()
}

/// `bytes` as a slice of `T`.
///
/// # Panics
/// When not [`fits`]. Callers hold a tensor, whose constructor has asked; its bytes neither move nor change
/// their length after that.
pub(crate) fn typed<T: Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

/// The bytes of a typed slice. Always possible.
pub(crate) fn bytes<T: Pod>(data: &[T]) -> &[u8] {
    bytemuck::cast_slice(data)
}

/// The bytes of a typed slice, for writing. Always possible.
pub(crate) fn bytes_mut<T: Pod>(data: &mut [T]) -> &mut [u8] {
    bytemuck::cast_slice_mut(data)
}
