//! Casts between bytes and typed slices.
//!
//! Weight files are little-endian, and the machine must be, too: then a cast is enough. [`fits`] says whether a cast is
//! possible. It is checked once, when a tensor is made; [`typed`] then cannot fail.

use bytemuck::Pod;

#[cfg(target_endian = "big")]
compile_error!("weight files are little-endian and are used in place: big-endian targets are not supported");

/// Whether `bytes` can be cast to a slice of `T`: they are aligned for it, and a whole number of elements.
pub(crate) fn fits<T: Pod>(bytes: &[u8]) -> bool {
    bytemuck::try_cast_slice::<u8, T>(bytes).is_ok()
}

/// Casts `bytes` to a slice of `T`.
///
/// # Panics
/// When `bytes` do not fit: see [`fits`]. Callers hold a tensor, whose constructor has checked this; its bytes neither
/// move nor change their length afterwards.
pub(crate) fn typed<T: Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

/// Casts a typed slice to its bytes. Always possible.
pub(crate) fn bytes<T: Pod>(data: &[T]) -> &[u8] {
    bytemuck::cast_slice(data)
}

/// Casts a typed slice to its bytes, for writing. Always possible.
pub(crate) fn bytes_mut<T: Pod>(data: &mut [T]) -> &mut [u8] {
    bytemuck::cast_slice_mut(data)
}
