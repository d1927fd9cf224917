//! Any bytes as a whole weight file: no panic, and what is accepted, the format's own crate accepts too, with
//! the same tensors. A file that starts with anything but a plausible header length is given a right one, so
//! that mutations reach the JSON.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rachis_loader::{Data, Region, safetensors};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(with_length) = repair(bytes) {
        check(&with_length);
    }
});

fn check(bytes: &[u8]) {
    let region = Arc::new(Region::from_vec("fuzz", bytes.to_vec()));
    let tensors = match safetensors::parse(&region) {
        Ok(tensors) => tensors,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.len() < 4000, "{message:?}");
            return;
        }
    };
    let reference = ::safetensors::SafeTensors::deserialize(bytes).expect("the reference accepts it");
    assert_eq!(reference.len(), tensors.len());
    let mut total = 0;
    for tensor in &tensors {
        let expected = reference.tensor(tensor.name()).expect("the reference has it");
        assert_eq!((tensor.shape(), tensor.bytes()), (expected.shape(), expected.data()));
        let elements: usize = tensor.shape().iter().product();
        let found = match tensor.data() {
            Data::F32(data) => data.len(),
            Data::Bf16(data) => data.len(),
            Data::F16(data) => data.len(),
            Data::Other(dtype, data) => {
                assert_eq!(data.len() * 8, elements * dtype.bits());
                elements
            }
            _ => unreachable!("all kinds of data are above"),
        };
        assert_eq!(found, elements);
        total += tensor.byte_len();
    }
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    assert_eq!(8 + header + total, bytes.len(), "the data is covered exactly once");
}

/// The same file with the length of the header that ends at the last `}`.
fn repair(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.get(8..)?;
    let header = rest.iter().rposition(|byte| *byte == b'}')? + 1;
    Some((header as u64).to_le_bytes().into_iter().chain(rest.iter().copied()).collect())
}
