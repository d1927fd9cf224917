//! Generation with a model: prompts in, sequences out. The loop of each strategy is a file below.

mod beam;
mod contrastive;
mod sample;

use core::ops::{ControlFlow, Range};

use rachis_kernels::MatRef;

use super::config::GenerationConfig;
use super::processors::Processors;
use super::strategy::{Contrastive, Strategy};
use crate::decoder::Decoder;
use crate::error::{RequestError, Result, try_reserve};
use crate::session::{CacheOptions, First, Limits, RowLayout, Session, Tokens};

/// What generation starts from.
#[derive(Debug, Clone, Copy)]
pub struct GenerationInputs<'a> {
    /// What an encoder reads, or what a model without one continues. Padding of prompts is dropped, wherever it is.
    pub tokens: Tokens<'a>,
    /// What the decoder begins with behind an encoder; `None` is the configuration's `decoder_start_token_id`.
    pub decoder_prompt: Option<&'a [u32]>,
}

/// A generated sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its tokens, those of the prompt, or of the decoder's, first. An end token is the last.
    pub ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub prompt: usize,
    /// What a beam search compares by: transformers' sum of logarithms of probabilities, divided by a power of the
    /// length, or KerasHub's sum.
    pub score: Option<f32>,
}

impl Generated {
    /// The tokens after the prompt.
    pub fn new_ids(&self) -> &[u32] {
        self.ids.get(self.prompt..).unwrap_or_default()
    }
}

/// What generation has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A sequence has got a token that stays.
    Token {
        /// The number of its prompt.
        prompt: usize,
        /// Which of the prompt's sequences.
        sequence: usize,
        /// The token.
        token: u32,
    },
    /// A beam search has looked one token further; what it will keep is not known yet.
    Step,
}

/// Called with every [`Progress`]; what has been generated so far is the result when it breaks.
pub type Watcher<'w> = &'w mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Generates sequences for every prompt: the best first, `num_return_sequences` of each, or fewer where a beam search
/// finds fewer. Each prompt gets what it would get alone.
///
/// The session is started anew: its earlier sequences are forgotten.
///
/// # Errors
/// A configuration or inputs that do not fit the model or one another; memory that cannot be had.
pub fn generate(
    model: &(impl Decoder + ?Sized),
    session: &mut Session<'_>,
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
    watch: Option<Watcher<'_>>,
) -> Result<Vec<Vec<Generated>>> {
    let vocabulary = model.vocabulary_size();
    config.validate(vocabulary)?;
    let prompts = prompts(model, inputs, config)?;
    if prompts.is_empty() {
        return Err(RequestError::EmptyBatch.into());
    }
    // The last token needs no decoding, but to be compared with others.
    let (width, undecoded) = match config.strategy {
        Strategy::Sample(_) => (config.num_return_sequences, 1),
        Strategy::Beam(search) => (search.num_beams, 1),
        Strategy::Contrastive(Contrastive { k, .. }) => (k.min(vocabulary) + 1, 0),
    };
    let positions = model.max_positions().saturating_sub(1 - undecoded);
    let limits: Vec<usize> = prompts
        .iter()
        .map(|prompt| config.length_limit(prompt.len(), Some(positions)))
        .collect::<Result<_>>()?;
    let capacity = limits.iter().max().map_or(0, |limit| limit - undecoded);
    let sequences =
        prompts.len().checked_mul(width).ok_or(RequestError::SequencesPerPrompt { found: width })?;
    session.start(model, CacheOptions::new(sequences, capacity))?;
    if model.has_encoder() {
        model.encode(session, inputs.tokens)?;
    }
    let mut ignore = |_| ControlFlow::Continue(());
    let generation = Generation {
        decoding: Decoding { model, session, states: Vec::new(), logits: Vec::new(), vocabulary },
        processors: (prompts.iter().zip(&limits))
            .map(|(prompt, limit)| Processors::new(config, prompt.len(), *limit))
            .collect(),
        prompts,
        limits,
        config,
        width,
        watch: watch.unwrap_or(&mut ignore),
    };
    match config.strategy {
        Strategy::Sample(sampler) => generation.sample(sampler),
        Strategy::Beam(search) => generation.beam(search),
        Strategy::Contrastive(search) => generation.contrastive(search),
    }
}

/// What the decoder begins with, for every sequence of the inputs.
fn prompts(
    model: &(impl Decoder + ?Sized),
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
) -> Result<Vec<Vec<u32>>> {
    let mut rows = RowLayout::default();
    if model.has_encoder() {
        // There is a prompt for each source, so that these come first.
        let limits = Limits { vocabulary: model.vocabulary_size(), positions: model.max_positions() };
        rows.fill(inputs.tokens, limits, First::IfReal)?;
        let start = config.decoder_start_token_id.or(config.bos_token_id);
        let prompt = match (inputs.decoder_prompt, start) {
            (Some([]), _) | (None, None) => {
                return Err(RequestError::EmptyDecoderPrompt.into());
            }
            (Some(prompt), _) => prompt.to_vec(),
            (None, Some(start)) => vec![start],
        };
        return Ok(vec![prompt; rows.spans.len()]);
    }
    if inputs.decoder_prompt.is_some() {
        return Err(RequestError::NoEncoder { what: "decoder prompt" }.into());
    }
    let limits = Limits { vocabulary: model.vocabulary_size(), positions: usize::MAX };
    rows.fill(inputs.tokens, limits, First::IfReal)?;
    Ok(rows.spans.iter().map(|span| rows.ids[span.queries.clone()].to_vec()).collect())
}

/// The model at work.
struct Decoding<'d, 'p, M: ?Sized> {
    model: &'d M,
    session: &'d mut Session<'p>,
    /// The last state of every sequence of the last call, and its logits.
    states: Vec<f32>,
    logits: Vec<f32>,
    vocabulary: usize,
}

impl<M: Decoder + ?Sized> Decoding<'_, '_, M> {
    /// Appends tokens to sequences; `states` and `logits` are those of the last token of each, in order.
    fn append(&mut self, sequences: &[usize], tokens: Tokens<'_>) -> Result<()> {
        let output = self.model.decode(self.session, sequences, tokens)?;
        self.states.clear();
        for i in 0..output.batch() {
            let rows = output.sequence(i);
            self.states.extend_from_slice(rows.row(rows.rows() - 1));
        }
        let width = output.hidden_dim();
        let len = sequences.len() * self.vocabulary;
        try_reserve(&mut self.logits, len)?;
        self.logits.resize(len, 0.0);
        let states = MatRef::new(&self.states, sequences.len(), width)?;
        self.model.logits(self.session, states, &mut self.logits)
    }

    /// Gives sequences that continue others slots out of `all`: `parents` are indices of `slots`. A slot goes to the
    /// first that continues it; copies of it go to slots that nobody continues.
    fn follow(&mut self, all: Range<usize>, slots: &[usize], parents: &[usize]) -> Result<Vec<usize>> {
        let continued: Vec<usize> = parents.iter().filter_map(|parent| slots.get(*parent).copied()).collect();
        let mut free = all.filter(|slot| !continued.contains(slot));
        let mut next = Vec::with_capacity(continued.len());
        for slot in &continued {
            if !next.contains(slot) {
                next.push(*slot);
            } else if let Some(copy) = free.next() {
                self.session.copy_sequence(*slot, copy)?;
                next.push(copy);
            }
        }
        Ok(next)
    }
}

/// A generation under way. The sequences of a prompt are `width` slots of the cache in a row.
struct Generation<'d, 'p, M: ?Sized> {
    decoding: Decoding<'d, 'p, M>,
    prompts: Vec<Vec<u32>>,
    limits: Vec<usize>,
    processors: Vec<Processors<'d>>,
    config: &'d GenerationConfig,
    width: usize,
    watch: Watcher<'d>,
}

impl<M: Decoder + ?Sized> Generation<'_, '_, M> {
    /// Decodes the prompts, each in the first of its slots.
    fn prefill(&mut self) -> Result<()> {
        let slots: Vec<usize> = (0..self.prompts.len()).map(|prompt| prompt * self.width).collect();
        let lengths: Vec<usize> = self.prompts.iter().map(Vec::len).collect();
        self.decoding.append(&slots, Tokens::ragged(&self.prompts.concat(), &lengths))
    }

    fn is_last(&self, prompt: usize, length: usize, token: u32) -> bool {
        length >= self.limits[prompt] || self.config.eos_token_ids.contains(&token)
    }

    fn result(&self, prompt: usize, ids: Vec<u32>, score: Option<f32>) -> Generated {
        Generated { ids, prompt: self.prompts[prompt].len(), score }
    }
}
