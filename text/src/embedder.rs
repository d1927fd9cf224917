//! Sentence embeddings.

mod embeddings;
mod keras;
mod options;
mod quantization;

use std::ffi::OsStr;

use rachis::loader::{ConfigSource, Preset};
use rachis::{Backbone, Pooling, PresetOptions, Session, normalize};

pub use embeddings::{Embeddings, Similarity};
pub use options::{EmbedMethod, EmbedOptions, Normalization};
pub use quantization::{Codes, Quantization, QuantizationRanges, QuantizedEmbeddings};

use crate::batches::{WINDOW, for_each_batch};
use crate::encoder::Encoder;
use crate::error::{Error, Result, in_file};
use crate::pipeline::{Feature, Pipeline};
use crate::sentence_transformers::{Directory, Fields, MODULES, Output, Prompts, Settings};
use crate::tokenizer::{EncodeOptions, Tokenizer};
use keras::KerasTask;

const TASK: &str = "embed";

/// The prompts that every model has, empty unless the directory has others.
const PROMPTS: [&str; 2] = ["query", "document"];

/// Vectors of texts.
///
/// A Hugging Face directory gives the vectors of `SentenceTransformer` of sentence-transformers 6.2, whichever version
/// wrote the directory: its modules (Transformer, Pooling, Dense, LayerNorm, Normalize, Dropout), its prompts and its
/// settings. A directory without `modules.json` gives the mean over the tokens' vectors, not normalised, as there. A
/// Keras preset gives those of KerasHub's `BertTextEmbedder`, version 0.32. What is not implemented is refused by its
/// name.
///
/// ```no_run
/// use rachis_text::TextEmbedder;
/// use rachis_text::rachis::{Ctx, Session};
///
/// # fn main() -> rachis_text::Result<()> {
/// let embedder = TextEmbedder::from_preset("models/all-MiniLM-L6-v2")?; // read only, shared by threads
/// let mut session = Session::new(Ctx::detect()); // one for each thread
/// let vectors = embedder.embed(&mut session, &["The gulls sit on the pier.", "Birds rest by the sea."])?;
/// assert!(vectors.cosine(0, 1) > 0.3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TextEmbedder {
    encoder: Encoder,
    tokenizer: Tokenizer,
    settings: Settings,
    prompts: Prompts,
    pipeline: Pipeline,
    truncate_dim: Option<usize>,
    similarity: Similarity,
}

impl TextEmbedder {
    /// The embedder of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model gives no vectors for tokens.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<TextEmbedder> {
        TextEmbedder::from_preset_with(name, PresetOptions::default())
    }

    /// The embedder of a preset whose model is opened as `options` say.
    ///
    /// # Errors
    /// As [`TextEmbedder::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<TextEmbedder> {
        let preset = options.open(name)?;
        let model = Backbone::load_with(&preset, options)?;
        TextEmbedder::load(&preset, model)
    }

    /// The embedder of an open preset and its model.
    ///
    /// # Errors
    /// As [`TextEmbedder::from_preset`].
    pub fn load(preset: &Preset, model: Backbone) -> Result<TextEmbedder> {
        let encoder = Encoder::new(preset, model, TASK)?;
        let tokenizer = Tokenizer::load(preset)?;
        match preset.config().source() {
            ConfigSource::Keras { .. } => TextEmbedder::keras(preset, encoder, tokenizer),
            ConfigSource::HuggingFace { .. } => {
                TextEmbedder::sentence_transformers(preset, encoder, tokenizer)
            }
        }
    }

    fn sentence_transformers(
        preset: &Preset,
        encoder: Encoder,
        mut tokenizer: Tokenizer,
    ) -> Result<TextEmbedder> {
        let Directory { modules, config } = Directory::read(preset, "SentenceTransformer")?;
        let (model, width) = (encoder.model(), encoder.width());
        let (settings, pipeline) = match &modules {
            Some(modules) => {
                let settings = Settings::read(preset, model, &tokenizer)?;
                if settings.output == Output::Scores {
                    return Err(in_file(MODULES, "the Transformer makes scores, expected vectors"));
                }
                let (start, rest) = ((settings.output, width), modules.get(1..).unwrap_or_default());
                let pipeline = Pipeline::of_modules(preset, rest, start, Feature::Sentence)?;
                (settings, pipeline)
            }
            None => {
                let settings = Settings::plain(preset, model, &tokenizer, Output::Tokens)?;
                (settings, Pipeline::pooling(default_pooling(preset)?, width, false))
            }
        };
        if settings.lower_case {
            tokenizer.lowercase_first()?;
        }
        let prompts = Prompts::read(&config, &PROMPTS)?;
        let truncate_dim = config.opt_count("truncate_dim")?;
        let similarity = Similarity::saved(&config)?;
        Ok(TextEmbedder { encoder, tokenizer, settings, prompts, pipeline, truncate_dim, similarity })
    }

    fn keras(preset: &Preset, encoder: Encoder, tokenizer: Tokenizer) -> Result<TextEmbedder> {
        let task = KerasTask::read(preset)?;
        let positions = match encoder.model() {
            Backbone::Bert(model) => model.config().max_sequence_length,
            _ => usize::MAX,
        };
        let settings = Settings::limited(task.sequence_length.min(positions));
        let pipeline = Pipeline::pooling(task.pooling, encoder.width(), task.normalize);
        let prompts = Prompts::read(&Fields::none("task.json"), &PROMPTS)?;
        let similarity = Similarity::default();
        Ok(TextEmbedder { encoder, tokenizer, settings, prompts, pipeline, truncate_dim: None, similarity })
    }

    /// Sets the pooling, whatever the directory says.
    ///
    /// # Errors
    /// When a module after it expects vectors of another width.
    pub fn with_pooling(self, pooling: Pooling) -> Result<TextEmbedder> {
        Ok(TextEmbedder { pipeline: self.pipeline.with_pooling(pooling)?, ..self })
    }

    /// Number of components of a vector, where a call does not choose another.
    pub fn dimension(&self) -> usize {
        self.truncate_dim.unwrap_or(usize::MAX).min(self.pipeline.width())
    }

    /// Number of tokens after which a text is cut, special tokens included: `max_seq_length`. `None` without a limit.
    pub fn max_tokens(&self) -> Option<usize> {
        self.settings.max_tokens
    }

    /// How the directory says vectors are to be compared: `similarity_fn_name`, by default the cosine.
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// The names and the texts of the model's prompts, in alphabetical order.
    pub fn prompts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.prompts.iter()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The vectors of texts, in their order.
    ///
    /// A vector does not depend on the texts beside it. Texts go through the model in batches of similar length; the
    /// memory of the session grows to the largest batch, which has a few thousand tokens or is one text.
    ///
    /// # Errors
    /// When the tokenizer fails on a text, or the session cannot run the model.
    pub fn embed(&self, session: &mut Session<'_>, texts: &[impl AsRef<str>]) -> Result<Embeddings> {
        self.embed_with(session, texts, &EmbedOptions::new())
    }

    /// The vectors of texts, as `options` say.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`]; [`Error::Request`] for options that do not fit the model.
    pub fn embed_with(
        &self,
        session: &mut Session<'_>,
        texts: &[impl AsRef<str>],
        options: &EmbedOptions,
    ) -> Result<Embeddings> {
        let width = self.kept(options)?;
        let prompt_name = options.prompt_name.as_deref().or(options.method.prompt_name());
        let prompt = self.prompts.resolve(options.prompt.as_deref(), prompt_name)?;
        let prompt_tokens = self.prompt_tokens(prompt)?;
        let encode = self.settings.encode_options(options.method.kind());
        let ctx = self.encoder.ctx(session);

        let mut vectors = vec![0.0; texts.len() * width];
        for (w, window) in texts.chunks(WINDOW).enumerate() {
            let encodings = window.iter().map(|text| self.encode(prompt, text.as_ref(), encode));
            let encodings = encodings.collect::<Result<Vec<_>>>()?;
            let start = w * WINDOW;
            for_each_batch(&encodings, start, |batch| {
                let from = self.encoder.start(session, &batch, self.settings.output)?;
                let rows = self.pipeline.run(&ctx, from, batch.lengths, prompt_tokens)?;
                for (text, row) in batch.texts.iter().zip(rows.chunks_exact(self.pipeline.width())) {
                    let at = (start + text) * width;
                    vectors[at..at + width].copy_from_slice(&row[..width]);
                }
                Ok(())
            })?;
        }
        if options.normalization == Normalization::Always {
            normalize(&mut vectors, width);
        }
        Ok(Embeddings::new(vectors, width))
    }

    /// Number of components that a call keeps.
    fn kept(&self, options: &EmbedOptions) -> Result<usize> {
        match options.truncate_dim {
            Some(0) => {
                let (found, expected) = ("0".to_owned(), "1 or more".to_owned());
                Err(Error::Request { what: "truncate_dim", found, expected })
            }
            Some(dim) => Ok(dim.min(self.pipeline.width())),
            None => Ok(self.dimension()),
        }
    }

    /// Number of tokens at the start of a text with this prompt that pooling leaves out: those of the prompt alone,
    /// special tokens included, but not a special token at its end.
    fn prompt_tokens(&self, prompt: &str) -> Result<usize> {
        if prompt.is_empty() || !self.pipeline.excludes_prompt() {
            return Ok(0);
        }
        let options = self.settings.encode_options(EmbedMethod::Encode.kind());
        let encoding = self.tokenizer.encode_with(prompt, options)?;
        let special_end = encoding.special.last().copied().unwrap_or(false);
        Ok(encoding.len() - usize::from(special_end))
    }

    fn encode(&self, prompt: &str, text: &str, options: EncodeOptions) -> Result<crate::Encoding> {
        if prompt.is_empty() {
            return self.tokenizer.encode_with(text, options);
        }
        self.tokenizer.encode_with(&format!("{prompt}{text}"), options)
    }
}

/// The pooling of a directory without modules: the last token's vector of a model for causal language modelling, else
/// the mean.
fn default_pooling(preset: &Preset) -> Result<Pooling> {
    let config = preset.config();
    let first = config.value("architectures").and_then(|names| names.get(0)?.as_str());
    let causal = first.is_some_and(|name| name.ends_with("ForCausalLM"));
    let causal = causal && config.opt_bool("is_causal")?.unwrap_or(true);
    Ok(if causal { Pooling::Last } else { Pooling::Mean })
}
