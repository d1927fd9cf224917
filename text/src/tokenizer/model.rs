//! The models of a tokenizer: from a word to the tokens of a vocabulary.
//!
//! They give the tokens that the `tokenizers` crate's models give, on a [`Vocabulary`] that opens quickly and without
//! caches: the library copies each token several times, builds a trie node by node for a unigram model, and keeps what it
//! has merged for as long as the thread lives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::Token;
use tokenizers::models::unigram::UnigramTrainer;

use super::bpe::Bpe;
use super::unigram::Unigram;
use super::vocabulary::Vocabulary;

/// A model of a pipeline.
pub enum Model {
    Bpe(Bpe),
    Unigram(Unigram),
    WordPiece(WordPiece),
    WordLevel(WordLevel),
}

/// WordPiece (Schuster and Nakajima, 2012): the longest token that a word starts with, then the longest continuation.
pub struct WordPiece {
    pub vocabulary: Vocabulary,
    pub unknown: String,
    /// The prefix of continuations.
    pub prefix: String,
    /// Words of more characters are unknown.
    pub max_chars: usize,
}

/// A token for each word.
pub struct WordLevel {
    pub vocabulary: Vocabulary,
    pub unknown: String,
}

impl tokenizers::Model for Model {
    // The trait demands one; nothing is trained here.
    type Trainer = UnigramTrainer;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Model::Bpe(model) => Ok(model.tokenize(word)?),
            Model::Unigram(model) => Ok(model.tokenize(word)?),
            Model::WordPiece(model) => Ok(model.tokenize(word)?),
            Model::WordLevel(model) => Ok(model.tokenize(word)?),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary().id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary().token(id).map(str::to_owned)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.vocabulary().iter().map(|(token, id)| (token.to_owned(), id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            // The library counts pieces, also those that are listed twice.
            Model::Unigram(model) => model.len(),
            _ => self.vocabulary().len(),
        }
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("tokenizers are not saved".into())
    }

    fn get_trainer(&self) -> UnigramTrainer {
        UnigramTrainer::default()
    }
}

impl Model {
    pub fn vocabulary(&self) -> &Vocabulary {
        match self {
            Model::Bpe(model) => &model.vocabulary,
            Model::Unigram(model) => &model.vocabulary,
            Model::WordPiece(model) => &model.vocabulary,
            Model::WordLevel(model) => &model.vocabulary,
        }
    }
}

impl WordPiece {
    fn tokenize(&self, word: &str) -> Result<Vec<Token>, &'static str> {
        Ok(match self.pieces(word) {
            Some(tokens) => tokens,
            None => vec![unknown(&self.vocabulary, &self.unknown, word)?],
        })
    }

    /// The tokens of a word; `None` when it has none.
    pub fn pieces(&self, word: &str) -> Option<Vec<Token>> {
        if word.chars().count() > self.max_chars {
            return None;
        }
        let mut tokens = Vec::new();
        let mut from = 0;
        while from < word.len() {
            let before = if from == 0 { "" } else { self.prefix.as_str() };
            let (len, index) = self.vocabulary.prefixes(before, &word[from..]).last()?;
            let piece = &word[from..from + len];
            tokens.push(Token::new(
                self.vocabulary.id_at(index),
                [before, piece].concat(),
                (from, from + len),
            ));
            from += len;
        }
        Some(tokens)
    }
}

impl WordLevel {
    fn tokenize(&self, word: &str) -> Result<Vec<Token>, &'static str> {
        Ok(vec![match self.vocabulary.id(word) {
            Some(id) => Token::new(id, word.to_owned(), (0, word.len())),
            None => unknown(&self.vocabulary, &self.unknown, word)?,
        }])
    }
}

/// The unknown token in the place of a word.
fn unknown(vocabulary: &Vocabulary, token: &str, word: &str) -> Result<Token, &'static str> {
    let id = vocabulary.id(token).ok_or("the vocabulary lacks the unknown token, which the text needs")?;
    Ok(Token::new(id, token.to_owned(), (0, word.len())))
}
