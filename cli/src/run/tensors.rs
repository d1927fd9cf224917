//! The tensors of `run`: inputs from a file, outputs into one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rachis::kernels::MatRef;
use rachis::{Decoder, SequenceOutput, Session, Tokens};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::Result;
use crate::args::RunArgs;

/// An output: shape and values.
pub type Output = (Vec<usize>, Vec<f32>);

/// Outputs by name.
pub type Outputs = BTreeMap<String, Output>;

/// `token_ids` and `padding_mask` of one tower.
pub struct Batch {
    /// `(batch, seq)`
    pub shape: (usize, usize),
    ids: Vec<u32>,
    mask: Option<Vec<u8>>,
}

impl Batch {
    /// Reads the inputs `{prefix}token_ids` and `{prefix}padding_mask`.
    pub fn read(inputs: &Inputs<'_>, prefix: &str) -> Result<Batch> {
        let [ids_name, mask_name] = ["token_ids", "padding_mask"].map(|name| format!("{prefix}{name}"));
        let ids = inputs.required(&ids_name)?;
        let mask = inputs.optional(&mask_name, ids.shape)?;
        let mask = mask.map(|mask| mask.narrow::<u8>(&mask_name)).transpose()?;
        Ok(Batch { shape: ids.shape, ids: ids.narrow::<u32>(&ids_name)?, mask })
    }

    pub fn tokens(&self) -> Tokens<'_> {
        match &self.mask {
            Some(mask) => Tokens::with_mask(&self.ids, self.shape.0, self.shape.1, mask),
            None => Tokens::padded(&self.ids, self.shape.0, self.shape.1),
        }
    }

    /// The vectors of all positions, `[batch, seq, hidden]`; padding is zero.
    pub fn padded(&self, output: SequenceOutput<'_>) -> Result<Output> {
        padded(self.shape, output)
    }

    /// The logits of a decoder's output, `[batch, seq, vocabulary]`; padding is zero.
    pub fn decoder_logits(
        &self,
        model: &impl Decoder,
        session: &mut Session<'_>,
        sequence: &Output,
    ) -> Result<Output> {
        self.logits(sequence, model.vocabulary_size(), |rows, logits| model.logits(session, rows, logits))
    }

    /// The logits that `compute` makes of all positions, `[batch, seq, vocabulary]`; padding is zero.
    pub fn logits(
        &self,
        (shape, sequence): &Output,
        vocabulary: usize,
        compute: impl FnOnce(MatRef<'_, f32>, &mut [f32]) -> rachis::Result<()>,
    ) -> Result<Output> {
        let (batch, seq) = self.shape;
        let width = shape.last().copied().unwrap_or(0);
        let mut logits = vec![0.0; batch * seq * vocabulary];
        compute(MatRef::new(sequence, batch * seq, width)?, &mut logits)?;
        if let Some(mask) = &self.mask {
            for (row, _) in logits.chunks_exact_mut(vocabulary).zip(mask).filter(|(_, mask)| **mask == 0) {
                row.fill(0.0);
            }
        }
        Ok((vec![batch, seq, vocabulary], logits))
    }
}

/// The vectors of all positions, `[batch, seq, hidden]`; padding is zero.
fn padded((batch, seq): (usize, usize), output: SequenceOutput<'_>) -> Result<Output> {
    let width = output.hidden_dim();
    let mut values = vec![0.0; batch * seq * width];
    output.write_padded(&mut values)?;
    Ok((vec![batch, seq, width], values))
}

/// Collects the hidden states of every layer for `--layers`, or the first error.
pub struct Layers {
    enabled: bool,
    outputs: Mutex<Result<Outputs>>,
}

impl Layers {
    pub fn new(args: &RunArgs) -> Layers {
        Layers { enabled: args.layers, outputs: Mutex::new(Ok(Outputs::new())) }
    }

    pub fn put(&self, prefix: &str, layer: usize, shape: (usize, usize), states: SequenceOutput<'_>) {
        if !self.enabled {
            return;
        }
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *outputs, padded(shape, states)) {
            (Ok(outputs), Ok(states)) => {
                outputs.insert(format!("{prefix}hidden_states.{layer}"), states);
            }
            (outputs, Err(error)) => *outputs = Err(error),
            (Err(_), Ok(_)) => {}
        }
    }

    pub fn finish(self) -> Result<Outputs> {
        self.outputs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The input file's integer tensors.
pub struct Inputs<'a> {
    tensors: SafeTensors<'a>,
}

/// A `[batch, seq]` integer tensor.
pub struct Input {
    shape: (usize, usize),
    values: Vec<i64>,
}

impl<'a> Inputs<'a> {
    pub fn parse(path: &Path, bytes: &'a [u8]) -> Result<Inputs<'a>> {
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Inputs { tensors })
    }

    /// Returns an error for an input that the model does not have: a misspelt mask must not be ignored.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.tensors.names().into_iter().find(|name| !known.contains(name)) {
            Some(name) => {
                Err(format!("input {name} is unknown, expected some of {}", known.join(", ")).into())
            }
            None => Ok(()),
        }
    }

    /// Whether there is such an input.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    fn required(&self, name: &str) -> Result<Input> {
        Ok(self.get(name)?.ok_or_else(|| format!("input {name} is missing"))?)
    }

    pub fn optional(&self, name: &str, shape: (usize, usize)) -> Result<Option<Input>> {
        let input = self.get(name)?;
        match &input {
            Some(input) if input.shape != shape => {
                Err(format!("input {name} has shape {:?}, expected {shape:?}", input.shape).into())
            }
            _ => Ok(input),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Input>> {
        let Ok(view) = self.tensors.tensor(name) else { return Ok(None) };
        let &[batch, seq] = view.shape() else {
            return Err(format!("input {name} has shape {:?}, expected [batch, seq]", view.shape()).into());
        };
        let values = match view.dtype() {
            Dtype::I32 => {
                view.data().as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect()
            }
            Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            other => return Err(format!("input {name} is {other:?}, expected I32 or I64").into()),
        };
        Ok(Some(Input { shape: (batch, seq), values }))
    }
}

impl Input {
    /// The values as the integer type that the model takes.
    pub fn narrow<T: TryFrom<i64>>(&self, name: &str) -> Result<Vec<T>> {
        let narrow = |value: &i64| {
            T::try_from(*value)
                .map_err(|_| format!("input {name} has the value {value}, which is out of range").into())
        };
        self.values.iter().map(narrow).collect()
    }
}

/// Writes the outputs to a file beside the target and renames it, so that a failure leaves no incomplete file.
pub fn save(path: &Path, outputs: &Outputs) -> Result<()> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = outputs
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let mut views = Vec::new();
    for (name, shape, bytes) in &bytes {
        views.push((name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes)?));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    safetensors::serialize_to_file(views, None, Path::new(&partial)).map_err(|error| named(&error))?;
    Ok(std::fs::rename(&partial, path).map_err(|error| named(&error))?)
}
