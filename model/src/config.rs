//! What configurations have in common: checks of fields, and the names of activations and dtypes.

use rachis_kernels::{Activation, Dtype};
use rachis_loader::{Config, ConfigSource, Preset};
use serde_json::{Map, Value};

use crate::error::{Error, Result, clip};

/// The dtype that a preset's configuration states, or float32 when it states none. KerasHub's mixed policies are read
/// by the type that they compute in: variables stay stored as they are under every dtype.
pub(crate) fn preset_dtype(config: &Config) -> Result<Dtype> {
    match config.dtype()? {
        None => Ok(Dtype::Float32),
        Some("mixed_bfloat16") => Ok(Dtype::Bfloat16),
        Some("mixed_float16") => Ok(Dtype::Float16),
        Some(name) => name.parse().map_err(|_| field("dtype", name, "float32, bfloat16 or float16")),
    }
}

/// The activation that Hugging Face calls `name`.
pub(crate) fn activation(name: &str) -> Result<Activation> {
    name.parse().map_err(|_| {
        let expected = Activation::ALL.map(Activation::name).join(", ");
        field("activation", name, format!("one of {expected}"))
    })
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

/// The fields of a Hugging Face configuration.
pub(crate) type Fields = Map<String, Value>;

/// The fields of a JSON object.
pub(crate) fn fields(object: Value) -> Fields {
    match object {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// `x` as a JSON number with the fewest digits that read back as `x`.
pub(crate) fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// [`Error::Config`] from anything printable.
pub(crate) fn field(field: &'static str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Config { field, found: clip(found), expected: expected.to_string() }
}

/// The architecture that a preset names: transformers' model type or Keras's class.
pub(crate) fn architecture(preset: &Preset) -> &str {
    match preset.config().source() {
        ConfigSource::HuggingFace { model_type } => model_type,
        ConfigSource::Keras { class_name } => class_name,
    }
}

/// The error of a preset whose architecture is not `expected`.
pub(crate) fn other_architecture(preset: &Preset, expected: &'static str) -> Error {
    Error::Architecture { path: preset.dir().to_owned(), found: clip(architecture(preset)), expected }
}

/// The largest values that configurations accept: far beyond any model, far below any overflow.
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

/// Checks the constant that a norm adds to the variance.
pub(crate) fn epsilon(name: &'static str, value: f32) -> Result<()> {
    let fits = value.is_finite() && value >= 0.0;
    if fits { Ok(()) } else { Err(field(name, value, "a finite number, not negative")) }
}

/// Checks a rate or a probability.
pub(crate) fn rate(name: &'static str, value: f32) -> Result<()> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(field(name, value, "0 to 1")) }
}

/// Checks that a size is at least 1 and at most `max`.
pub(crate) fn within(name: &'static str, value: usize, max: usize) -> Result<()> {
    if (1..=max).contains(&value) { Ok(()) } else { Err(field(name, value, format!("1 to {max}"))) }
}
