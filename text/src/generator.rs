//! Text generation.

mod stop;
mod stream;

use std::ffi::OsStr;

use rachis::generation::{GenerationConfig, GenerationFields, StoppingCriterion};
use rachis::loader::{ConfigSource, Preset};
use rachis::{Backbone, Decoder, Generated, GenerationInputs, PresetOptions, Session, Tokens};
use serde_json::Value;

use crate::error::{Error, Result, in_file};
use crate::tokenizer::{EncodeOptions, SpecialTokens, Tokenizer, Truncation};
use stop::StopStrings;

pub use stream::{TextPiece, TextStream};

/// Text from prompts, by a decoder-only model or one that reads the prompt with an encoder: what transformers' `generate`
/// makes between tokenizing and decoding, and KerasHub's `CausalLM.generate` and `Seq2SeqLM.generate`.
///
/// ```no_run
/// use rachis_text::TextGenerator;
/// use rachis_text::rachis::{Ctx, Session};
///
/// let generator = TextGenerator::from_preset("models/flan-t5-base")?;
/// let mut config = generator.config()?; // of the directory
/// config.max_new_tokens = Some(40);
/// let mut session = Session::new(Ctx::detect());
/// let found = generator.generate(&mut session, &["Translate to German: a lighthouse"], &config)?;
/// println!("{}", found[0][0].text);
/// # Ok::<(), rachis_text::Error>(())
/// ```
#[derive(Debug)]
pub struct TextGenerator {
    model: Backbone,
    /// `None` for token ids alone.
    tokenizer: Option<Tokenizer>,
    fields: GenerationFields,
    /// The text that goes before each prompt.
    prefix: String,
    /// The decoder's prompt of a KerasHub preset.
    decoder_prompt: Option<Vec<u32>>,
    /// Maximum number of tokens of the encoder's input, by the tokenizer's files. What is longer is cut.
    source_limit: Option<usize>,
}

/// A generated sequence and its text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GeneratedText {
    /// The text of the new tokens, without special tokens. Empty where there is no tokenizer.
    pub text: String,
    /// The sequence.
    pub sequence: Generated,
}

impl TextGenerator {
    /// The generator of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model has no decoder.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<TextGenerator> {
        TextGenerator::from_preset_with(name, PresetOptions::new())
    }

    /// [`TextGenerator::from_preset`] with options: the dtype, how weights are read.
    ///
    /// # Errors
    /// As [`TextGenerator::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<TextGenerator> {
        let preset = options.open(name)?;
        let model = Backbone::load_with(&preset, options)?;
        TextGenerator::load(&preset, model)
    }

    /// The generator of an open preset and its model.
    ///
    /// # Errors
    /// As [`TextGenerator::from_preset`].
    pub fn load(preset: &Preset, model: Backbone) -> Result<TextGenerator> {
        TextGenerator::new(preset, model, Some(Tokenizer::load(preset)?))
    }

    /// A generator of token ids alone, of a preset whose tokenizer is not needed. Its texts are empty, and a prompt that
    /// is a text is an error.
    ///
    /// # Errors
    /// As [`TextGenerator::from_preset`], but for the tokenizer's files.
    pub fn load_without_tokenizer(preset: &Preset, model: Backbone) -> Result<TextGenerator> {
        TextGenerator::new(preset, model, None)
    }

    fn new(preset: &Preset, model: Backbone, tokenizer: Option<Tokenizer>) -> Result<TextGenerator> {
        if model.decoder().is_none() {
            let (expected, found) = ("a model with a decoder".to_owned(), model.name().to_owned());
            return Err(Error::Task { task: "generate", expected, found });
        }
        let prompting = tokenizer.as_ref().map(|tokenizer| tokenizer.prompting().clone()).unwrap_or_default();
        let mut fields = GenerationFields::from_preset(preset)?;
        if let Some(end) = prompting.end {
            fields = fields.with_default("eos_token_id", end);
        }
        let source_limit = match preset.config().source() {
            ConfigSource::Keras { .. } => Some(keras_source_limit(preset)?),
            ConfigSource::HuggingFace { .. } => tokenizer.as_ref().and_then(Tokenizer::model_max_length),
        };
        let decoder_prompt = prompting.decoder;
        Ok(TextGenerator { model, tokenizer, fields, prefix: String::new(), decoder_prompt, source_limit })
    }

    /// Sets the task: the fields and the prefix that the directory's `task_specific_params` have for it, as
    /// `pipeline(task)` of transformers 4 takes them. See [`GenerationFields::with_task`].
    ///
    /// # Errors
    /// [`rachis::Error::Config`] for a task that neither the directory nor transformers knows.
    pub fn with_task(mut self, task: &str) -> Result<TextGenerator> {
        self.fields = self.fields.with_task(task)?;
        self.prefix = self.fields.prefix().unwrap_or_default().to_owned();
        Ok(self)
    }

    /// Sets the text that goes before each prompt that is a text.
    pub fn with_prefix(self, prefix: impl Into<String>) -> TextGenerator {
        TextGenerator { prefix: prefix.into(), ..self }
    }

    /// The arguments of generation as the directory states them, for a caller's to be added before they are judged.
    pub fn fields(&self) -> &GenerationFields {
        &self.fields
    }

    /// The arguments of generation of the directory.
    ///
    /// # Errors
    /// [`rachis::Error::Config`] when a field is out of range, or would change the result in a way that is not
    /// implemented.
    pub fn config(&self) -> Result<GenerationConfig> {
        Ok(self.fields.config()?)
    }

    /// The model.
    pub fn model(&self) -> &Backbone {
        &self.model
    }

    /// The tokenizer; `None` where the generator was made without.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The token ids of a prompt, with the prefix in front and special tokens as the tokenizer adds them. What an encoder
    /// reads is cut to the length that the tokenizer's files state (`model_max_length`; a KerasHub preprocessor's
    /// `encoder_sequence_length`), if they do.
    ///
    /// # Errors
    /// [`Error::Request`] when there is no tokenizer, [`Error::Tokenizer`] when it fails on the text.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| Error::Request {
            what: "prompt",
            found: "a text".to_owned(),
            expected: "token ids, since the generator has no tokenizer".to_owned(),
        })?;
        let text = format!("{}{prompt}", self.prefix);
        let mut options = EncodeOptions::new();
        if let (Some(limit), true) = (self.source_limit, self.decoder()?.has_encoder()) {
            options = options.with_truncation(Truncation::new(limit));
        }
        Ok(tokenizer.encode_with(&text, options)?.ids)
    }

    /// Generates for each prompt. The result has a list for every prompt, best first, of `num_return_sequences`
    /// sequences, or fewer where a beam search finds fewer. What a prompt gets does not depend on the other prompts.
    ///
    /// # Errors
    /// As [`TextGenerator::encode`] and [`TextGenerator::generate_from_ids`].
    pub fn generate(
        &self,
        session: &mut Session<'_>,
        prompts: &[impl AsRef<str>],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<GeneratedText>>> {
        self.generate_from_ids(session, &self.encode_all(prompts, config)?, config)
    }

    /// [`TextGenerator::generate`] from token ids, special tokens included.
    ///
    /// # Errors
    /// [`rachis::Error::Config`] when a field of the configuration is out of range; [`rachis::Error::Request`] when a
    /// prompt does not fit the model or the configuration, such as one that is too long; and the errors of a call that
    /// the session ends.
    pub fn generate_from_ids(
        &self,
        session: &mut Session<'_>,
        prompts: &[impl AsRef<[u32]>],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<GeneratedText>>> {
        self.stream_from_ids(session, prompts, config)?.complete()
    }

    /// The text that a sequence of a decoder-only model adds to its prompt: the text of all tokens without as many
    /// characters as the prompt's has, as transformers' text-generation pipeline returns it with
    /// `return_full_text=False`. It differs from [`GeneratedText::text`] where decoding changes the start of a text.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn continuation(&self, sequence: &Generated) -> Result<String> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(String::new()) };
        let (prompt, _) = sequence.ids.split_at(sequence.prompt_len.min(sequence.ids.len()));
        let prompt = tokenizer.decode(prompt, SpecialTokens::Without)?.chars().count();
        Ok(tokenizer.decode(&sequence.ids, SpecialTokens::Without)?.chars().skip(prompt).collect())
    }

    /// Generates for each prompt, and yields the text in pieces as it is generated. The same pieces go to a callback with
    /// [`TextStream::run`].
    ///
    /// # Errors
    /// As [`TextGenerator::generate`], for what is known before the first token.
    pub fn stream<'g, 'p>(
        &'g self,
        session: &'g mut Session<'p>,
        prompts: &[impl AsRef<str>],
        config: &'g GenerationConfig,
    ) -> Result<TextStream<'g, 'p>> {
        self.stream_from_ids(session, &self.encode_all(prompts, config)?, config)
    }

    /// [`TextGenerator::stream`] from token ids, special tokens included.
    ///
    /// # Errors
    /// As [`TextGenerator::generate_from_ids`], for what is known before the first token.
    pub fn stream_from_ids<'g, 'p>(
        &'g self,
        session: &'g mut Session<'p>,
        prompts: &[impl AsRef<[u32]>],
        config: &'g GenerationConfig,
    ) -> Result<TextStream<'g, 'p>> {
        let lengths: Vec<usize> = prompts.iter().map(|ids| ids.as_ref().len()).collect();
        let ids: Vec<u32> = prompts.iter().flat_map(|ids| ids.as_ref()).copied().collect();
        let stop = match &self.tokenizer {
            Some(tokenizer) if !config.stop_strings.is_empty() => {
                Some(Box::new(StopStrings::new(tokenizer, &config.stop_strings)?)
                    as Box<dyn StoppingCriterion>)
            }
            _ => None,
        };
        let decoder_prompt = self.decoder_prompt.as_deref();
        let inputs = GenerationInputs {
            tokens: Tokens::ragged(&ids, &lengths),
            decoder_prompt: decoder_prompt.filter(|_| config.decoder_start_token_id.is_none()),
        };
        TextStream::start(self, session, inputs, config, stop)
    }

    fn encode_all(&self, prompts: &[impl AsRef<str>], config: &GenerationConfig) -> Result<Vec<Vec<u32>>> {
        let encode = |prompt: &str| {
            let mut ids = self.encode(prompt)?;
            // transformers' start of an empty prompt.
            if ids.is_empty() {
                ids.extend(config.bos_token_id);
            }
            Ok(ids)
        };
        prompts.iter().map(|prompt| encode(prompt.as_ref())).collect()
    }

    fn decoder(&self) -> Result<&dyn Decoder> {
        self.model.decoder().ok_or_else(|| Error::Task {
            task: "generate",
            expected: "a model with a decoder".to_owned(),
            found: self.model.name().to_owned(),
        })
    }
}

/// The length of the encoder's input of a KerasHub preprocessor, in its own file or in the task's.
fn keras_source_limit(preset: &Preset) -> Result<usize> {
    const NAME: &str = "encoder_sequence_length";
    let (file, layer) = match preset.read_json("preprocessor.json")? {
        Some(layer) => ("preprocessor.json", layer),
        None => {
            let task = preset.read_json("task.json")?.unwrap_or_default();
            ("task.json", task["config"]["preprocessor"].clone())
        }
    };
    match layer["config"].get(NAME) {
        None | Some(Value::Null) => Ok(1024),
        Some(limit) => limit.as_u64().and_then(|limit| usize::try_from(limit).ok()).ok_or_else(|| {
            in_file(file, format!("{NAME} is {:.60}, expected a number of tokens", limit.to_string()))
        }),
    }
}
