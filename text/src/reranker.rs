//! Scores of pairs of texts.

mod options;
mod scores;

use std::ffi::OsStr;

use rachis::heads::SequenceHead;
use rachis::loader::{ConfigSource, Preset};
use rachis::{Backbone, BertInputs, Heads, PresetOptions, Session};

pub use options::{LabelScores, RerankOptions};
pub use scores::{PairScores, Ranked};

use crate::activation::{Activation, softmax};
use crate::batches::{Batch, WINDOW, for_each_batch};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::pipeline::{Feature, Pipeline, Start};
use crate::sentence_transformers::{Directory, Fields, Output, Prompts, Settings, TextKind};
use crate::tokenizer::{TextInput, Tokenizer};

const TASK: &str = "rerank";

/// Scores of pairs of texts, such as a query and an answer, by a model that reads both at once.
///
/// The scores are those of `CrossEncoder` of sentence-transformers 6.2, whichever version wrote the directory: logits of
/// sequence classification (or of the modules that the directory has in its place), and the activation that the directory
/// names; by default a sigmoid for one label, nothing for several.
///
/// ```no_run
/// use rachis_text::Reranker;
/// use rachis_text::rachis::{Ctx, Session};
///
/// # fn main() -> rachis_text::Result<()> {
/// let reranker = Reranker::from_preset("models/ms-marco-MiniLM-L6-v2")?;
/// let mut session = Session::new(Ctx::detect());
/// let texts = ["Fog comes in from the north.", "The gulls sit on the pier."];
/// let best = reranker.rank(&mut session, "Where do the gulls sit?", &texts)?[0];
/// println!("{} ({})", texts[best.index], best.score);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reranker {
    encoder: Encoder,
    /// `None` where modules make the scores.
    head: Option<SequenceHead>,
    tokenizer: Tokenizer,
    settings: Settings,
    prompts: Prompts,
    pipeline: Pipeline,
    activation: Activation,
}

impl Reranker {
    /// The reranker of a preset: a directory, or a name as [`Preset::named`] takes it.
    ///
    /// # Errors
    /// When a file is missing, malformed or not implemented, or the model does not score pairs.
    pub fn from_preset(name: impl AsRef<OsStr>) -> Result<Reranker> {
        Reranker::from_preset_with(name, PresetOptions::default())
    }

    /// The reranker of a preset whose model is opened as `options` say.
    ///
    /// # Errors
    /// As [`Reranker::from_preset`].
    pub fn from_preset_with(name: impl AsRef<OsStr>, options: PresetOptions) -> Result<Reranker> {
        let preset = options.open(name)?;
        let model = Backbone::load_with(&preset, options)?;
        Reranker::load(&preset, model)
    }

    /// The reranker of an open preset and its model.
    ///
    /// # Errors
    /// As [`Reranker::from_preset`].
    pub fn load(preset: &Preset, model: Backbone) -> Result<Reranker> {
        if let ConfigSource::Keras { class_name } = preset.config().source() {
            let expected = "a Hugging Face directory".to_owned();
            let found = format!("KerasHub's {class_name}");
            return Err(Error::Task { task: TASK, expected, found });
        }
        let encoder = Encoder::new(preset, model, TASK)?;
        let mut tokenizer = Tokenizer::load(preset)?;
        let Directory { modules, config } = Directory::read(preset, "CrossEncoder")?;
        let settings = match &modules {
            Some(_) => Settings::read(preset, encoder.model(), &tokenizer)?,
            None => Settings::plain(preset, encoder.model(), &tokenizer, Output::Scores)?,
        };
        let head = match settings.output {
            Output::Scores => Some(head(preset, encoder.model())?),
            Output::Tokens | Output::Pooled => None,
        };
        let width = head.as_ref().map_or(encoder.width(), SequenceHead::classes);
        let rest = modules.as_deref().and_then(|modules| modules.get(1..)).unwrap_or_default();
        let pipeline = Pipeline::of_modules(preset, rest, (settings.output, width), Feature::Scores)?;
        if settings.lower_case {
            tokenizer.lowercase_first()?;
        }
        let activation = activation(preset, &config)?.unwrap_or(match pipeline.width() {
            1 => Activation::Sigmoid,
            _ => Activation::Identity,
        });
        let prompts = Prompts::read(&config, &[])?;
        Ok(Reranker { encoder, head, tokenizer, settings, prompts, pipeline, activation })
    }

    /// Number of scores of a pair.
    pub fn labels(&self) -> usize {
        self.pipeline.width()
    }

    /// The function from logits to scores that the directory names, or the default.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Number of tokens after which a pair is cut, special tokens included. `None` without a limit.
    pub fn max_tokens(&self) -> Option<usize> {
        self.settings.max_tokens
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The scores of pairs, in their order. They do not depend on the pairs beside them.
    ///
    /// # Errors
    /// When the tokenizer fails on a text, or the session cannot run the model.
    pub fn scores<A: AsRef<str>, B: AsRef<str>>(
        &self,
        session: &mut Session<'_>,
        pairs: &[(A, B)],
    ) -> Result<PairScores> {
        self.scores_with(session, pairs, &RerankOptions::new())
    }

    /// The scores of pairs, as `options` say: `CrossEncoder.predict`.
    ///
    /// # Errors
    /// As [`Reranker::scores`]; [`Error::Request`] for a prompt that the model does not have.
    pub fn scores_with<A: AsRef<str>, B: AsRef<str>>(
        &self,
        session: &mut Session<'_>,
        pairs: &[(A, B)],
        options: &RerankOptions,
    ) -> Result<PairScores> {
        self.score(session, pairs.len(), options, |i| {
            pairs.get(i).map_or(("", ""), |(a, b)| (a.as_ref(), b.as_ref()))
        })
    }

    /// The texts, the best answer to the query first; of equal ones the earlier.
    ///
    /// # Errors
    /// As [`Reranker::scores`]; [`Error::Request`] for a model with several labels.
    pub fn rank(
        &self,
        session: &mut Session<'_>,
        query: &str,
        texts: &[impl AsRef<str>],
    ) -> Result<Vec<Ranked>> {
        self.rank_with(session, query, texts, &RerankOptions::new())
    }

    /// The texts, the best answer to the query first, as `options` say: `CrossEncoder.rank`.
    ///
    /// # Errors
    /// As [`Reranker::rank`].
    pub fn rank_with(
        &self,
        session: &mut Session<'_>,
        query: &str,
        texts: &[impl AsRef<str>],
        options: &RerankOptions,
    ) -> Result<Vec<Ranked>> {
        if self.labels() != 1 {
            let (found, expected) = (self.labels().to_string(), "1, for a ranking".to_owned());
            return Err(Error::Request { what: "number of labels", found, expected });
        }
        let text = |i: usize| texts.get(i).map_or("", AsRef::as_ref);
        let scores = self.score(session, texts.len(), options, |i| (query, text(i)))?;
        let scores = scores.as_slice().iter().enumerate();
        let mut ranked: Vec<Ranked> = scores.map(|(index, score)| Ranked { index, score: *score }).collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        ranked.truncate(options.top_k.unwrap_or(usize::MAX));
        Ok(ranked)
    }

    fn score<'t>(
        &self,
        session: &mut Session<'_>,
        pairs: usize,
        options: &RerankOptions,
        pair: impl Fn(usize) -> (&'t str, &'t str),
    ) -> Result<PairScores> {
        let prompt = self.prompts.resolve(options.prompt.as_deref(), options.prompt_name.as_deref())?;
        let encode = self.settings.encode_options(TextKind::Any);
        let (ctx, labels) = (self.encoder.ctx(session), self.labels());
        let mut values = vec![0.0; pairs * labels];
        for start in (0..pairs).step_by(WINDOW) {
            let encodings = (start..pairs.min(start + WINDOW)).map(|i| match (prompt, pair(i)) {
                ("", (first, second)) => self.tokenizer.encode_with((first, second), encode),
                (prompt, (first, second)) => {
                    let first = format!("{prompt}{first}");
                    self.tokenizer.encode_with(TextInput::Pair(&first, second), encode)
                }
            });
            let encodings = encodings.collect::<Result<Vec<_>>>()?;
            for_each_batch(&encodings, start, |batch| {
                let rows = self.logits(session, &batch)?;
                for (pair, row) in batch.texts.iter().zip(rows.chunks_exact(labels)) {
                    let at = (start + pair) * labels;
                    values[at..at + labels].copy_from_slice(row);
                }
                Ok(())
            })?;
        }
        let activation = options.activation.unwrap_or(self.activation);
        for row in values.chunks_exact_mut(labels) {
            activation.apply(&ctx, row);
            if options.labels == LabelScores::Softmax && labels > 1 {
                softmax(row);
            }
        }
        Ok(PairScores::new(values, labels))
    }

    /// `[pairs, labels]`
    fn logits(&self, session: &mut Session<'_>, batch: &Batch<'_>) -> Result<Vec<f32>> {
        let ctx = self.encoder.ctx(session);
        let start = match &self.head {
            Some(head) => {
                let mut logits = vec![0.0; batch.texts.len() * head.classes()];
                let inputs = BertInputs { tokens: batch.tokens, segment_ids: Some(batch.segments) };
                head.logits(session, self.encoder.model(), inputs, &mut logits)?;
                Start::Texts(logits)
            }
            None => self.encoder.start(session, batch, self.settings.output)?,
        };
        self.pipeline.run(&ctx, start, batch.lengths, 0)
    }
}

fn head(preset: &Preset, model: &Backbone) -> Result<SequenceHead> {
    let missing = || Error::Task {
        task: TASK,
        expected: "a sequence classification head".to_owned(),
        found: format!("{} without one", model.name()),
    };
    Heads::load(preset, model)?.sequence.ok_or_else(missing)
}

/// The activation that a directory names: since version 5.4 beside `modules.json`, before in the model's configuration,
/// and before version 4 there under another name. A class outside of torch is not loaded, as in the library.
fn activation(preset: &Preset, config: &Fields) -> Result<Option<Activation>> {
    if let Some(class) = config.opt_str("activation_fn")?
        && let Some(activation) = Activation::of_class(&config.file, class)?
    {
        return Ok(Some(activation));
    }
    const FILE: &str = "config.json";
    let fields = Fields::read(FILE.to_owned(), |name| Ok(preset.read_json(name)?))?;
    let fields = fields.unwrap_or_else(|| Fields::none(FILE));
    let section = fields.object("sentence_transformers")?;
    let class = match section.has("activation_fn") {
        true => section.opt_str("activation_fn")?,
        false => fields.opt_str("sbert_ce_default_activation_function")?,
    };
    class.map_or(Ok(None), |class| Activation::of_class(FILE, class))
}
