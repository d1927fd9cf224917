//! Any bytes as a whole weight file of Keras: no panic, not even one that the loader would catch from the reader
//! of HDF5, and what is accepted lies in the file, each byte in one tensor at most. A file that does not start
//! as one is given a superblock that says that it is whole, so that mutations reach the groups.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rachis_loader::{Data, Region, hdf5};
use rachis_testkit::CountingAllocator;

#[path = "files/parts.rs"]
#[allow(dead_code, reason = "the input is one file")]
mod parts;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What a file of a few KiB may make the reader allocate in all.
const MOST_BYTES: u64 = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&parts::hdf5(bytes));
});

fn check(bytes: &[u8]) {
    let region = Arc::new(Region::from_vec("fuzz", bytes.to_vec()));
    let (parsed, counts) = CountingAllocator::measure(|| hdf5::parse(&region));
    assert!(counts.bytes < MOST_BYTES, "{counts:?}");
    let tensors = match parsed {
        Ok(tensors) => tensors,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.len() < 4000, "{message:?}");
            return;
        }
    };
    assert!(tensors.is_sorted_by(|a, b| a.name() < b.name()), "every name once");
    let mut places = Vec::new();
    for tensor in &tensors {
        let begin = tensor.file_offset().expect("it comes from a file");
        let range = begin..begin + tensor.byte_len();
        assert_eq!(Some(tensor.bytes()), bytes.get(range.clone()));
        let elements: usize = tensor.shape().iter().product();
        assert_eq!(tensor.byte_len() * 8, elements * tensor.dtype().bits());
        let found = match tensor.data() {
            Data::F32(data) => data.len(),
            Data::Bf16(data) => data.len(),
            Data::F16(data) => data.len(),
            _ => elements,
        };
        assert_eq!(found, elements);
        if !range.is_empty() {
            places.push((range.start, range.end));
        }
    }
    places.sort();
    assert!(places.is_sorted_by(|a, b| a.1 <= b.0), "no two tensors share a byte");
}
