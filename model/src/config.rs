//! What configurations have in common: field checks, activation names, dtype policies.

use rachis_kernels::{Activation, Precision};
use rachis_loader::{Config, ConfigSource, Preset};
use serde_json::{Map, Value};

use crate::error::{Error, Result, clip};

/// The precision that a preset asks for or a caller chooses: KerasHub's dtype policy of computation. Weights
/// stay stored as they are, and softmax and layer normalisation stay in float32, under every policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DtypePolicy {
    /// Products of float32 operands.
    #[default]
    Float32,
    /// Products of operands rounded to bfloat16, summed in float32.
    Bfloat16,
    /// Weights stored as float16 are widened exactly; activations stay in float32, which is at least as
    /// accurate as float16 throughout.
    Float16,
}

impl DtypePolicy {
    /// The policy of this name: `float32`, `bfloat16`, `float16`, `mixed_bfloat16` or `mixed_float16`.
    pub fn from_name(name: &str) -> Option<DtypePolicy> {
        match name {
            "float32" => Some(DtypePolicy::Float32),
            "bfloat16" | "mixed_bfloat16" => Some(DtypePolicy::Bfloat16),
            "float16" | "mixed_float16" => Some(DtypePolicy::Float16),
            _ => None,
        }
    }

    /// The name of the policy.
    pub fn name(self) -> &'static str {
        match self {
            DtypePolicy::Float32 => "float32",
            DtypePolicy::Bfloat16 => "bfloat16",
            DtypePolicy::Float16 => "float16",
        }
    }

    /// How matrix products run under the policy.
    pub fn precision(self) -> Precision {
        match self {
            DtypePolicy::Bfloat16 => Precision::Bf16,
            DtypePolicy::Float32 | DtypePolicy::Float16 => Precision::Strict,
        }
    }

    /// The policy that a preset's configuration states; float32 when it states none.
    pub(crate) fn of(config: &Config) -> Result<DtypePolicy> {
        match config.dtype()? {
            None => Ok(DtypePolicy::Float32),
            Some(name) => DtypePolicy::from_name(name)
                .ok_or_else(|| field("dtype", name, "float32, bfloat16 or float16")),
        }
    }
}

/// The activation that Hugging Face calls `name`.
pub(crate) fn activation(name: &str) -> Result<Activation> {
    match name {
        "gelu" | "gelu_python" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "tanh" => Ok(Activation::Tanh),
        _ => Err(field("activation", name, "one of gelu, gelu_new, relu, silu, quick_gelu, tanh")),
    }
}

/// What Hugging Face calls an activation.
pub(crate) fn activation_name(activation: Activation) -> Result<&'static str> {
    match activation {
        Activation::GeluErf => Ok("gelu"),
        Activation::GeluTanh => Ok("gelu_new"),
        Activation::Relu => Ok("relu"),
        Activation::Silu => Ok("silu"),
        Activation::QuickGelu => Ok("quick_gelu"),
        Activation::Tanh => Ok("tanh"),
        other => Err(field("activation", format!("{other:?}"), "one that transformers has")),
    }
}

/// The fields of a Hugging Face configuration.
pub(crate) type Fields = Map<String, Value>;

/// Those of an object.
pub(crate) fn fields(object: Value) -> Fields {
    match object {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// A number as short as `x` can be written.
pub(crate) fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// The activation that KerasHub calls `name`.
pub(crate) fn keras_activation(name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::GeluErf),
        "gelu_approximate" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        _ => Err(field("activation", name, "one of gelu, gelu_approximate, relu, silu")),
    }
}

/// [`Error::Config`] from anything printable.
pub(crate) fn field(field: &'static str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Config { field, found: clip(found), expected: expected.to_string() }
}

/// What a preset calls its architecture: transformers' model type or Keras's class.
pub(crate) fn architecture(preset: &Preset) -> &str {
    match preset.config().source() {
        ConfigSource::HuggingFace { model_type } => model_type,
        ConfigSource::Keras { class_name } => class_name,
    }
}

/// The error of a preset of another architecture than `expected`.
pub(crate) fn other_architecture(preset: &Preset, expected: &'static str) -> Error {
    Error::Architecture { path: preset.dir().to_owned(), found: clip(architecture(preset)), expected }
}

/// What configurations accept at most: far beyond any model, far below any overflow.
pub(crate) const LARGEST_DIM: usize = 1 << 20;
pub(crate) const LARGEST_TABLE: usize = 1 << 24;
pub(crate) const MOST_LAYERS: usize = 1 << 12;

/// Checks that a number of heads divides a width.
pub(crate) fn divisor(name: &'static str, value: usize, (of, width): (&str, usize)) -> Result<()> {
    if width.is_multiple_of(value) {
        Ok(())
    } else {
        Err(field(name, value, format!("a divisor of {of} {width}")))
    }
}

/// Checks what is added to a variance.
pub(crate) fn epsilon(name: &'static str, value: f32) -> Result<()> {
    let fits = value.is_finite() && value >= 0.0;
    if fits { Ok(()) } else { Err(field(name, value, "a finite number, not negative")) }
}

/// Checks a share.
pub(crate) fn rate(name: &'static str, value: f32) -> Result<()> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(field(name, value, "0 to 1")) }
}

/// Checks that a size is at least 1 and at most `most`.
pub(crate) fn within(name: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(field(name, value, format!("1 to {most}"))) }
}
