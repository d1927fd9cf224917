//! Several files out of one input, in a form that mutations keep: parts lie between separators, without lengths or
//! counts, and formats whose first bytes must fit all others can leave them out.

/// What separates parts. Neither byte occurs in UTF-8.
const SEPARATOR: [u8; 2] = [0xc1, 0xfe];

/// The parts of an input; the first may be empty.
pub fn parts(mut input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = input.windows(2).position(|pair| pair == SEPARATOR) {
        parts.push(&input[..at]);
        input = &input[at + 2..];
    }
    parts.push(input);
    parts
}

/// A safetensors file from its header and data: the header ends with the last `}` and the spaces that align it.
pub fn safetensors(part: &[u8]) -> Vec<u8> {
    let mut header = part.iter().rposition(|byte| *byte == b'}').map_or(0, |last| last + 1);
    while part.get(header) == Some(&b' ') && !header.is_multiple_of(8) {
        header += 1;
    }
    [&(header as u64).to_le_bytes(), part].concat()
}

/// The same HDF5 file with a superblock of the first version that has its length and, as the root, what it had.
pub fn hdf5(part: &[u8]) -> Vec<u8> {
    let mut whole = part.to_vec();
    let Some(block) = whole.first_chunk_mut::<56>() else { return whole };
    block.fill(0);
    block[..8].copy_from_slice(b"\x89HDF\r\n\x1a\n");
    block[13..15].fill(8);
    (block[16], block[18]) = (4, 16);
    block[32..40].fill(0xff);
    block[40..48].copy_from_slice(&(part.len() as u64).to_le_bytes());
    block[48..56].fill(0xff);
    whole
}
