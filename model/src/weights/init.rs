//! The initial values of a randomly initialised model's weights.

use super::Random;
use crate::error::{Result, try_reserve};

/// How a weight is initialised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// Normal with this standard deviation, truncated at two of them.
    TruncatedNormal(f32),
    Zeros,
    Ones,
}

impl Init {
    /// KerasHub's initialiser of kernels and embeddings.
    pub(crate) const KERNEL: Init = Init::TruncatedNormal(0.02);

    /// `len` values.
    pub(super) fn values(self, random: &mut Random, len: usize) -> Result<Vec<f32>> {
        let mut data = Vec::new();
        try_reserve(&mut data, len)?;
        match self {
            Init::Zeros => data.resize(len, 0.0),
            Init::Ones => data.resize(len, 1.0),
            Init::TruncatedNormal(deviation) => {
                data.extend((0..len).map(|_| deviation * random.truncated_normal()));
            }
        }
        Ok(data)
    }
}
