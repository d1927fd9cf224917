//! Tokens as the words of a text: what tasks ask that show tokens to a reader.

use super::model::Model;
use super::{CleanUpSpaces, DecodeOptions, Engine, Tokenizer};

impl Tokenizer {
    /// Whether the vocabulary marks tokens that continue a word, as WordPiece's `##` does: the library's
    /// `continuing_subword_prefix`.
    pub(crate) fn marks_continuations(&self) -> bool {
        match &self.engine {
            Engine::Pipeline(library) => match library.get_model() {
                Model::WordPiece(model) => !model.prefix.is_empty(),
                Model::Bpe(model) => !model.prefix().is_empty(),
                Model::Unigram(_) | Model::WordLevel(_) => false,
            },
            Engine::Words(_) | Engine::Pieces(_) | Engine::Python(_) => false,
        }
    }

    /// The text of tokens, as the vocabulary spells them: transformers' `convert_tokens_to_string`.
    pub(crate) fn join(&self, tokens: &[&str]) -> String {
        let mut stream = self.decode_stream(DecodeOptions::new().with_clean_up(CleanUpSpaces::No));
        let mut text = String::new();
        for token in tokens {
            stream.push_token(token, &mut text);
        }
        stream.end(&mut text);
        text
    }
}
