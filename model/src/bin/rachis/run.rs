//! `run`: one forward pass on tensors from a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use rachis::bert::BertPretrainingHeads;
use rachis::kernels::MatRef;
use rachis::loader::Preset;
use rachis::{Backbone, BertBackbone, BertInputs, Session, Tokens};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::Result;
use crate::args::{RunArgs, open};

/// Outputs by name: shape and values.
type Outputs = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn run(args: &RunArgs) -> Result<()> {
    let (preset, model) = open(args.common.model()?)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref(), model.dtype())?);
    let bytes = std::fs::read(&args.input).map_err(|error| format!("{}: {error}", args.input.display()))?;
    let inputs = Inputs::parse(&args.input, &bytes)?;
    let outputs = match &model {
        Backbone::Bert(model) => bert(args, &preset, model, &mut session, &inputs)?,
        other => return Err(format!("run does not know {}", other.name()).into()),
    };
    save(&args.output, &outputs)
}

fn bert(
    args: &RunArgs,
    preset: &Preset,
    model: &BertBackbone,
    session: &mut Session<'_>,
    inputs: &Inputs<'_>,
) -> Result<Outputs> {
    inputs.only(&["token_ids", "segment_ids", "padding_mask"])?;
    let ids = inputs.required("token_ids")?;
    let (batch, seq) = ids.shape;
    let mask = inputs
        .optional("padding_mask", ids.shape)?
        .map(|mask| mask.narrow::<u8>("padding_mask"))
        .transpose()?;
    let segments = inputs.optional("segment_ids", ids.shape)?;
    let segments = segments.map(|segments| segments.narrow::<u32>("segment_ids")).transpose()?;
    let ids = ids.narrow::<u32>("token_ids")?;
    let tokens = match &mask {
        Some(mask) => Tokens::with_mask(&ids, batch, seq, mask),
        None => Tokens::padded(&ids, batch, seq),
    };
    let inputs = BertInputs { tokens, segment_ids: segments.as_deref() };
    let (hidden, vocabulary) = (model.config().hidden_dim, model.config().vocabulary_size);

    let outputs = Mutex::new(Outputs::new());
    let failed = Mutex::new(None);
    let put = |name: String, shape: Vec<usize>, values| {
        if let Ok(mut outputs) = outputs.lock() {
            outputs.insert(name, (shape, values));
        }
    };
    let mut observe = |layer: usize, states: rachis::SequenceOutput<'_>| {
        let mut values = vec![0.0; batch * seq * hidden];
        match states.write_padded(&mut values) {
            Ok(()) => put(format!("hidden_states.{layer}"), vec![batch, seq, hidden], values),
            Err(error) => *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error),
        }
    };
    let observer: Option<rachis::bert::Observer<'_>> = if args.layers { Some(&mut observe) } else { None };
    let output = model.forward_observed(session, inputs, observer)?;
    if let Some(error) = failed.into_inner()? {
        return Err(error.into());
    }
    let mut sequence = vec![0.0; batch * seq * hidden];
    output.sequence_output.write_padded(&mut sequence)?;
    let pooled: Vec<f32> = (0..batch).flat_map(|i| output.pooled_output.row(i).to_vec()).collect();
    let mut outputs = outputs.into_inner()?;
    if args.logits {
        let heads = BertPretrainingHeads::load(preset, model)?
            .ok_or("the file has no heads to compute logits with")?;
        let mut logits = vec![0.0; batch * seq * vocabulary];
        heads.mlm_logits(session, MatRef::new(&sequence, batch * seq, hidden)?, &mut logits)?;
        if let Some(mask) = &mask {
            for (row, _) in logits.chunks_exact_mut(vocabulary).zip(mask).filter(|(_, mask)| **mask == 0) {
                row.fill(0.0);
            }
        }
        outputs.insert("mlm_logits".to_owned(), (vec![batch, seq, vocabulary], logits));
        let mut logits = vec![0.0; batch * 2];
        heads.nsp_logits(session, MatRef::new(&pooled, batch, hidden)?, &mut logits)?;
        outputs.insert("nsp_logits".to_owned(), (vec![batch, 2], logits));
    }
    outputs.insert("sequence_output".to_owned(), (vec![batch, seq, hidden], sequence));
    outputs.insert("pooled_output".to_owned(), (vec![batch, hidden], pooled));
    Ok(outputs)
}

/// The input file's integer tensors.
struct Inputs<'a> {
    tensors: SafeTensors<'a>,
}

/// A `[batch, seq]` integer tensor.
struct Input {
    shape: (usize, usize),
    values: Vec<i64>,
}

impl<'a> Inputs<'a> {
    fn parse(path: &Path, bytes: &'a [u8]) -> Result<Inputs<'a>> {
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Inputs { tensors })
    }

    /// Refuses inputs that the model does not have: a misspelt mask must not be ignored.
    fn only(&self, known: &[&str]) -> Result<()> {
        match self.tensors.names().into_iter().find(|name| !known.contains(name)) {
            Some(name) => {
                Err(format!("input {name} is unknown, expected some of {}", known.join(", ")).into())
            }
            None => Ok(()),
        }
    }

    fn required(&self, name: &str) -> Result<Input> {
        Ok(self.get(name)?.ok_or_else(|| format!("input {name} is missing"))?)
    }

    fn optional(&self, name: &str, shape: (usize, usize)) -> Result<Option<Input>> {
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
    /// The values in the type that the model takes.
    fn narrow<T: TryFrom<i64>>(&self, name: &str) -> Result<Vec<T>> {
        let narrow = |value: &i64| {
            T::try_from(*value).map_err(|_| format!("input {name} has the value {value}").into())
        };
        self.values.iter().map(narrow).collect()
    }
}

/// Writes the outputs beside the target and renames, so that a failure leaves no half-written file.
fn save(path: &Path, outputs: &Outputs) -> Result<()> {
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
