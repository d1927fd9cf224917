//! Flags, and what several subcommands make of them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use rachis::generation::EarlyStopping;
use rachis::kernels::{Ctx, Level, Precision};
use rachis::loader::Preset;
use rachis::{Backbone, PresetOptions};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Result;

/// Where `scripts/minilm` puts the default model of `embed`.
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
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Command {
    /// Sentence embeddings of texts
    Embed(EmbedArgs),
    /// One forward pass on tensors
    Run(RunArgs),
    /// Text or token ids from prompts
    Generate(GenerateArgs),
    /// Latency, cold start and memory of a model
    Bench(BenchArgs),
    /// What a model directory holds, without reading weights
    Inspect(InspectArgs),
    /// All of inspect's checks, and every weight finite
    Verify(InspectArgs),
}

/// How to run a model.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Model: a directory, hf://owner/name, kaggle://owner/model/framework/variation, or a KerasHub preset
    #[arg(long, value_name = "DIR|HANDLE")]
    pub model: Option<OsString>,
    /// Precision of computation; the file's own by default
    #[arg(long)]
    pub dtype: Option<Dtype>,
    /// How matrices are multiplied; as the dtype says by default
    #[arg(long)]
    pub precision: Option<PrecisionName>,
    /// Threads that share the work
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Instruction-set level: scalar, avx2, avx512, avx512bf16, amx or neon; the best by default
    #[arg(long, value_name = "LEVEL")]
    pub isa: Option<String>,
    /// One JSON object on standard output, nothing else there
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Dtype {
    Float32,
    Bfloat16,
    Float16,
}

/// The names of [`Precision`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PrecisionName {
    /// In float32
    Strict,
    /// Operands rounded to bfloat16
    Bf16,
    /// Float32 as sums of bfloat16 where there is a tile unit (AMX)
    Bf16x6,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PoolingName {
    Cls,
    Mean,
    Last,
    Max,
}

#[derive(Debug, clap::Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub common: Common,
    /// How token vectors become one; the model's own way by default
    #[arg(long)]
    pub pooling: Option<PoolingName>,
    /// Texts; a single "-" reads one text a line from standard input
    #[arg(required = true, value_name = "TEXT")]
    pub texts: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub common: Common,
    /// Input tensors by KerasHub's names
    #[arg(long, value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// Where the outputs go
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Also the logits of the heads that the file has
    #[arg(long)]
    pub logits: bool,
    /// Also every layer's hidden states
    #[arg(long)]
    pub layers: bool,
}

#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub common: Common,
    /// Text to continue, or for an encoder to read; may be repeated
    #[arg(long = "prompt", value_name = "TEXT")]
    pub prompts: Vec<String>,
    /// The same as token ids; may be repeated
    #[arg(long, value_name = "5,6,7")]
    pub prompt_ids: Vec<String>,
    /// The most new tokens
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// No end token before so many
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// Beam search with so many beams
    #[arg(long, value_name = "N")]
    pub num_beams: Option<usize>,
    /// Sample, with logits divided by this
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample among so many of the likeliest tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample among the likeliest tokens that have this much probability together
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Sample, with these random numbers
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Divides the scores of tokens that are there already
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// No sequence of so many tokens occurs twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram_size: Option<usize>,
    /// The power of the length that divides scores of a beam search
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,
    /// When a beam search ends: true, false or never
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    pub early_stopping: Option<EarlyStopping>,
    /// Sequences for each prompt
    #[arg(long, value_name = "N")]
    pub num_return_sequences: Option<usize>,
    /// The first token, or "none"
    #[arg(long, value_name = "ID", value_parser = IdOrNone::parse)]
    pub forced_bos_id: Option<IdOrNone>,
    /// The last token of a sequence that reaches the maximum length, or "none"
    #[arg(long, value_name = "ID", value_parser = IdOrNone::parse)]
    pub forced_eos_id: Option<IdOrNone>,
    /// What a decoder behind an encoder begins with
    #[arg(long, value_name = "ID")]
    pub decoder_start_id: Option<u32>,
    /// Tokens that end a sequence, or "none"
    #[arg(long, value_name = "2,7")]
    pub eos_ids: Option<String>,
}

/// A token that a flag names, or its absence.
#[derive(Debug, Clone, Copy)]
pub struct IdOrNone(pub Option<u32>);

impl IdOrNone {
    fn parse(text: &str) -> std::result::Result<IdOrNone, String> {
        match text {
            "none" => Ok(IdOrNone(None)),
            id => id.parse().map(|id| IdOrNone(Some(id))).map_err(|_| "expected an id or none".to_owned()),
        }
    }
}

fn early_stopping(name: &str) -> std::result::Result<EarlyStopping, &'static str> {
    EarlyStopping::from_name(name).ok_or("expected true, false or never")
}

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub common: Common,
    /// What to time: encode:BATCH,SEQ, generate:PROMPT,NEW or seq2seq:SRC,NEW,BEAMS
    #[arg(long, value_name = "WORK")]
    pub work: String,
}

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Model: a directory, hf://owner/name, kaggle://owner/model/framework/variation, or a KerasHub preset
    #[arg(long, value_name = "DIR|HANDLE")]
    pub model: OsString,
    /// One JSON object on standard output, nothing else there
    #[arg(long)]
    pub json: bool,
}

/// A failure that is the command line's fault: exit status 2.
#[derive(Debug)]
pub struct BadUsage(pub String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

impl Common {
    /// The threads asked for; none for one, which runs on the calling thread.
    pub fn pool(&self) -> Result<Option<ThreadPool>> {
        let build = || ThreadPoolBuilder::new().num_threads(usize::from(self.threads)).build();
        Ok(if self.threads > 1 { Some(build()?) } else { None })
    }

    /// The context of these flags.
    pub fn ctx<'p>(&self, pool: Option<&'p ThreadPool>) -> Result<Ctx<'p>> {
        let level = match &self.isa {
            Some(name) => name
                .parse::<Level>()
                .and_then(Level::require)
                .map_err(|error| BadUsage(format!("--isa: {error}")))?,
            None => Level::from_env()?,
        };
        let ctx = Ctx::new(level)?.with_pool(pool);
        Ok(match self.precision {
            None => ctx,
            Some(PrecisionName::Strict) => ctx.with_precision(Precision::Strict),
            Some(PrecisionName::Bf16) => ctx.with_precision(Precision::Bf16),
            Some(PrecisionName::Bf16x6) => ctx.with_precision(Precision::Bf16x6),
        })
    }

    /// The preset of this name, and the model in it under the policy asked for.
    pub fn open(&self, model: &OsStr) -> Result<(Preset, Backbone)> {
        let dtype = self.dtype.map(|dtype| match dtype {
            Dtype::Float32 => rachis::Dtype::Float32,
            Dtype::Bfloat16 => rachis::Dtype::Bfloat16,
            Dtype::Float16 => rachis::Dtype::Float16,
        });
        let mut options = PresetOptions::new();
        options.dtype = dtype;
        let preset = options.open(model)?;
        let model = Backbone::load_with(&preset, options)?;
        Ok((preset, model))
    }

    /// The model asked for.
    pub fn model(&self) -> Result<&OsStr> {
        Ok(self.model.as_deref().ok_or_else(|| BadUsage("--model is missing".to_owned()))?)
    }

    /// The model asked for, or the one that `scripts/minilm` brings.
    pub fn model_or_default(&self) -> Result<OsString> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        // Cargo says where this package lies when it runs the binary, so the default works from any directory.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").map(|dir| Path::new(&dir).join("..").join(DEFAULT_MODEL));
        let places = [Some(PathBuf::from(DEFAULT_MODEL)), package];
        places.into_iter().flatten().find(|place| place.is_dir()).map(PathBuf::into_os_string).ok_or_else(
            || {
                format!(
                "{DEFAULT_MODEL} is not there: run scripts/minilm to bring it, or name a model with --model"
            )
            .into()
            },
        )
    }
}
