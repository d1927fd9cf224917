//! `run`: one forward pass on the tensors of a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rachis::kernels::MatRef;
use rachis::loader::Preset;
use rachis::{
    Backbone, BartBackbone, BertBackbone, BertInputs, Decoder, FalconBackbone, Heads, Observer, OptBackbone,
    Seq2SeqInputs, Seq2SeqOutput, SequenceOutput, Session, T5Backbone, Tokens, Tower, TowerObserver,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::json;

use crate::args::RunArgs;
use crate::{Result, print};

/// An output: shape and values.
type Output = (Vec<usize>, Vec<f32>);

/// Outputs by name.
type Outputs = BTreeMap<String, Output>;

pub fn run(args: &RunArgs) -> Result<()> {
    let (preset, model) = args.common.open(args.common.model()?)?;
    let pool = args.common.pool()?;
    let mut session = Session::new(args.common.ctx(pool.as_ref())?);
    let bytes = std::fs::read(&args.input).map_err(|error| format!("{}: {error}", args.input.display()))?;
    let inputs = Inputs::parse(&args.input, &bytes)?;
    let outputs = match &model {
        Backbone::Bert(bert_model) => bert(args, (&preset, &model, bert_model), &mut session, &inputs)?,
        Backbone::Opt(model) => causal(args, model, &mut session, &inputs, OptBackbone::forward_observed)?,
        Backbone::Falcon(model) => {
            causal(args, model, &mut session, &inputs, FalconBackbone::forward_observed)?
        }
        Backbone::Bart(model) => seq2seq(args, model, &mut session, &inputs, BartBackbone::forward_observed)?,
        Backbone::T5(model) => seq2seq(args, model, &mut session, &inputs, T5Backbone::forward_observed)?,
        other => return Err(format!("run does not support {}", other.name()).into()),
    };
    save(&args.output, &outputs)?;
    if args.common.json {
        let describe =
            |(name, (shape, _)): (&String, &Output)| json!({ "name": name, "dtype": "F32", "shape": shape });
        let tensors: Vec<_> = outputs.iter().map(describe).collect();
        print(format_args!("{}\n", json!({ "output": args.output.to_string_lossy(), "tensors": tensors })))?;
    }
    Ok(())
}

fn bert(
    args: &RunArgs,
    (preset, backbone, model): (&Preset, &Backbone, &BertBackbone),
    session: &mut Session<'_>,
    inputs: &Inputs<'_>,
) -> Result<Outputs> {
    inputs.only(&["token_ids", "segment_ids", "padding_mask"])?;
    let batch = Batch::read(inputs, "")?;
    let segments = inputs.optional("segment_ids", batch.shape)?;
    let segments = segments.map(|segments| segments.narrow::<u32>("segment_ids")).transpose()?;
    let inputs = BertInputs { tokens: batch.tokens(), segment_ids: segments.as_deref() };
    let (count, hidden) = (batch.shape.0, model.config().hidden_dim);

    let layers = Layers::new(args);
    let mut observe = |layer: usize, states: SequenceOutput<'_>| layers.put("", layer, batch.shape, states);
    let output = model.forward_observed(session, inputs, &mut observe)?;
    let sequence = batch.padded(output.sequence_output)?;
    let pooled: Option<Vec<f32>> =
        output.pooled_output.map(|pooled| (0..count).flat_map(|i| pooled.row(i).to_vec()).collect());
    let mut outputs = layers.finish()?;
    if args.logits {
        let heads = Heads::load(preset, backbone)?;
        if heads.is_empty() {
            return Err("the file has no heads to compute logits with".into());
        }
        if let Some(head) = &heads.masked_lm {
            let logits =
                batch.logits(&sequence, head.vocabulary_size(), |rows, to| head.logits(session, rows, to))?;
            outputs.insert("mlm_logits".to_owned(), logits);
        }
        if let Some(head) = &heads.next_sentence {
            let pooled =
                pooled.as_ref().ok_or("the file has a next-sentence head and no pooler before it")?;
            let mut logits = vec![0.0; count * head.classes()];
            head.logits(session, MatRef::new(pooled, count, hidden)?, &mut logits)?;
            outputs.insert("nsp_logits".to_owned(), (vec![count, head.classes()], logits));
        }
        if let Some(head) = &heads.sequence {
            let mut logits = vec![0.0; count * head.classes()];
            head.logits(session, backbone, inputs, &mut logits)?;
            outputs.insert("logits".to_owned(), (vec![count, head.classes()], logits));
        }
        if let Some(head) = &heads.token {
            let logits =
                batch.logits(&sequence, head.classes(), |rows, to| head.logits(session, rows, to))?;
            outputs.insert("logits".to_owned(), logits);
        }
        if let Some(head) = &heads.span {
            let (_, logits) =
                batch.logits(&sequence, head.classes(), |rows, to| head.logits(session, rows, to))?;
            for (at, name) in ["start_logits", "end_logits"].into_iter().enumerate() {
                let column = logits.chunks_exact(head.classes()).filter_map(|row| row.get(at).copied());
                outputs.insert(name.to_owned(), (vec![count, batch.shape.1], column.collect()));
            }
        }
    }
    outputs.insert("sequence_output".to_owned(), sequence);
    if let Some(pooled) = pooled {
        outputs.insert("pooled_output".to_owned(), (vec![count, hidden], pooled));
    }
    Ok(outputs)
}

/// Runs a decoder-only model, whose observed forward pass is `forward`.
fn causal<M: Decoder>(
    args: &RunArgs,
    model: &M,
    session: &mut Session<'_>,
    inputs: &Inputs<'_>,
    forward: impl for<'s> Fn(
        &M,
        &'s mut Session<'_>,
        Tokens<'_>,
        Observer<'_>,
    ) -> rachis::Result<SequenceOutput<'s>>,
) -> Result<Outputs> {
    inputs.only(&["token_ids", "padding_mask"])?;
    let batch = Batch::read(inputs, "")?;
    let layers = Layers::new(args);
    let mut observe = |layer: usize, states: SequenceOutput<'_>| layers.put("", layer, batch.shape, states);
    let sequence = batch.padded(forward(model, session, batch.tokens(), &mut observe)?)?;
    let mut outputs = layers.finish()?;
    if args.logits {
        outputs.insert("logits".to_owned(), batch.decoder_logits(model, session, &sequence)?);
    }
    outputs.insert("sequence_output".to_owned(), sequence);
    Ok(outputs)
}

/// Runs an encoder-decoder model, whose observed forward pass is `forward`.
fn seq2seq<M: Decoder>(
    args: &RunArgs,
    model: &M,
    session: &mut Session<'_>,
    inputs: &Inputs<'_>,
    forward: impl for<'s> Fn(
        &M,
        &'s mut Session<'_>,
        Seq2SeqInputs<'_>,
        TowerObserver<'_>,
    ) -> rachis::Result<Seq2SeqOutput<'s>>,
) -> Result<Outputs> {
    inputs.only(&[
        "encoder_token_ids",
        "encoder_padding_mask",
        "decoder_token_ids",
        "decoder_padding_mask",
    ])?;
    let (encoder, decoder) = (Batch::read(inputs, "encoder_")?, Batch::read(inputs, "decoder_")?);
    let layers = Layers::new(args);
    let mut observe = |tower: Tower, layer: usize, states: SequenceOutput<'_>| match tower {
        Tower::Encoder => layers.put("encoder_", layer, encoder.shape, states),
        Tower::Decoder => layers.put("decoder_", layer, decoder.shape, states),
    };
    let tokens = Seq2SeqInputs { encoder: encoder.tokens(), decoder: decoder.tokens() };
    let output = forward(model, session, tokens, &mut observe)?;
    let encoded = encoder.padded(output.encoder_sequence_output)?;
    let decoded = decoder.padded(output.decoder_sequence_output)?;
    let mut outputs = layers.finish()?;
    if args.logits {
        outputs.insert("logits".to_owned(), decoder.decoder_logits(model, session, &decoded)?);
    }
    outputs.insert("encoder_sequence_output".to_owned(), encoded);
    outputs.insert("decoder_sequence_output".to_owned(), decoded);
    Ok(outputs)
}

/// `token_ids` and `padding_mask` of one tower.
struct Batch {
    /// `(batch, seq)`
    shape: (usize, usize),
    ids: Vec<u32>,
    mask: Option<Vec<u8>>,
}

impl Batch {
    /// Reads the inputs `{prefix}token_ids` and `{prefix}padding_mask`.
    fn read(inputs: &Inputs<'_>, prefix: &str) -> Result<Batch> {
        let [ids_name, mask_name] = ["token_ids", "padding_mask"].map(|name| format!("{prefix}{name}"));
        let ids = inputs.required(&ids_name)?;
        let mask = inputs.optional(&mask_name, ids.shape)?;
        let mask = mask.map(|mask| mask.narrow::<u8>(&mask_name)).transpose()?;
        Ok(Batch { shape: ids.shape, ids: ids.narrow::<u32>(&ids_name)?, mask })
    }

    fn tokens(&self) -> Tokens<'_> {
        match &self.mask {
            Some(mask) => Tokens::with_mask(&self.ids, self.shape.0, self.shape.1, mask),
            None => Tokens::padded(&self.ids, self.shape.0, self.shape.1),
        }
    }

    /// The vectors of all positions, `[batch, seq, hidden]`; padding is zero.
    fn padded(&self, output: SequenceOutput<'_>) -> Result<Output> {
        padded(self.shape, output)
    }

    /// The logits of a decoder's output, `[batch, seq, vocabulary]`; padding is zero.
    fn decoder_logits(
        &self,
        model: &impl Decoder,
        session: &mut Session<'_>,
        sequence: &Output,
    ) -> Result<Output> {
        self.logits(sequence, model.vocabulary_size(), |rows, logits| model.logits(session, rows, logits))
    }

    /// The logits that `compute` makes of all positions, `[batch, seq, vocabulary]`; padding is zero.
    fn logits(
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
struct Layers {
    enabled: bool,
    outputs: Mutex<Result<Outputs>>,
}

impl Layers {
    fn new(args: &RunArgs) -> Layers {
        Layers { enabled: args.layers, outputs: Mutex::new(Ok(Outputs::new())) }
    }

    fn put(&self, prefix: &str, layer: usize, shape: (usize, usize), states: SequenceOutput<'_>) {
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

    fn finish(self) -> Result<Outputs> {
        self.outputs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// Returns an error for an input that the model does not have: a misspelt mask must not be ignored.
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
    /// The values as the integer type that the model takes.
    fn narrow<T: TryFrom<i64>>(&self, name: &str) -> Result<Vec<T>> {
        let narrow = |value: &i64| {
            T::try_from(*value)
                .map_err(|_| format!("input {name} has the value {value}, which is out of range").into())
        };
        self.values.iter().map(narrow).collect()
    }
}

/// Writes the outputs to a file beside the target and renames it, so that a failure leaves no incomplete file.
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
