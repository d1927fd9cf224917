//! Generation with a model: prefill and decode steps on the session's KV slots. The steps of each strategy have their own
//! file in `generate/`.

mod beam;
mod contrastive;
mod sample;

use core::fmt;
use core::ops::{ControlFlow, Range};

use rachis_kernels::MatRef;

use super::config::{GenerationConfig, LogProbabilities};
use super::processors::LogitsProcessors;
use super::stop::StoppingCriterion;
use super::strategy::{ContrastiveSearch, Strategy};
use crate::config::field;
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
    /// The log-probability of each new token in the distribution that it was chosen from, after processors, temperature
    /// and filters: transformers' `compute_transition_scores(..., normalize_logits=True)`. Empty with
    /// [`LogProbabilities::Skip`].
    pub log_probabilities: Vec<f32>,
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
/// Those of [`Generation::start`] and [`Generation::advance`].
pub fn generate(
    model: &(impl Decoder + ?Sized),
    session: &mut Session<'_>,
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
    watch: Option<Watcher<'_>>,
) -> Result<Vec<Vec<Generated>>> {
    let mut ignore = |_| ControlFlow::Continue(());
    Generation::start(model, session, inputs, config, None)?.run(watch.unwrap_or(&mut ignore))
}

/// A generation in progress, step by step: [`generate()`] is [`Generation::start`] and [`Generation::run`].
///
/// It borrows the session, whose sequences are those that are generated.
pub struct Generation<'g, 'p, M: ?Sized> {
    loops: GenerationLoop<'g, 'p, M>,
    state: State<'g>,
}

impl<M: ?Sized> fmt::Debug for Generation<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("prompts", &self.loops.prompts.len()).finish_non_exhaustive()
    }
}

/// What a strategy keeps between steps.
enum State<'g> {
    Sample(sample::Sampling),
    Beam(beam::Searches<'g>),
    Contrastive(contrastive::Contrasting),
}

impl<'g, 'p, M: Decoder + ?Sized> Generation<'g, 'p, M> {
    /// Starts a generation: checks the request, starts the session anew and decodes the prompts. `stop` ends sequences
    /// besides end tokens.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when a field of the configuration is out of range, or it has
    /// `stop_strings` and `stop` is `None`; [`Error::Request`](crate::Error::Request) when the inputs do not fit the
    /// model or the configuration; [`Error::Kernel`](crate::Error::Kernel) when memory could not be allocated; and the
    /// errors of a call that the session ends, by its deadline or its flag.
    pub fn start(
        model: &'g M,
        session: &'g mut Session<'p>,
        inputs: GenerationInputs<'_>,
        config: &'g GenerationConfig,
        stop: Option<Box<dyn StoppingCriterion + 'g>>,
    ) -> Result<Generation<'g, 'p, M>> {
        let vocabulary = model.vocabulary_size();
        config.validate(vocabulary)?;
        if let (Some(text), None) = (config.stop_strings.first(), &stop) {
            return Err(field("stop_strings", text, "none where there is no tokenizer"));
        }
        let (prompts, sources) = prompts(model, inputs, config)?;
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
        let processors =
            prompts.iter().zip(&max_lengths).zip(&sources).map(|((prompt, max_length), source)| {
                LogitsProcessors::new(config, source, prompt.len(), *max_length)
            });
        let mut loops = GenerationLoop {
            step: DecodeStep { model, session, states: Vec::new(), logits: Vec::new(), vocabulary },
            processors: processors.collect(),
            prompts,
            max_lengths,
            config,
            slots_per_prompt,
            stop,
        };
        let state = match config.strategy {
            Strategy::Sample(sampler) => State::Sample(loops.start_sampling(sampler)?),
            Strategy::Beam(search) => State::Beam(loops.start_beams(&search)?),
            Strategy::Contrastive(search) => State::Contrastive(loops.start_contrastive(search)?),
        };
        Ok(Generation { loops, state })
    }

    /// Extends the running sequences by one token each. Returns `Break` when all have ended, or when `watch` broke.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when memory could not be allocated, and the errors of a call that the
    /// session ends, by its deadline or its flag.
    pub fn advance(&mut self, watch: Watcher<'_>) -> Result<ControlFlow<()>> {
        match &mut self.state {
            State::Sample(sampling) => self.loops.sample(sampling, watch),
            State::Beam(searches) => self.loops.search(searches, watch),
            State::Contrastive(contrasting) => self.loops.contrast(contrasting, watch),
        }
    }

    /// The sequences as they are: for every prompt a list, best first.
    pub fn finish(self) -> Vec<Vec<Generated>> {
        match self.state {
            State::Sample(sampling) => self.loops.sampled(sampling),
            State::Beam(searches) => self.loops.found(searches),
            State::Contrastive(contrasting) => self.loops.contrasted(contrasting),
        }
    }

    /// Advances to the end, and finishes.
    ///
    /// # Errors
    /// As [`Generation::advance`].
    pub fn run(mut self, watch: Watcher<'_>) -> Result<Vec<Vec<Generated>>> {
        while self.advance(watch)?.is_continue() {}
        Ok(self.finish())
    }
}

/// The decoder's prompt for every sequence of the inputs, and what its encoder reads; of a decoder-only model, the prompt
/// again.
type Prompts = (Vec<Vec<u32>>, Vec<Vec<u32>>);

fn prompts(
    model: &(impl Decoder + ?Sized),
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
) -> Result<Prompts> {
    let mut rows = RowLayout::default();
    let vocabulary = model.vocabulary_size();
    let positions = if model.has_encoder() { model.max_positions() } else { usize::MAX };
    rows.fill(inputs.tokens, Limits { vocabulary, positions }, First::IfReal)?;
    let sources: Vec<Vec<u32>> =
        rows.spans.iter().map(|span| rows.ids[span.queries.clone()].to_vec()).collect();
    if !model.has_encoder() {
        if inputs.decoder_prompt.is_some() {
            return Err(RequestError::NoEncoder { what: "decoder prompt" }.into());
        }
        return Ok((sources.clone(), sources));
    }
    let start = config.decoder_start_token_id.or(config.bos_token_id);
    let prompt = match (inputs.decoder_prompt, start) {
        (Some([]), _) | (None, None) => {
            return Err(RequestError::EmptyDecoderPrompt.into());
        }
        (Some(prompt), _) => prompt.to_vec(),
        (None, Some(start)) if start as usize >= vocabulary => {
            return Err(field("decoder_start_token_id", start, format!("less than {vocabulary}")));
        }
        (None, Some(start)) => vec![start],
    };
    Ok((vec![prompt; sources.len()], sources))
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

/// What the steps of all strategies share. Prompt `i` owns the `slots_per_prompt` KV slots from `i * slots_per_prompt`
/// on.
struct GenerationLoop<'g, 'p, M: ?Sized> {
    step: DecodeStep<'g, 'p, M>,
    prompts: Vec<Vec<u32>>,
    /// The maximum length of each prompt's sequences, prompt included.
    max_lengths: Vec<usize>,
    processors: Vec<LogitsProcessors<'g>>,
    config: &'g GenerationConfig,
    slots_per_prompt: usize,
    stop: Option<Box<dyn StoppingCriterion + 'g>>,
}

impl<M: Decoder + ?Sized> GenerationLoop<'_, '_, M> {
    /// Prefill: decodes the prompts, each into the first of its slots.
    fn prefill(&mut self) -> Result<()> {
        let slots: Vec<usize> =
            (0..self.prompts.len()).map(|prompt| prompt * self.slots_per_prompt).collect();
        let lengths: Vec<usize> = self.prompts.iter().map(Vec::len).collect();
        self.step.append(&slots, Tokens::ragged(&self.prompts.concat(), &lengths))
    }

    /// Whether a sequence ends with its last token.
    fn has_ended(&self, prompt: usize, ids: &[u32]) -> bool {
        ids.len() >= self.max_lengths[prompt]
            || ids.last().is_some_and(|last| self.config.eos_token_ids.contains(last))
            || self.stop.as_ref().is_some_and(|stop| stop.is_met(ids))
    }

    fn wants_log_probabilities(&self) -> bool {
        self.config.log_probabilities == LogProbabilities::Chosen
    }
}
