//! The special tokens that have names.

/// The name of a special token in transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpecialToken {
    /// `bos_token`: starts a sequence.
    Bos,
    /// `eos_token`: ends a sequence.
    Eos,
    /// `unk_token`: stands for text that the vocabulary lacks.
    Unknown,
    /// `sep_token`: separates two texts.
    Sep,
    /// `pad_token`: fills a batch.
    Pad,
    /// `cls_token`: the token whose vector stands for the sequence.
    Cls,
    /// `mask_token`: the place of a token that is to be predicted.
    Mask,
}

/// The ids of the special tokens that have names, in the order of [`NAMES`](super::settings::NAMES).
#[derive(Debug, Clone, Copy, Default)]
pub struct Named(pub [Option<u32>; 7]);

impl Named {
    pub fn get(&self, name: SpecialToken) -> Option<u32> {
        self.0[name as usize]
    }
}
