//! Reference outputs of transformers and KerasHub: the files, the names in them, and the metric of comparison.
//!
//! A golden file is a safetensors file whose names are `<case>.in.<input>`, `<case>.valid.<kind>`,
//! `<case>.defined.<kind>` (all i32), `<case>.f64.<tensor>` and `<case>.f32.<tensor>`. The f64 values are the reference;
//! the f32 values are a library's own run in that type, and never a reference. `fixtures/README.md` says how they were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// The path of a file under the fixtures directory.
pub fn fixture(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A tensor: dimensions and elements, the last dimension fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T> {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<T>,
}

impl<T> Array<T> {
    /// Size of the last dimension.
    ///
    /// # Panics
    /// For a scalar.
    pub fn width(&self) -> usize {
        *self.shape.last().expect("an array with dimensions")
    }

    /// The elements in rows of the last dimension.
    pub fn rows(&self) -> impl Iterator<Item = &[T]> {
        self.data.chunks_exact(self.width().max(1))
    }
}

/// A golden file in memory.
#[derive(Debug, Clone)]
pub struct Goldens {
    path: PathBuf,
    floats: BTreeMap<String, Array<f64>>,
    integers: BTreeMap<String, Array<i32>>,
}

impl Goldens {
    /// Reads a file under the fixtures directory.
    ///
    /// # Panics
    /// When there is no such file, or it has a tensor of another type than f64, f32, i32, i8 and u8.
    #[track_caller]
    pub fn read(path: impl AsRef<Path>) -> Goldens {
        let path = fixture(path);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file =
            SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (mut floats, mut integers) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in file.iter() {
            let (shape, data) = (tensor.shape().to_vec(), tensor.data());
            match tensor.dtype() {
                Dtype::F64 => {
                    let data = numbers(data, f64::from_le_bytes).collect();
                    floats.insert(name.to_owned(), Array { shape, data });
                }
                Dtype::F32 => {
                    let data = numbers(data, f32::from_le_bytes).map(f64::from).collect();
                    floats.insert(name.to_owned(), Array { shape, data });
                }
                Dtype::I32 => {
                    let data = numbers(data, i32::from_le_bytes).collect();
                    integers.insert(name.to_owned(), Array { shape, data });
                }
                Dtype::I8 => {
                    let data = numbers(data, i8::from_le_bytes).map(i32::from).collect();
                    integers.insert(name.to_owned(), Array { shape, data });
                }
                Dtype::U8 => {
                    let data = data.iter().copied().map(i32::from).collect();
                    integers.insert(name.to_owned(), Array { shape, data });
                }
                other => panic!("{}: {name} has the unexpected type {other:?}", path.display()),
            }
        }
        Goldens { path, floats, integers }
    }

    /// The cases with an f64 output, in alphabetical order.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> =
            self.floats.keys().filter_map(|name| Some(name.split_once(".f64.")?.0)).collect();
        cases.dedup();
        cases
    }

    /// The names of the f64 outputs of a case, in alphabetical order.
    pub fn tensors(&self, case: &str) -> Vec<&str> {
        let prefix = format!("{case}.f64.");
        self.floats.keys().filter_map(|name| name.strip_prefix(&prefix)).collect()
    }

    /// `<case>.in.<name>`, if the case has it.
    pub fn input(&self, case: &str, name: &str) -> Option<&Array<i32>> {
        self.integers.get(&format!("{case}.in.{name}"))
    }

    /// `<case>.valid.<kind>`: 1 where a position is real.
    #[track_caller]
    pub fn valid(&self, case: &str, kind: &str) -> &Array<i32> {
        self.integer(&format!("{case}.valid.{kind}"))
    }

    /// `<case>.defined.<kind>`: 1 where a position is computed from at least one visible key.
    #[track_caller]
    pub fn defined(&self, case: &str, kind: &str) -> &Array<i32> {
        self.integer(&format!("{case}.defined.{kind}"))
    }

    /// `<case>.f64.<tensor>`
    #[track_caller]
    pub fn expected(&self, case: &str, tensor: &str) -> &Array<f64> {
        self.float(&format!("{case}.f64.{tensor}"))
    }

    /// A float tensor by its whole name, f32 widened.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn float(&self, name: &str) -> &Array<f64> {
        self.floats.get(name).unwrap_or_else(|| panic!("{}: no float tensor {name}", self.path.display()))
    }

    /// An integer tensor by its whole name, bytes widened.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn integer(&self, name: &str) -> &Array<i32> {
        self.integers.get(name).unwrap_or_else(|| panic!("{}: no i32 tensor {name}", self.path.display()))
    }
}

/// The little-endian numbers of a byte string.
fn numbers<const N: usize, T>(data: &[u8], from: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    data.as_chunks::<N>().0.iter().map(move |bytes| from(*bytes))
}

/// The largest `|got - expected|` over the compared rows, divided by the largest `|expected|` of the whole
/// tensor. `compared` has a 1 for each row of the last dimension that is compared. Infinite when a compared result is not
/// finite.
///
/// # Panics
/// When the number of elements or of rows differs, no row is compared, or all expected values are zero.
#[track_caller]
pub fn relative_error(got: &[f32], expected: &Array<f64>, compared: &[i32]) -> f64 {
    assert_eq!(got.len(), expected.data.len(), "number of elements");
    assert_eq!(compared.len(), expected.rows().count(), "number of rows");
    assert!(compared.contains(&1), "no row is compared");
    let largest = expected.data.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    assert!(largest > 0.0, "all expected values are zero");
    let mut worst = 0.0f64;
    for ((got, expected), compared) in got.chunks_exact(expected.width()).zip(expected.rows()).zip(compared) {
        if *compared == 1 {
            for (got, expected) in got.iter().zip(expected) {
                let error = (f64::from(*got) - expected).abs();
                worst = worst.max(if error.is_finite() { error } else { f64::INFINITY });
            }
        }
    }
    worst / largest
}

/// The limits for comparisons with the golden files: four times the worst error that the libraries' own f32 runs showed, at
/// least 2e-6.
#[derive(Debug, Clone)]
pub struct Limits {
    json: serde_json::Value,
}

impl Limits {
    /// Reads `tolerances.json` of the fixtures.
    ///
    /// # Panics
    /// When it is missing or is not JSON.
    #[track_caller]
    pub fn read() -> Limits {
        let path = fixture("tolerances.json");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Limits { json }
    }

    /// The f32 limit of [`relative_error`] for a tensor of a family. All per-layer states, `hs.<i>`, `enc_hs.<i>` and
    /// `dec_hs.<i>`, share one.
    #[track_caller]
    pub fn float32(&self, family: &str, tensor: &str) -> f64 {
        let tensor = tensor.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('.');
        let tensor = if tensor.ends_with("_hs") { "hs" } else { tensor };
        self.number(&["f32", family, tensor, "suggested_f32_tol_max_abs_over_ref_max"])
    }

    /// The error of the library's own run in `bf16` or `f16`, for a family such as `bert`, against exact arithmetic on the
    /// same rounded weights.
    #[track_caller]
    pub fn native_half(&self, family: &str, dtype: &str) -> f64 {
        let key = format!("{family}.{dtype}");
        self.number(&["bf16_f16_torch_native_vs_f64_on_same_rounded_weights", &key, "torch_native"])
    }

    #[track_caller]
    fn number(&self, path: &[&str]) -> f64 {
        let value = path.iter().try_fold(&self.json, |value, key| value.get(key));
        value.and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("tolerances.json has no {path:?}"))
    }
}

/// The kind of positions that a tensor of this name has.
pub fn kind(family: &str, tensor: &str) -> &'static str {
    match (family, tensor) {
        (_, "pooled_output" | "nsp_logits") => "pooled",
        ("bart" | "t5", tensor) if tensor.starts_with("enc") => "enc",
        ("bart" | "t5", _) => "dec",
        _ => "seq",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tolerance::BOTH_OPERANDS_ROUNDED;

    #[test]
    fn tensors_of_a_golden_file_are_found_by_name() {
        let goldens = Goldens::read("bert_tanh/goldens.safetensors");
        assert!(goldens.cases().contains(&"rpad_s13"));
        assert!(goldens.tensors("rpad_s13").contains(&"sequence_output"));
        let expected = goldens.expected("rpad_s13", "sequence_output");
        assert_eq!(expected.shape, [3, 13, 32]);
        let valid = goldens.valid("rpad_s13", "seq");
        assert_eq!(valid.shape, [3, 13]);
        assert!(goldens.defined("rpad_s13", "seq").data.iter().sum::<i32>() >= valid.data.iter().sum());
        assert!(goldens.input("rpad_s13", "nothing").is_none());
        let library = goldens.float("rpad_s13.f32.sequence_output");
        let got: Vec<f32> = library.data.iter().map(|x| *x as f32).collect();
        let error = relative_error(&got, expected, &valid.data);
        let limit = Limits::read().float32("bert", "sequence_output");
        assert!(error > 0.0 && error < limit, "{error:e} of {limit:e}");
    }

    #[test]
    fn per_layer_states_share_a_limit() {
        let limits = Limits::read();
        assert_eq!(limits.float32("bert", "hs.2"), limits.float32("bert", "hs"));
        assert!(limits.native_half("bert", "bf16") > limits.native_half("bert", "f16"));
    }

    /// The families whose files in float16 are also run with weights rounded to bf16; see [`BOTH_OPERANDS_ROUNDED`].
    #[test]
    fn rounding_weights_costs_at_most_what_rounding_activations_does() {
        let limits = Limits::read();
        for family in ["bert", "t5"] {
            let key = format!("{family}.bf16");
            let path = ["bf16_f16_torch_native_vs_f64_on_same_rounded_weights", &key, "weight_rounding_only"];
            let (activations, weights) = (limits.native_half(family, "bf16"), limits.number(&path));
            assert!(activations + weights <= BOTH_OPERANDS_ROUNDED * activations, "{family}");
        }
    }

    #[test]
    fn the_metric_reads_compared_rows_only_and_is_infinite_for_nan() {
        let expected = Array { shape: vec![2, 2], data: vec![1.0, 2.0, 3.0, -4.0] };
        assert_eq!(relative_error(&[1.0, 2.5, 9.0, 9.0], &expected, &[1, 0]), 0.125);
        assert_eq!(relative_error(&[1.0, 2.0, 3.0, f32::NAN], &expected, &[1, 1]), f64::INFINITY);
        assert_eq!(relative_error(&[1.0, 2.0, 3.0, f32::NAN], &expected, &[1, 0]), 0.0);
    }

    #[test]
    #[should_panic(expected = "no row is compared")]
    fn a_comparison_of_no_rows_is_refused() {
        relative_error(&[1.0], &Array { shape: vec![1, 1], data: vec![1.0] }, &[0]);
    }
}
