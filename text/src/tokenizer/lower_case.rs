//! Lowercasing before everything else: sentence-transformers' `do_lower_case`, a setting beside the tokenizer's own.

use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::{Lowercase, Sequence};

use super::Tokenizer;
use crate::error::{Result, in_file};

impl Tokenizer {
    /// Lowercases texts before the tokenizer's own normalisation, unless that has a step of just this kind. Special
    /// tokens are found first, in the text as it is.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when the tokenizer does not take the step.
    pub(crate) fn lowercase_first(&mut self) -> Result<()> {
        self.lower_case = true;
        let own = self.library.get_normalizer().cloned();
        let steps = match own {
            Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().to_vec(),
            Some(step) => vec![step],
            None => Vec::new(),
        };
        if !steps.iter().any(|step| matches!(step, NormalizerWrapper::Lowercase(_))) {
            let steps = [vec![NormalizerWrapper::Lowercase(Lowercase)], steps].concat();
            let step = self.library.with_normalizer(Some(Sequence::new(steps)));
            step.map_err(|error| in_file("tokenizer", error))?;
        }
        Ok(())
    }
}

/// The text with each character lowercased by itself, as the library does it.
pub(super) fn text(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
