//! The flags, and what several subcommands derive from them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Parser, Subcommand};
use rachis::generation::EarlyStopping;
use rachis::kernels::{Ctx, Level};
use rachis::loader::Preset;
use rachis::{Backbone, Dtype, Pooling, Precision, PresetOptions};
use rachis_text::{Activation, Quantization};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::bench::Work;
use crate::{Result, print_error};

/// The default model of `embed`, where `scripts/minilm` puts it.
const DEFAULT_MODEL: &str = "models/all-MiniLM-L6-v2";

#[derive(Debug, Parser)]
#[command(
    name = "rachis",
    version,
    about = "Transformers on the CPU",
    disable_help_subcommand = true,
    arg_required_else_help = false
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value per process")]
pub enum Command {
    /// Sentence embeddings of texts
    Embed(EmbedArgs),
    /// Texts in the order of how well they answer a query
    Rerank(RerankArgs),
    /// Token ids of texts, and texts of token ids
    Tokenize(TokenizeArgs),
    /// Labels of texts, with their scores
    Classify(ClassifyArgs),
    /// Named entities, and other labels of tokens
    Ner(NerArgs),
    /// Answers to a question from contexts
    Answer(AnswerArgs),
    /// Tokens for the masks of texts
    FillMask(FillMaskArgs),
    /// One forward pass on tensors
    Run(RunArgs),
    /// Text or token ids from prompts
    Generate(GenerateArgs),
    /// Latency, cold start and memory of a model
    Bench(BenchArgs),
    /// The contents of a model directory, without reading weights
    Inspect(InspectArgs),
    /// The checks of inspect, and that every weight is finite
    Verify(InspectArgs),
}

/// The flags of every subcommand that runs a model.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Model: a directory, hf://owner/name, kaggle://owner/model/framework/variation, or a KerasHub preset
    #[arg(long, value_name = "DIR|HANDLE")]
    pub model: Option<OsString>,
    /// Float type of the computation: float32, bfloat16 or float16; the preset's own by default
    #[arg(long)]
    pub dtype: Option<Dtype>,
    /// Arithmetic of matrix products: strict (float32 throughout), bf16 (operands rounded to bfloat16, sums in float32) or
    /// bf16x6 (on AMX tiles, each float32 as a sum of three bfloat16); follows the dtype by default
    #[arg(long)]
    pub precision: Option<Precision>,
    /// Download files of an hf:// model that the cache lacks
    #[cfg(feature = "hub")]
    #[arg(long)]
    pub download: bool,
    /// Number of threads
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Instruction-set level: scalar, avx2, avx512, avx512bf16, amx or neon; the best by default
    #[arg(long, value_name = "LEVEL")]
    pub isa: Option<String>,
    /// Print one JSON object to standard output, and nothing else
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub common: Common,
    /// How token vectors become one vector: cls (the first token's), mean, mean_sqrt_len, weightedmean, last (the last
    /// token's) or max (of each component); follows the model's files by default
    #[arg(long)]
    pub pooling: Option<Pooling>,
    /// Scale vectors to length 1, whatever the model's files say
    #[arg(long)]
    pub normalize: bool,
    /// A text to put before every text; "" switches off the model's default prompt
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// A prompt of the model, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    pub prompt_name: Option<String>,
    /// Keep the first N components of each vector
    #[arg(long, value_name = "N")]
    pub truncate_dim: Option<usize>,
    /// Type of the components in the output: float32, int8, uint8, binary or ubinary. The range of int8 and uint8 is that
    /// of all vectors together
    #[arg(long, value_name = "TYPE", default_value = "float32", value_parser = OutputPrecision::parse)]
    pub output_precision: OutputPrecision,
    /// Write the vectors to this file, of type .npy or .safetensors, instead of printing anything
    #[arg(long, value_name = "FILE", conflicts_with = "requests")]
    pub output: Option<PathBuf>,
    /// Answer one JSON object a line of this file, or of standard input for "-"
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "texts")]
    pub requests: Option<PathBuf>,
    /// Texts; a single "-" reads one text a line from standard input
    #[arg(required_unless_present = "requests", value_name = "TEXT")]
    pub texts: Vec<String>,
}

/// The type of the components of vectors in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputPrecision {
    Float32,
    Quantized(Quantization),
}

impl OutputPrecision {
    /// Parses `float32`, or the name of a quantisation.
    pub fn parse(name: &str) -> Result<OutputPrecision, String> {
        let expected = |_| "expected float32, int8, uint8, binary or ubinary".to_owned();
        match name {
            "float32" => Ok(OutputPrecision::Float32),
            name => name.parse().map(OutputPrecision::Quantized).map_err(expected),
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct RerankArgs {
    #[command(flatten)]
    pub common: Common,
    /// The query that texts are to answer
    #[arg(long, value_name = "TEXT", required_unless_present = "requests")]
    pub query: Option<String>,
    /// Print the best K texts alone
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Function from logits to scores, such as sigmoid or identity; follows the model's files by default
    #[arg(long)]
    pub activation: Option<Activation>,
    /// A text to put before the query; "" switches off the model's default prompt
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// A prompt of the model, by its name
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    pub prompt_name: Option<String>,
    /// Answer one JSON object a line of this file, or of standard input for "-"
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["texts", "query"])]
    pub requests: Option<PathBuf>,
    /// Texts; a single "-" reads one text a line from standard input
    #[arg(required_unless_present = "requests", value_name = "TEXT")]
    pub texts: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct TokenizeArgs {
    /// Model: a directory or a name, as for the other subcommands; its weights are not read
    #[arg(long, value_name = "DIR|HANDLE")]
    pub model: OsString,
    /// Answer one JSON object a line of this file, or of standard input for "-"
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "texts")]
    pub requests: Option<PathBuf>,
    /// Print one JSON object to standard output, and nothing else
    #[arg(long)]
    pub json: bool,
    /// Texts
    #[arg(value_name = "TEXT", required_unless_present = "requests")]
    pub texts: Vec<String>,
}

/// The texts of a subcommand, or its requests.
#[derive(Debug, clap::Args)]
pub struct Texts {
    /// Answer one JSON object a line of this file, or of standard input for "-"
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "texts")]
    pub requests: Option<PathBuf>,
    /// Texts; a single "-" reads one text a line from standard input
    #[arg(value_name = "TEXT", required_unless_present = "requests")]
    pub texts: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub input: Texts,
    /// Number of labels of each text; all by default
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// What turns logits into scores: softmax, sigmoid or none; follows the model's files by default
    #[arg(long, value_name = "FUNCTION")]
    pub function: Option<String>,
    /// Zero-shot: score these labels, with a model that was trained for natural language inference
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Zero-shot: several labels may be right
    #[arg(long, requires = "labels")]
    pub multi_label: bool,
    /// Zero-shot: the hypothesis about a text, with {} for the label
    #[arg(long, value_name = "TEXT", requires = "labels")]
    pub hypothesis_template: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct NerArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub input: Texts,
    /// How tokens become entities: none, simple, first, average or max
    #[arg(long, value_name = "STRATEGY", default_value = "simple")]
    pub aggregation: String,
    /// Classify long texts in windows that have N tokens in common
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub struct AnswerArgs {
    #[command(flatten)]
    pub common: Common,
    /// The question
    #[arg(long, value_name = "TEXT", required_unless_present = "requests")]
    pub question: Option<String>,
    /// Number of answers from each context
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub top_k: usize,
    #[command(flatten)]
    pub input: Texts,
}

#[derive(Debug, clap::Args)]
pub struct FillMaskArgs {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub input: Texts,
    /// Number of tokens for each mask
    #[arg(long, value_name = "K", default_value_t = 5)]
    pub top_k: usize,
    /// The words that may be returned, if not all tokens
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub targets: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub common: Common,
    /// The file of the input tensors, by KerasHub's names
    #[arg(long, value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// The file that the outputs are written to
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Also write the logits of the heads that the model file has
    #[arg(long)]
    pub logits: bool,
    /// Also write the hidden states of every layer
    #[arg(long)]
    pub layers: bool,
}

#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub common: Common,
    /// Text to continue, or the encoder's input; may be repeated; "-" reads one prompt a line from standard input
    #[arg(long = "prompt", value_name = "TEXT")]
    pub prompts: Vec<String>,
    /// A prompt as token ids; may be repeated
    #[arg(long, value_name = "5,6,7")]
    pub prompt_ids: Vec<String>,
    /// Answer one JSON object a line of this file, or of standard input for "-"; flags are the defaults of its fields
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["prompts", "prompt_ids"])]
    pub requests: Option<PathBuf>,
    /// A task of the directory's task_specific_params, such as summarization: its parameters and its prefix
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Text that goes before each --prompt; the task's by default
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Text at whose end a sequence ends; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Maximum number of new tokens
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Minimum number of new tokens before an end token
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// Beam search with this number of beams; with a flag of sampling, beams that are drawn
    #[arg(long, value_name = "N")]
    pub num_beams: Option<usize>,
    /// Sample from softmax(logits / T)
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample from the K most probable tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample from the nucleus: the smallest set of tokens with at least this probability
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Sample with this seed of the random numbers
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Divides the positive scores, and multiplies the negative scores, of tokens that already occur
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// No n-gram of this size occurs twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Beam search: scores are divided by (number of new tokens)^X
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// Beam search: when it stops, true, false or never
    #[arg(long, value_name = "WHEN")]
    pub early_stopping: Option<EarlyStopping>,
    /// Number of sequences returned for each prompt
    #[arg(long, value_name = "N")]
    pub num_return_sequences: Option<usize>,
    /// The first new token, or "none"
    #[arg(long, value_name = "ID")]
    pub forced_bos_id: Option<IdOrNone>,
    /// The last token of a sequence that reaches the maximum length, or "none"
    #[arg(long, value_name = "ID")]
    pub forced_eos_id: Option<IdOrNone>,
    /// The first token of the decoder of an encoder-decoder model
    #[arg(long, value_name = "ID")]
    pub decoder_start_id: Option<u32>,
    /// Tokens that end a sequence, or "none"
    #[arg(long, value_name = "2,7")]
    pub eos_ids: Option<String>,
}

/// The value of a flag that is a token id or `none`.
#[derive(Debug, Clone, Copy)]
pub struct IdOrNone(pub Option<u32>);

impl FromStr for IdOrNone {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<IdOrNone, &'static str> {
        match text {
            "none" => Ok(IdOrNone(None)),
            id => id.parse().map(|id| IdOrNone(Some(id))).map_err(|_| "expected a token id or none"),
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub common: Common,
    /// What to time: encode:BATCH,SEQ, generate:PROMPT,NEW or seq2seq:SRC,NEW,BEAMS
    #[arg(long, value_name = "WORK")]
    pub work: Work,
}

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Model: a directory, hf://owner/name, kaggle://owner/model/framework/variation, or a KerasHub preset
    #[arg(long, value_name = "DIR|HANDLE")]
    pub model: OsString,
    /// Print one JSON object to standard output, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// A failure because of wrong flags: exit status 2.
#[derive(Debug)]
pub struct BadUsage(pub String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

impl Common {
    /// The thread pool of `--threads`; `None` for 1 thread, which is the calling one. More than twice as many threads as
    /// the machine has processors are not started: they would only wait for each other.
    pub fn pool(&self) -> Result<Option<ThreadPool>> {
        let most = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = usize::from(self.threads);
        if wanted > most {
            print_error(&format!(
                "warning: --threads is {wanted}; {most} are used, twice what the machine has"
            ));
        }
        if wanted.min(most) <= 1 {
            return Ok(None);
        }
        let pool = ThreadPoolBuilder::new().num_threads(wanted.min(most)).build();
        Ok(Some(pool.map_err(|error| format!("--threads is {wanted}: could not start threads: {error}"))?))
    }

    /// The context of `--isa`, `--precision` and `pool`.
    pub fn ctx<'p>(&self, pool: Option<&'p ThreadPool>) -> Result<Ctx<'p>> {
        let level = match &self.isa {
            Some(name) => name
                .parse::<Level>()
                .and_then(Level::require)
                .map_err(|error| BadUsage(format!("--isa: {error}")))?,
            None => Level::from_env()?,
        };
        let ctx = Ctx::new(level)?.with_pool(pool);
        Ok(self.precision.map_or(ctx, |precision| ctx.with_precision(precision)))
    }

    /// Opens a preset and its model, in the dtype of `--dtype`.
    pub fn open(&self, model: &OsStr) -> Result<(Preset, Backbone)> {
        let mut options = PresetOptions::new();
        options.dtype = self.dtype;
        #[cfg(feature = "hub")]
        if self.download {
            options = options.with_download(rachis::Download::IfMissing);
        }
        let preset = options.open(model)?;
        let model = Backbone::load_with(&preset, options)?;
        Ok((preset, model))
    }

    /// The name of the model, by `--model`.
    pub fn model(&self) -> Result<&OsStr> {
        Ok(self.model.as_deref().ok_or_else(|| BadUsage("--model is missing".to_owned()))?)
    }

    /// The name of the model, by `--model`, or the model that `scripts/minilm` downloads.
    pub fn model_or_default(&self) -> Result<OsString> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        // Cargo sets this variable to the package's directory when it runs the binary, so the default works in any
        // working directory.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").map(|dir| Path::new(&dir).join("..").join(DEFAULT_MODEL));
        let places = [Some(PathBuf::from(DEFAULT_MODEL)), package];
        places.into_iter().flatten().find(|place| place.is_dir()).map(PathBuf::into_os_string).ok_or_else(
            || {
                format!(
                "{DEFAULT_MODEL} does not exist: run scripts/minilm to download it, or name a model with --model"
            )
            .into()
            },
        )
    }
}
