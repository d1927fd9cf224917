//! From tokens to entities.

use core::ops::Range;

use super::{Aggregation, Entity};
use crate::error::Result;
use crate::labels::Labels;
use crate::scores::argmax;
use crate::tokenizer::Tokenizer;

/// A token of a text.
#[derive(Debug)]
pub(super) struct Token {
    /// Its number in the sequence.
    pub(super) index: usize,
    /// The token as the vocabulary spells it; the text itself, where the vocabulary lacks it.
    pub(super) word: String,
    /// Where it stands in the text, in bytes.
    pub(super) span: Option<Range<usize>>,
    /// Whether it continues the word of the token before it.
    pub(super) continues: bool,
    /// The probabilities of the classes.
    pub(super) scores: Vec<f32>,
}

/// The entities of the tokens of a text.
pub(super) fn entities(
    tokenizer: &Tokenizer,
    labels: &Labels,
    tokens: Vec<Token>,
    aggregation: Aggregation,
) -> Result<Vec<Entity>> {
    let of_words = |choose: fn(&[Token]) -> (usize, f32)| -> Result<Vec<Entity>> {
        let words = tokens.chunk_by(|_, next| next.continues);
        let entities: Vec<Entity> =
            words.map(|tokens| word(tokenizer, labels, tokens, choose(tokens))).collect::<Result<_>>()?;
        group(tokenizer, &entities)
    };
    match aggregation {
        Aggregation::None => Ok(each(labels, tokens)),
        Aggregation::Simple => group(tokenizer, &each(labels, tokens)),
        Aggregation::First => of_words(first),
        Aggregation::Average => of_words(average),
        Aggregation::Max => of_words(largest),
    }
}

/// Each token with its most probable label.
fn each(labels: &Labels, tokens: Vec<Token>) -> Vec<Entity> {
    let entity = |token: Token| {
        let class = argmax(&token.scores);
        Entity {
            label: labels.name(class).to_owned(),
            score: token.scores[class],
            index: Some(token.index),
            word: token.word,
            span: token.span,
        }
    };
    tokens.into_iter().map(entity).collect()
}

/// The tokens of a word as one entity of this class.
fn word(
    tokenizer: &Tokenizer,
    labels: &Labels,
    tokens: &[Token],
    (class, score): (usize, f32),
) -> Result<Entity> {
    let names: Vec<&str> = tokens.iter().map(|token| token.word.as_str()).collect();
    let spans = tokens.iter().map(|token| token.span.as_ref());
    Ok(Entity {
        label: labels.name(class).to_owned(),
        score,
        index: None,
        word: tokenizer.join(&names),
        span: hull(spans),
    })
}

/// The class of a word and its score: of the first token.
fn first(tokens: &[Token]) -> (usize, f32) {
    tokens.first().map_or((0, 0.0), best)
}

/// The class of a word and its score: of the token whose best score is largest, the first of several.
fn largest(tokens: &[Token]) -> (usize, f32) {
    let of_tokens: Vec<(usize, f32)> = tokens.iter().map(best).collect();
    let scores: Vec<f32> = of_tokens.iter().map(|(_, score)| *score).collect();
    of_tokens.get(argmax(&scores)).copied().unwrap_or((0, 0.0))
}

/// The class of a word and its score: the largest mean over the tokens.
fn average(tokens: &[Token]) -> (usize, f32) {
    let classes = tokens.first().map_or(0, |token| token.scores.len());
    let mean = |class: usize| mean(tokens.iter().map(|token| token.scores[class]));
    let means: Vec<f32> = (0..classes).map(mean).collect();
    let class = argmax(&means);
    (class, means.get(class).copied().unwrap_or(0.0))
}

fn best(token: &Token) -> (usize, f32) {
    let class = argmax(&token.scores);
    (class, token.scores[class])
}

/// Entities that follow one another with the same label become one, unless the label says that another begins.
fn group(tokenizer: &Tokenizer, entities: &[Entity]) -> Result<Vec<Entity>> {
    let groups = entities.chunk_by(|last, next| {
        let (position, tag) = tag(&next.label);
        position != Position::Begin && tag == self::tag(&last.label).1
    });
    let merge = |entities: &[Entity]| {
        let words: Vec<&str> = entities.iter().map(|entity| entity.word.as_str()).collect();
        // What stands behind the first hyphen, whatever is before it.
        let label = entities.first().map_or("", |entity| entity.label.as_str());
        Ok(Entity {
            label: label.split_once('-').map_or(label, |(_, tag)| tag).to_owned(),
            score: mean(entities.iter().map(|entity| entity.score)),
            index: None,
            word: tokenizer.join(&words),
            span: hull(entities.iter().map(|entity| entity.span.as_ref())),
        })
    };
    groups.map(merge).collect()
}

/// What a label says about the place of a token in its entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Begin,
    Inside,
}

/// The place that a label names, and the rest of the label. A label without a place is inside.
fn tag(label: &str) -> (Position, &str) {
    match (label.strip_prefix("B-"), label.strip_prefix("I-")) {
        (Some(tag), _) => (Position::Begin, tag),
        (None, Some(tag)) => (Position::Inside, tag),
        (None, None) => (Position::Inside, label),
    }
}

/// From the start of the first span to the end of the last.
fn hull<'s>(mut spans: impl Iterator<Item = Option<&'s Range<usize>>>) -> Option<Range<usize>> {
    let first = spans.next()??;
    let last = match spans.last() {
        None => first,
        Some(last) => last?,
    };
    Some(first.start..last.end)
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len().max(1) as f64;
    (values.map(f64::from).sum::<f64>() / count) as f32
}

/// The entities of the windows of a text. Of entities that overlap the longest stays, of equally long ones that with the
/// largest score.
pub(super) fn join_windows(text: &str, windows: Vec<Vec<Entity>>) -> Vec<Entity> {
    let several = windows.len() > 1;
    let mut entities: Vec<Entity> = windows.into_iter().flatten().collect();
    let span = |entity: &Entity| entity.span.clone().unwrap_or_default();
    if !several || entities.iter().any(|entity| entity.span.is_none()) {
        return entities;
    }
    let characters = |entity: &Entity| text.get(span(entity)).map_or(0, |text| text.chars().count());
    entities.sort_by_key(|entity| span(entity).start);
    let mut joined: Vec<Entity> = Vec::new();
    for entity in entities {
        match joined.last_mut() {
            Some(last) if span(last).contains(&span(&entity).start) => {
                let (length, before) = (characters(&entity), characters(last));
                if length > before || (length == before && entity.score > last.score) {
                    *last = entity;
                }
            }
            _ => joined.push(entity),
        }
    }
    joined
}
