//! Lowercasing before everything else: sentence-transformers' `do_lower_case`, a setting beside the tokenizer's own.

use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::{Lowercase, Sequence};

use super::{Engine, Tokenizer};
use crate::error::{Result, in_file};

impl Tokenizer {
    /// Lowercases texts before the tokenizer's own normalisation, unless that has a step of just this kind. Special
    /// tokens are found first, in the text as it is.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) for a tokenizer that is not a pipeline of steps.
    pub(crate) fn lowercase_first(&mut self) -> Result<()> {
        let Engine::Pipeline(library) = &mut self.engine else {
            return Err(in_file(
                "tokenizer_config.json",
                "do_lower_case before this tokenizer is not implemented",
            ));
        };
        let steps = match library.get_normalizer() {
            Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().to_vec(),
            Some(step) => vec![step.clone()],
            None => Vec::new(),
        };
        if !steps.iter().any(|step| matches!(step, NormalizerWrapper::Lowercase(_))) {
            let steps = [vec![NormalizerWrapper::Lowercase(Lowercase)], steps].concat();
            let replaced = library.with_normalizer(Some(Sequence::new(steps)));
            replaced.map_err(|error| in_file("tokenizer_config.json", error))?;
        }
        Ok(())
    }
}
