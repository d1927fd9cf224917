//! SentencePiece's `precompiled_charsmap`: which characters become which others before a text is cut.
//!
//! It is the size of a trie in bytes, the trie as a double array (darts-clone) of 32-bit units, and a blob of
//! replacements that end in NUL, at the offsets that are the values of the trie. KerasHub, which is SentencePiece itself,
//! replaces the longest prefix that the trie holds: [`CharsMap::longest`]. transformers takes the `tokenizers` crate's
//! reading of the same bytes, which replaces whole grapheme clusters of fewer than 6 bytes or else single characters,
//! and of each the shortest prefix; it indexes without checks, so [`CharsMap::is_sound`] checks first.

/// A map of characters, whose content is not trusted.
pub struct CharsMap {
    trie: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Parses a map; `None` when its parts are not what they should be.
    pub fn parse(bytes: &[u8]) -> Option<CharsMap> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let (units, odd) = trie.as_chunks::<4>();
        let replacements = String::from_utf8(replacements.to_vec()).ok()?;
        let trie = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let map = CharsMap { trie, replacements };
        (odd.is_empty() && map.longest_replacement() <= LONGEST_REPLACEMENT).then_some(map)
    }

    /// The bytes of the longest replacement: offsets may lie within one, but none leads across a NUL.
    pub fn longest_replacement(&self) -> usize {
        self.replacements.split('\0').map(str::len).max().unwrap_or_default()
    }

    /// The longest prefix of `text` that the map has: its bytes, and what it becomes.
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
        // A prefix that ends within a character, as no sound map has, would not be a prefix of text.
        longest.filter(|(len, _)| text.is_char_boundary(*len))
    }

    /// Whether no text can lead out of the map, nor to a replacement that is not there.
    pub fn is_sound(&self) -> bool {
        let Some(root) = self.trie.first().map(|unit| offset(*unit)) else { return false };
        let mut seen = vec![false; self.trie.len()];
        let mut ahead = vec![root];
        while let Some(at) = ahead.pop() {
            // All 256 units that a byte can lead to.
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
                    ahead.push(next);
                }
            }
        }
        true
    }

    /// The replacement at the value of a unit.
    fn value(&self, at: usize) -> Option<&str> {
        let value = *self.trie.get(at)? & 0x7fff_ffff;
        let from = self.replacements.get(value as usize..)?;
        Some(from.split('\0').next().unwrap_or_default())
    }
}

/// Most bytes that a character becomes: a text is made up to this much longer. Unicode's longest take 33.
const LONGEST_REPLACEMENT: usize = 1024;

/// Where the children of a unit are, to be combined with its place.
fn offset(unit: u32) -> usize {
    (unit as usize >> 10) << ((unit & 0x200) >> 6)
}

/// The byte that leads to a unit; a unit that holds a value has none.
fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}
