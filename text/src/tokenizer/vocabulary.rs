//! The tokens of a vocabulary: from a token to its id, from an id to its token, and the tokens that a text starts with.
//!
//! Models of many languages have 250,000 tokens, so opening one must not allocate for each. The tokens lie one after the
//! other in one string, and a table with open addressing finds them by their hash. The hash is a polynomial in a random
//! number modulo a prime: it grows byte by byte, so all prefixes of a text cost one pass, and a file cannot aim at
//! collisions. (The number decides only how long a search takes.)

use std::hash::{BuildHasher, Hasher, RandomState};

/// The tokens of a vocabulary, with their ids.
pub struct Vocabulary {
    /// The tokens, one after the other.
    text: String,
    /// In the order of the ids.
    entries: Vec<Entry>,
    /// A power of two, at most half of which are taken.
    slots: Vec<Slot>,
    /// The bytes of the longest token, by the hash of its first [`START`] bytes.
    reach: Vec<u16>,
    /// Number of different tokens.
    distinct: usize,
    key: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    len: u32,
    id: u32,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Bits of the hash that are not in the index.
    tag: u32,
    /// The index of the entry, or [`EMPTY`].
    entry: u32,
}

const EMPTY: u32 = u32::MAX;

/// A token that a text starts with: its bytes, and its index in the order of the ids.
pub type Prefix = (usize, usize);

/// Tokens of fewer bytes are always looked up; others only up to the longest one that starts with the same bytes.
const START: usize = 4;

/// Upper limit of the bytes of all tokens.
const MAX_TEXT: usize = 1 << 30;

impl Vocabulary {
    /// The vocabulary of tokens with their ids. A token that is listed twice has the highest id; an id that is listed
    /// twice has the last token.
    ///
    /// # Errors
    /// When the tokens are too many or too long.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Result<Vocabulary, &'static str> {
        let mut text = String::new();
        let mut entries = Vec::new();
        for (token, id) in tokens {
            if token.len() > u16::MAX as usize || text.len() + token.len() > MAX_TEXT {
                return Err("tokens are too long");
            }
            entries.push(Entry { start: text.len() as u32, len: token.len() as u32, id });
            text.push_str(token);
        }
        if !entries.is_sorted_by_key(|entry| entry.id) {
            entries.sort_by_key(|entry| entry.id);
        }
        if entries.len() > (EMPTY / 4) as usize {
            return Err("too many tokens");
        }
        let size = (2 * entries.len()).next_power_of_two();
        let key = RandomState::new().build_hasher().finish() % PRIME;
        let mut vocabulary = Vocabulary {
            text,
            entries,
            slots: vec![Slot { tag: 0, entry: EMPTY }; size],
            reach: vec![0; 1 << 16],
            distinct: 0,
            key,
        };
        for i in 0..vocabulary.entries.len() {
            let token = vocabulary.text_of(i).as_bytes();
            let hash = token.iter().fold(HASH_OF_NOTHING, |hash, byte| step(hash, *byte, key));
            let (len, start) = (token.len() as u16, start_hash(token));
            if let Some(start) = start {
                vocabulary.reach[start] = vocabulary.reach[start].max(len);
            }
            let slot = vocabulary.slot(hash, vocabulary.text_of(i));
            vocabulary.distinct += usize::from(vocabulary.slots[slot].entry == EMPTY);
            vocabulary.slots[slot] = Slot { tag: tag(hash), entry: i as u32 };
        }
        Ok(vocabulary)
    }

    /// Number of different tokens.
    pub fn len(&self) -> usize {
        self.distinct
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.index(token).map(|index| self.id_at(index))
    }

    /// The index of a token in the order of the ids.
    pub fn index(&self, token: &str) -> Option<usize> {
        let hash = token.bytes().fold(HASH_OF_NOTHING, |hash, byte| step(hash, byte, self.key));
        self.find(hash, token)
    }

    /// The token of an id.
    pub fn token(&self, id: u32) -> Option<&str> {
        let after = self.entries.partition_point(|entry| entry.id <= id);
        let at = after.checked_sub(1).filter(|at| self.entries[*at].id == id)?;
        Some(self.text_of(at))
    }

    /// The id at an index.
    pub fn id_at(&self, index: usize) -> u32 {
        self.entries[index].id
    }

    /// The tokens that `text` starts with, behind `before`, shortest first: `before` and the text together are the
    /// token, and only the bytes of the text count.
    pub fn prefixes<'a>(&'a self, before: &'a str, text: &'a str) -> impl Iterator<Item = Prefix> + 'a {
        let mut hash = before.bytes().fold(HASH_OF_NOTHING, |hash, byte| step(hash, byte, self.key));
        let mut start = [0; START];
        let known = before.bytes().chain(text.bytes());
        let longest = match known.zip(&mut start).map(|(byte, at)| *at = byte).count() {
            START => start_hash(&start).map_or(0, |start| usize::from(self.reach[start])),
            _ => 0,
        };
        let longest = longest.max(START - 1).saturating_sub(before.len());
        text.as_bytes().iter().take(longest).enumerate().filter_map(move |(at, byte)| {
            hash = step(hash, *byte, self.key);
            let len = at + 1;
            if !text.is_char_boundary(len) {
                return None;
            }
            let entry = self.find_in_two(hash, before, &text[..len])?;
            Some((len, entry))
        })
    }

    /// The tokens and their ids, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.entries.len()).map(|index| (self.text_of(index), self.id_at(index)))
    }

    fn text_of(&self, index: usize) -> &str {
        let Entry { start, len, .. } = self.entries[index];
        &self.text[start as usize..(start + len) as usize]
    }

    fn find(&self, hash: u64, token: &str) -> Option<usize> {
        self.find_in_two(hash, token, "")
    }

    /// The index of the token that is two texts together.
    fn find_in_two(&self, hash: u64, first: &str, second: &str) -> Option<usize> {
        let equals = |token: &str| token.strip_prefix(first) == Some(second);
        let slot = self.slots[self.probe(hash, equals)];
        (slot.entry != EMPTY).then_some(slot.entry as usize)
    }

    /// The slot of a token, or the empty one where it belongs.
    fn slot(&self, hash: u64, token: &str) -> usize {
        self.probe(hash, |found| found == token)
    }

    fn probe(&self, hash: u64, equals: impl Fn(&str) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            let found = || slot.tag == tag(hash) && equals(self.text_of(slot.entry as usize));
            if slot.entry == EMPTY || found() {
                return at;
            }
            at = (at + 1) & mask;
        }
    }
}

/// The modulus of the hash, a Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;

const HASH_OF_NOTHING: u64 = 1;

/// The hash of a text and one more byte.
fn step(hash: u64, byte: u8, key: u64) -> u64 {
    let product = u128::from(hash) * u128::from(key) + u128::from(byte) + 1;
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}

/// The bits of a hash that a slot stores.
fn tag(hash: u64) -> u32 {
    (hash >> 29) as u32
}

/// The index into `reach` of a token; `None` for one with fewer than [`START`] bytes.
fn start_hash(token: &[u8]) -> Option<usize> {
    let start = u32::from_le_bytes(*token.first_chunk::<START>()?);
    Some((start.wrapping_mul(0x9e37_79b1) >> 16) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_text_and_by_id() {
        let tokens =
            [("a", 5), ("##ab", 2), ("", 9), ("\u{2581}the", 7), ("a", 3), ("b", 3), ("abcdefg", 100)];
        let vocabulary = Vocabulary::new(tokens).unwrap();
        assert_eq!(vocabulary.len(), 6);
        let ids: Vec<_> =
            ["a", "##ab", "", "\u{2581}the", "b", "ab", "abcdefg"].map(|t| vocabulary.id(t)).into();
        assert_eq!(ids, [Some(5), Some(2), Some(9), Some(7), Some(3), None, Some(100)]);
        let texts: Vec<_> = [2, 3, 4, 5, 100].map(|id| vocabulary.token(id)).into();
        assert_eq!(texts, [Some("##ab"), Some("b"), None, Some("a"), Some("abcdefg")]);
    }

    #[test]
    fn prefixes_are_all_tokens_that_a_text_starts_with() {
        let tokens = ["a", "ab", "abc", "abcde", "abcdefghij", "b", "\u{e9}", "\u{e9}a", "##b", "##bcdef"];
        let vocabulary = Vocabulary::new(tokens.into_iter().zip(0..)).unwrap();
        let found = |before, text| vocabulary.prefixes(before, text).collect::<Vec<_>>();
        assert_eq!(found("", "abcdefgh"), [(1, 0), (2, 1), (3, 2), (5, 3)]);
        assert_eq!(found("", "abcdefghijk").last(), Some(&(10, 4)));
        assert_eq!(found("", "\u{e9}ab"), [(2, 6), (3, 7)]);
        assert_eq!(found("##", "bcdefg"), [(1, 8), (5, 9)]);
        assert_eq!(found("##", "b"), [(1, 8)]);
        assert_eq!(found("", ""), []);
        assert_eq!(found("", "xyz"), []);
    }

    #[test]
    fn many_tokens_are_all_found() {
        let tokens: Vec<String> = (0..20_000).map(|i| format!("t{i}")).collect();
        let vocabulary = Vocabulary::new(tokens.iter().map(String::as_str).zip(0..)).unwrap();
        for (i, token) in tokens.iter().enumerate() {
            assert_eq!(vocabulary.id(token), Some(i as u32));
            assert_eq!(vocabulary.token(i as u32), Some(token.as_str()));
        }
        assert_eq!(vocabulary.id("t20000"), None);
    }
}
