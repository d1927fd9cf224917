//! `run`: one forward pass on the tensors of a file.

mod tensors;

use rachis::heads::SequenceHead;
use rachis::kernels::MatRef;
use rachis::loader::Preset;
use rachis::{
    Backbone, BartBackbone, BertBackbone, BertInputs, Decoder, FalconBackbone, Heads, Observer, OptBackbone,
    Seq2SeqInputs, Seq2SeqOutput, SequenceOutput, Session, T5Backbone, Tokens, Tower, TowerObserver,
};
use serde_json::json;

use tensors::{Batch, Inputs, Layers, Output, Outputs, save};

use crate::args::RunArgs;
use crate::{Result, print};

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
        Backbone::Bart(bart) => {
            let head = if args.logits { Heads::load(&preset, &model)?.sequence } else { None };
            let forward = BartBackbone::forward_observed;
            match head {
                None => seq2seq(args, bart, &mut session, &inputs, forward)?,
                Some(head) => {
                    let encoder = Batch::read(&inputs, "encoder_")?;
                    let mut outputs = match inputs.has("decoder_token_ids") {
                        true => seq2seq(args, bart, &mut session, &inputs, forward)?,
                        false => Outputs::new(),
                    };
                    let tokens = BertInputs { tokens: encoder.tokens(), segment_ids: None };
                    outputs.insert("logits".to_owned(), classes(&head, &model, &mut session, tokens)?);
                    outputs
                }
            }
        }
        Backbone::T5(model) => seq2seq(args, model, &mut session, &inputs, T5Backbone::forward_observed)?,
        Backbone::BartEncoder(_) | Backbone::T5Encoder(_) => encoder(args, &model, &mut session, &inputs)?,
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
            outputs.insert("logits".to_owned(), classes(head, backbone, session, inputs)?);
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

/// Runs an encoder by itself.
fn encoder(
    args: &RunArgs,
    model: &Backbone,
    session: &mut Session<'_>,
    inputs: &Inputs<'_>,
) -> Result<Outputs> {
    inputs.only(&["encoder_token_ids", "encoder_padding_mask"])?;
    let batch = Batch::read(inputs, "encoder_")?;
    let layers = Layers::new(args);
    let mut observe = |_: Tower, layer: usize, states: SequenceOutput<'_>| {
        layers.put("encoder_", layer, batch.shape, states);
    };
    let output = model.forward_observed(session, batch.tokens(), &mut observe)?;
    let encoded = batch.padded(output.sequence_output())?;
    if args.logits {
        return Err("the file has no heads to compute logits with".into());
    }
    let mut outputs = layers.finish()?;
    outputs.insert("encoder_sequence_output".to_owned(), encoded);
    Ok(outputs)
}

/// The logits of a classifier of sequences, `[batch, classes]`.
fn classes(
    head: &SequenceHead,
    backbone: &Backbone,
    session: &mut Session<'_>,
    inputs: BertInputs<'_>,
) -> Result<Output> {
    let shape = vec![inputs.tokens.batch(), head.classes()];
    let mut logits = vec![0.0; shape.iter().product()];
    head.logits(session, backbone, inputs, &mut logits)?;
    Ok((shape, logits))
}
