//! Generation with a model: prefill and decode steps on the session's KV slots. The loop of each strategy has its own
//! file in `generate/`.

mod beam;
mod contrastive;
mod sample;

use core::ops::{ControlFlow, Range};

use rachis_kernels::MatRef;

use super::config::GenerationConfig;
use super::processors::LogitsProcessors;
use super::strategy::{ContrastiveSearch, Strategy};
use crate::decoder::Decoder;
use crate::error::{RequestError, Result, try_reserve};
use crate::session::{CacheOptions, First, Limits, RowLayout, Session, Tokens};

/// The prompts of [`generate()`].
#[derive(Debug, Clone, Copy)]
pub struct GenerationInputs<'a> {
    /// The encoder's inputs of an encoder-decoder model, the prompts of a decoder-only model. Padding is dropped, on
    /// whichever side it is.
    pub tokens: Tokens<'a>,
    /// The decoder's prompt of an encoder-decoder model, the same for each sequence: transformers' `decoder_input_ids`.
    /// `None` takes the configuration's `decoder_start_token_id`, else its `bos_token_id`.
    pub decoder_prompt: Option<&'a [u32]>,
}

/// A generated sequence.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Generated {
    /// Its tokens, the prompt's (of an encoder-decoder model, the decoder prompt's) first. If there is an end token
    /// among the new ones, it is the last.
    pub ids: Vec<u32>,
    /// Number of tokens of the prompt in `ids`.
    pub prompt_len: usize,
    /// The score of a hypothesis of a beam search: the sum of the log-probabilities of the new tokens under
    /// [`BeamRule::KerasHub`](super::BeamRule::KerasHub); this sum divided by `(number of new tokens)^length_penalty`
    /// under [`BeamRule::HuggingFace`](super::BeamRule::HuggingFace), transformers' `sequences_scores`. `None` for
    /// other strategies.
    pub score: Option<f32>,
}

impl Generated {
    /// The tokens after the prompt.
    pub fn new_ids(&self) -> &[u32] {
        self.ids.get(self.prompt_len..).unwrap_or_default()
    }
}

/// An event during generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A token was appended to a returned sequence. A beam search sends its tokens at the end.
    Token {
        /// Index of the prompt in the batch.
        prompt: usize,
        /// Index of the sequence among those of the prompt.
        sequence: usize,
        /// The token id.
        token: u32,
    },
    /// A beam search has extended its hypotheses by one token; which of them it will return is not known yet.
    Step,
}

/// A callback for every [`Progress`]. When it returns `Break`, generation stops and returns the sequences as they are.
pub type Watcher<'w> = &'w mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Generates sequences for every prompt, as transformers' `generate` or KerasHub's `generate` does.
///
/// The result has a list for every prompt, best sequence first, of `num_return_sequences` sequences, or fewer where a
/// beam search finds fewer. What a prompt gets does not depend on the other prompts.
///
/// The session is started anew: its earlier sequences are dropped.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) when a field of the configuration is out of range;
/// [`Error::Request`](crate::Error::Request) when the inputs do not fit the model or the configuration;
/// [`Error::Kernel`](crate::Error::Kernel) when memory could not be allocated; and the errors of a call that the session
/// ends, by its deadline or its flag.
pub fn generate(
    model: &(impl Decoder + ?Sized),
    session: &mut Session<'_>,
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
    watch: Option<Watcher<'_>>,
) -> Result<Vec<Vec<Generated>>> {
    let vocabulary = model.vocabulary_size();
    config.validate(vocabulary)?;
    let prompts = decoder_prompts(model, inputs, config)?;
    if prompts.is_empty() {
        return Err(RequestError::EmptyBatch.into());
    }
    // The last token is not decoded, except in a contrastive search, which compares the candidates' hidden states.
    let (slots_per_prompt, undecoded) = match config.strategy {
        Strategy::Sample(_) => (config.num_return_sequences, 1),
        Strategy::Beam(search) => (search.num_beams, 1),
        Strategy::Contrastive(ContrastiveSearch { k, .. }) => (k.min(vocabulary) + 1, 0),
    };
    let positions = model.max_positions().saturating_sub(1 - undecoded);
    let max_lengths: Vec<usize> = prompts
        .iter()
        .map(|prompt| config.length_limit(prompt.len(), Some(positions)))
        .collect::<Result<_>>()?;
    let capacity = max_lengths.iter().max().map_or(0, |length| length - undecoded);
    let sequences = prompts
        .len()
        .checked_mul(slots_per_prompt)
        .ok_or(RequestError::SequencesPerPrompt { found: slots_per_prompt })?;
    session.start(model, CacheOptions::new(sequences, capacity))?;
    if model.has_encoder() {
        model.encode(session, inputs.tokens)?;
    }
    let mut ignore = |_| ControlFlow::Continue(());
    let generation = GenerationLoop {
        step: DecodeStep { model, session, states: Vec::new(), logits: Vec::new(), vocabulary },
        processors: (prompts.iter().zip(&max_lengths))
            .map(|(prompt, max_length)| LogitsProcessors::new(config, prompt.len(), *max_length))
            .collect(),
        prompts,
        max_lengths,
        config,
        slots_per_prompt,
        watch: watch.unwrap_or(&mut ignore),
    };
    match config.strategy {
        Strategy::Sample(sampler) => generation.sample(sampler),
        Strategy::Beam(search) => generation.beam(search),
        Strategy::Contrastive(search) => generation.contrastive(search),
    }
}

/// The decoder's prompt for every sequence of the inputs.
fn decoder_prompts(
    model: &(impl Decoder + ?Sized),
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
) -> Result<Vec<Vec<u32>>> {
    let mut rows = RowLayout::default();
    if model.has_encoder() {
        // The sources are checked first, since there is one prompt for each of them.
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

/// The model and the session, with the buffers that a decode step fills.
struct DecodeStep<'d, 'p, M: ?Sized> {
    model: &'d M,
    session: &'d mut Session<'p>,
    /// `[sequences of the last call, hidden]`: the hidden state of the last token of each.
    states: Vec<f32>,
    /// `[sequences of the last call, vocabulary]`: the logits of these states.
    logits: Vec<f32>,
    vocabulary: usize,
}

impl<M: Decoder + ?Sized> DecodeStep<'_, '_, M> {
    /// Appends tokens to sequences (KV slots), and fills `states` and `logits` for the last token of each, in order.
    fn append(&mut self, sequences: &[usize], tokens: Tokens<'_>) -> Result<()> {
        let output = self.model.decode(self.session, sequences, tokens)?;
        self.states.clear();
        for i in 0..output.batch() {
            let rows = output.sequence(i);
            self.states.extend_from_slice(rows.row(rows.rows() - 1));
        }
        let hidden = output.hidden_dim();
        let len = sequences.len() * self.vocabulary;
        try_reserve(&mut self.logits, len)?;
        self.logits.resize(len, 0.0);
        let states = MatRef::new(&self.states, sequences.len(), hidden)?;
        self.model.logits(self.session, states, &mut self.logits)
    }

    /// Assigns KV slots out of `all` to the beams of the next step: transformers' `_reorder_cache`.
    ///
    /// `parents` has for each new beam the index in `slots` of the beam that it continues. The first new beam that
    /// continues a slot keeps it; the others get copies, in slots that no beam continues.
    fn reorder_cache(&mut self, all: Range<usize>, slots: &[usize], parents: &[usize]) -> Result<Vec<usize>> {
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

/// The state that the loops of all strategies share. Prompt `i` owns the `slots_per_prompt` KV slots from
/// `i * slots_per_prompt` on.
struct GenerationLoop<'d, 'p, M: ?Sized> {
    step: DecodeStep<'d, 'p, M>,
    prompts: Vec<Vec<u32>>,
    /// The maximum length of each prompt's sequences, prompt included.
    max_lengths: Vec<usize>,
    processors: Vec<LogitsProcessors<'d>>,
    config: &'d GenerationConfig,
    slots_per_prompt: usize,
    watch: Watcher<'d>,
}

impl<M: Decoder + ?Sized> GenerationLoop<'_, '_, M> {
    /// Prefill: decodes the prompts, each into the first of its slots.
    fn prefill(&mut self) -> Result<()> {
        let slots: Vec<usize> =
            (0..self.prompts.len()).map(|prompt| prompt * self.slots_per_prompt).collect();
        let lengths: Vec<usize> = self.prompts.iter().map(Vec::len).collect();
        self.step.append(&slots, Tokens::ragged(&self.prompts.concat(), &lengths))
    }

    /// Whether a sequence of this length ends with `token`.
    fn is_last(&self, prompt: usize, length: usize, token: u32) -> bool {
        length >= self.max_lengths[prompt] || self.config.eos_token_ids.contains(&token)
    }

    fn generated(&self, prompt: usize, ids: Vec<u32>, score: Option<f32>) -> Generated {
        Generated { ids, prompt_len: self.prompts[prompt].len(), score }
    }
}
