//! SentencePiece's `precompiled_charsmap`: the replacements of characters that normalise a text before tokenization.
//!
//! The format is the size of a trie in bytes, the trie as a double array (darts-clone) of 32-bit units, and a blob of
//! replacements. The values of the trie are offsets into the blob, where a replacement ends at a NUL. KerasHub, which
//! runs SentencePiece itself, replaces the longest prefix that the trie has: [`CharsMap::longest`]. transformers uses
//! the `tokenizers` crate's implementation, which replaces whole grapheme clusters of fewer than 6 bytes or else
//! single characters, and takes the shortest prefix of each. It indexes without checks, so [`CharsMap::is_sound`]
//! checks first.

/// A map of replacements from an untrusted file.
pub struct CharsMap {
    trie: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Parses a map; `None` when it is malformed or has a replacement that is too long.
    pub fn parse(bytes: &[u8]) -> Option<CharsMap> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let (units, rest) = trie.as_chunks::<4>();
        let replacements = String::from_utf8(replacements.to_vec()).ok()?;
        let trie = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let map = CharsMap { trie, replacements };
        (rest.is_empty() && map.longest_replacement() <= MAX_REPLACEMENT).then_some(map)
    }

    /// The bytes of the longest replacement. An offset may point into a replacement, but reading ends at its NUL.
    pub fn longest_replacement(&self) -> usize {
        self.replacements.split('\0').map(str::len).max().unwrap_or_default()
    }

    /// The longest prefix of `text` that the map has: its length in bytes, and its replacement.
    pub fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut at = offset(*self.trie.first()?);
        let mut longest = None;
        for (i, byte) in text.bytes().enumerate() {
            let next = at ^ usize::from(byte);
            let Some(unit) = self.trie.get(next).filter(|unit| byte != 0 && label(**unit) == u32::from(byte))
            else {
                break;
            };
            at = next ^ offset(*unit);
            if has_value(*unit) {
                longest = Some((i + 1, self.value(at)?));
            }
        }
        // A malformed map may have a prefix that ends inside a character.
        longest.filter(|(len, _)| text.is_char_boundary(*len))
    }

    /// Whether every path of the trie stays within it and every value is the offset of a replacement.
    pub fn is_sound(&self) -> bool {
        let Some(root) = self.trie.first().map(|unit| offset(*unit)) else { return false };
        let mut seen = vec![false; self.trie.len()];
        let mut pending = vec![root];
        while let Some(at) = pending.pop() {
            // The 256 units that the next byte can lead to.
            if (at | 0xff) >= self.trie.len() {
                return false;
            }
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            for byte in 1..=255 {
                let unit = self.trie[at ^ byte];
                if label(unit) as usize == byte {
                    let next = at ^ byte ^ offset(unit);
                    if has_value(unit) && self.value(next).is_none() {
                        return false;
                    }
                    pending.push(next);
                }
            }
        }
        true
    }

    /// The replacement whose offset is the value of the unit at `at`.
    fn value(&self, at: usize) -> Option<&str> {
        let value = *self.trie.get(at)? & 0x7fff_ffff;
        let from = self.replacements.get(value as usize..)?;
        Some(from.split('\0').next().unwrap_or_default())
    }
}

/// Upper limit of the bytes of a replacement, and so of the factor by which a text grows. Unicode's longest has 33.
const MAX_REPLACEMENT: usize = 1024;

/// The offset of a unit's children, which is combined by XOR with the unit's index.
fn offset(unit: u32) -> usize {
    (unit as usize >> 10) << ((unit & 0x200) >> 6)
}

/// The byte that leads to a unit; not a byte for a unit that holds a value.
fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

/// Whether a unit has a child that holds a value.
fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}
