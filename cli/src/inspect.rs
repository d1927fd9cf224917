//! `inspect` and `verify`: the contents of a model directory, and whether its weights are finite.

use rachis::Backbone;
use rachis::loader::{Access, Data, Preset, Tensor, TensorDtype};
use serde_json::{Value, json};

use crate::args::InspectArgs;
use rachis_text::visible;

use crate::{Result, print};

pub fn inspect(args: &InspectArgs) -> Result<()> {
    report(args, Check::Metadata)
}

pub fn verify(args: &InspectArgs) -> Result<()> {
    report(args, Check::Values)
}

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// The configuration, and the names and shapes of the weights.
    Metadata,
    /// The values of the weights, too.
    Values,
}

fn report(args: &InspectArgs, check: Check) -> Result<()> {
    let preset = Preset::named(&args.model, Access::Map)?;
    // Loading checks the configuration, and the name and shape of every weight; it reads no values.
    let model = Backbone::load(&preset)?;
    let parameters: usize =
        preset.tensors().iter().map(|tensor| tensor.shape().iter().product::<usize>()).sum();
    let mut summary = json!({
        "architecture": model.name(),
        "dtype": model.dtype().name(),
        "parameters": parameters,
        "files": preset.files().iter().map(|file| json!({ "name": file.name, "bytes": file.len })).collect::<Vec<_>>(),
        "bytes_mapped": preset.bytes_mapped(),
        "bytes_copied": preset.bytes_copied(),
        "tensors": preset.tensors().iter().map(describe).collect::<Vec<_>>(),
    });
    let bad = match check {
        Check::Values => preset.tensors().iter().filter_map(not_finite).collect(),
        Check::Metadata => Vec::new(),
    };
    if check == Check::Values {
        summary["not_finite"] = bad.clone().into();
    }
    let printed = if args.json { print(format_args!("{summary}\n")) } else { table(&summary) };
    match bad.first() {
        Some(first) => {
            Err(format!("weight {} has {} values that are not finite", first["name"], first["count"]).into())
        }
        None => printed,
    }
}

fn describe(tensor: &Tensor) -> Value {
    json!({
        "name": tensor.name(),
        "dtype": tensor.dtype().to_string(),
        "shape": tensor.shape(),
        "bytes": tensor.byte_len(),
        "copied": tensor.copied(),
    })
}

/// The tensor's name and its number of values that are NaN or infinite, if there are any.
fn not_finite(tensor: &Tensor) -> Option<Value> {
    let count = match tensor.data() {
        Data::F32(data) => data.iter().filter(|x| !x.is_finite()).count(),
        Data::Bf16(data) => data.iter().filter(|x| !x.is_finite()).count(),
        Data::F16(data) => data.iter().filter(|x| !x.is_finite()).count(),
        Data::Other(TensorDtype::F64, data) => {
            data.as_chunks().0.iter().filter(|x| !f64::from_le_bytes(**x).is_finite()).count()
        }
        Data::Other(TensorDtype::C64, data) => {
            data.as_chunks().0.iter().filter(|x| !f32::from_le_bytes(**x).is_finite()).count()
        }
        // Integers are finite.
        Data::Other(dtype, data) => data.iter().filter(|byte| is_not_finite_byte(dtype, **byte)).count(),
        _ => 0,
    };
    (count > 0).then(|| json!({ "name": tensor.name(), "count": count }))
}

/// Whether a byte is NaN or infinite as an 8-bit float. Floats of fewer bits are always finite.
fn is_not_finite_byte(dtype: TensorDtype, byte: u8) -> bool {
    match dtype {
        TensorDtype::F8E5M2 => byte & 0x7c == 0x7c,
        TensorDtype::F8E4M3 => byte & 0x7f == 0x7f,
        TensorDtype::F8E5M2Fnuz | TensorDtype::F8E4M3Fnuz => byte == 0x80,
        TensorDtype::F8E8M0 => byte == 0xff,
        _ => false,
    }
}

fn table(summary: &Value) -> Result<()> {
    for key in ["architecture", "dtype", "parameters", "bytes_mapped", "bytes_copied"] {
        print(format_args!("{key:>14}  {}\n", plain(&summary[key])))?;
    }
    for file in summary["files"].as_array().into_iter().flatten() {
        print(format_args!("{:>14}  {} ({} bytes)\n", "file", plain(&file["name"]), file["bytes"]))?;
    }
    print("\n")?;
    for tensor in summary["tensors"].as_array().into_iter().flatten() {
        let copied = if tensor["copied"] == true { "copied" } else { "mapped" };
        let (dtype, name, shape) = (plain(&tensor["dtype"]), plain(&tensor["name"]), &tensor["shape"]);
        print(format_args!("{dtype:>6}  {copied}  {:>12} bytes  {name} {shape}\n", tensor["bytes"]))?;
    }
    Ok(())
}

/// A JSON value on one line, a string without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), visible)
}
