//! What the model's tests share: fixtures as batches, and the comparison with golden files.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod models;

use rachis::kernels::{Ctx, Level, MatRef, Precision};
use rachis::loader::{Access, Preset};
use rachis::{
    Backbone, BertBackbone, BertInputs, Decoder, Heads, Observer, Seq2SeqInputs, Seq2SeqOutput,
    SequenceOutput, Session, Tokens, Tower, TowerObserver,
};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::{Goldens, Limits, fixture, kind, relative_error};
use rachis_testkit::tolerance::BOTH_OPERANDS_ROUNDED;

/// A padded batch of a golden case.
pub struct Batch {
    pub shape: (usize, usize),
    pub ids: Vec<u32>,
    pub mask: Vec<u8>,
    pub segments: Vec<u32>,
}

impl Batch {
    /// The inputs of `case`.
    pub fn of(goldens: &Goldens, case: &str) -> Batch {
        Batch::of_tower(goldens, case, "")
    }

    /// The inputs of `case` for the encoder or the decoder, whose names have this prefix.
    pub fn of_tower(goldens: &Goldens, case: &str, prefix: &str) -> Batch {
        let get = |name: &str| goldens.input(case, &format!("{prefix}{name}")).expect("an input of the case");
        let ids = get("input_ids");
        let unsigned = |name: &str| get(name).data.iter().map(|x| u32::try_from(*x).unwrap()).collect();
        Batch {
            shape: (ids.shape[0], ids.shape[1]),
            ids: unsigned("input_ids"),
            mask: get("attention_mask").data.iter().map(|x| u8::try_from(*x).unwrap()).collect(),
            segments: match goldens.input(case, "token_type_ids") {
                Some(_) => unsigned("token_type_ids"),
                None => Vec::new(),
            },
        }
    }

    pub fn tokens(&self) -> Tokens<'_> {
        Tokens::with_mask(&self.ids, self.shape.0, self.shape.1, &self.mask)
    }

    pub fn inputs(&self) -> BertInputs<'_> {
        BertInputs { tokens: self.tokens(), segment_ids: Some(&self.segments) }
    }
}

/// A fixture's model and its heads.
pub fn load(dir: &str, access: Access) -> (BertBackbone, Heads) {
    let preset = Preset::open(fixture(dir), access).unwrap();
    assert_eq!(preset.bytes_copied(), 0, "{dir}: fixtures are aligned");
    bert(&preset)
}

/// The BERT of a preset, and its heads.
pub fn bert(preset: &Preset) -> (BertBackbone, Heads) {
    let backbone = Backbone::load(preset).unwrap();
    let heads = Heads::load(preset, &backbone).unwrap();
    let Backbone::Bert(model) = backbone else { panic!("{} is no BERT", backbone.name()) };
    (model, heads)
}

/// Padded outputs by the names of the golden files.
pub fn outputs(model: &BertBackbone, heads: &Heads, ctx: Ctx<'_>, batch: &Batch) -> Vec<(String, Vec<f32>)> {
    let (hidden, vocabulary) = (model.config().hidden_dim, model.config().vocabulary_size);
    let (count, tokens) = (batch.shape.0, batch.shape.0 * batch.shape.1);
    let mut session = Session::new(ctx);
    let mut all = Vec::new();
    let mut observe =
        |layer: usize, states: SequenceOutput<'_>| all.push((format!("hs.{layer}"), padded(batch, states)));
    let output = model.forward_observed(&mut session, batch.inputs(), &mut observe).unwrap();
    let sequence = padded(batch, output.sequence_output);
    let pooled: Option<Vec<f32>> =
        output.pooled_output.map(|pooled| (0..count).flat_map(|i| pooled.row(i).to_vec()).collect());
    if let Some(head) = &heads.masked_lm {
        let mut logits = vec![f32::NAN; tokens * vocabulary];
        let rows = MatRef::new(&sequence, tokens, hidden).unwrap();
        head.logits(&mut session, rows, &mut logits).unwrap();
        all.push(("mlm_logits".to_owned(), logits));
    }
    if let (Some(head), Some(pooled)) = (&heads.next_sentence, &pooled) {
        let mut logits = vec![f32::NAN; count * 2];
        head.logits(&mut session, MatRef::new(pooled, count, hidden).unwrap(), &mut logits).unwrap();
        all.push(("nsp_logits".to_owned(), logits));
    }
    all.push(("sequence_output".to_owned(), sequence));
    all.extend(pooled.map(|pooled| ("pooled_output".to_owned(), pooled)));
    all
}

/// Padded outputs of a decoder alone, by the names of the golden files. `run` is its observed forward pass.
pub fn causal_outputs(
    model: &dyn Decoder,
    ctx: Ctx<'_>,
    batch: &Batch,
    run: impl for<'s> Fn(&'s mut Session<'_>, Tokens<'_>, Observer<'_>) -> rachis::Result<SequenceOutput<'s>>,
) -> Vec<(String, Vec<f32>)> {
    let mut session = Session::new(ctx);
    let mut all = Vec::new();
    let mut observe =
        |layer: usize, states: SequenceOutput<'_>| all.push((format!("hs.{layer}"), padded(batch, states)));
    let output = run(&mut session, batch.tokens(), &mut observe).unwrap();
    let width = output.hidden_dim();
    let sequence = padded(batch, output);
    all.push(("logits".to_owned(), logits(model, &mut session, (&sequence, width))));
    all.push(("sequence_output".to_owned(), sequence));
    all
}

/// Padded outputs of an encoder and a decoder, by the names of the golden files. `run` is their observed forward pass.
pub fn seq2seq_outputs(
    model: &dyn Decoder,
    ctx: Ctx<'_>,
    (goldens, case): (&Goldens, &str),
    run: impl for<'s> Fn(
        &'s mut Session<'_>,
        Seq2SeqInputs<'_>,
        TowerObserver<'_>,
    ) -> rachis::Result<Seq2SeqOutput<'s>>,
) -> Vec<(String, Vec<f32>)> {
    let encoder = Batch::of_tower(goldens, case, "encoder_");
    let decoder = Batch::of_tower(goldens, case, "decoder_");
    let mut session = Session::new(ctx);
    let mut all = Vec::new();
    let mut observe = |tower: Tower, layer: usize, states: SequenceOutput<'_>| {
        all.push(match tower {
            Tower::Encoder => (format!("enc_hs.{layer}"), padded(&encoder, states)),
            Tower::Decoder => (format!("dec_hs.{layer}"), padded(&decoder, states)),
        });
    };
    let inputs = Seq2SeqInputs { encoder: encoder.tokens(), decoder: decoder.tokens() };
    let output = run(&mut session, inputs, &mut observe).unwrap();
    let width = output.decoder_sequence_output.hidden_dim();
    let encoded = padded(&encoder, output.encoder_sequence_output);
    let decoded = padded(&decoder, output.decoder_sequence_output);
    all.push(("logits".to_owned(), logits(model, &mut session, (&decoded, width))));
    all.push(("encoder_sequence_output".to_owned(), encoded));
    all.push(("decoder_sequence_output".to_owned(), decoded));
    all
}

/// Padded outputs by the names of the golden files.
pub fn run(model: &Backbone, ctx: Ctx<'_>, goldens: &Goldens, case: &str) -> Vec<(String, Vec<f32>)> {
    match model {
        Backbone::Bert(model) => outputs(model, &Heads::default(), ctx, &Batch::of(goldens, case)),
        Backbone::Opt(model) => {
            causal_outputs(model, ctx, &Batch::of(goldens, case), |s, t, o| model.forward_observed(s, t, o))
        }
        Backbone::Falcon(model) => {
            causal_outputs(model, ctx, &Batch::of(goldens, case), |s, t, o| model.forward_observed(s, t, o))
        }
        Backbone::Bart(model) => {
            seq2seq_outputs(model, ctx, (goldens, case), |s, i, o| model.forward_observed(s, i, o))
        }
        Backbone::T5(model) => {
            seq2seq_outputs(model, ctx, (goldens, case), |s, i, o| model.forward_observed(s, i, o))
        }
        other => panic!("{}", other.name()),
    }
}

fn padded(batch: &Batch, output: SequenceOutput<'_>) -> Vec<f32> {
    let mut values = vec![f32::NAN; batch.shape.0 * batch.shape.1 * output.hidden_dim()];
    output.write_padded(&mut values).unwrap();
    values
}

fn logits(model: &dyn Decoder, session: &mut Session<'_>, (states, width): (&[f32], usize)) -> Vec<f32> {
    let rows = MatRef::new(states, states.len() / width, width).unwrap();
    let mut logits = vec![f32::NAN; rows.rows() * model.vocabulary_size()];
    model.logits(session, rows, &mut logits).unwrap();
    logits
}

/// Compares every tensor that a golden file has for a directory of weights, at every level, over the positions that
/// are real. `run` gives the outputs by the names of the golden files.
#[track_caller]
pub fn compare_with_goldens(
    family: &str,
    directory: &str,
    has_heads: bool,
    run: impl Fn(Ctx<'_>, &Goldens, &str) -> Vec<(String, Vec<f32>)>,
) {
    let goldens = Goldens::read(format!("{}/goldens.safetensors", directory.split('/').next().unwrap()));
    let limits = Limits::read();
    for_each_level(Level::supported(), |level| {
        let mut compared = 0;
        for case in goldens.cases() {
            let got = run(Ctx::new(level).unwrap(), &goldens, case);
            for tensor in goldens.tensors(case) {
                let Some((_, got)) = got.iter().find(|(name, _)| name == tensor) else {
                    assert!(!has_heads && tensor.ends_with("logits"), "{directory} {case}: no {tensor}");
                    continue;
                };
                let valid = &goldens.valid(case, kind(family, tensor)).data;
                let error = relative_error(got, goldens.expected(case, tensor), valid);
                let limit = limits.float32(family, tensor);
                assert!(error <= limit, "{level} {directory} {case} {tensor}: {error:e} of {limit:e}");
                compared += 1;
            }
        }
        let tensors = goldens.cases().into_iter().flat_map(|case| goldens.tensors(case));
        let expected = tensors.filter(|tensor| has_heads || !tensor.ends_with("logits")).count();
        assert_eq!(compared, expected, "{directory}: number of tensors compared");
        println!("{level} {directory}: {compared} tensors within their limits");
    });
}

/// Half-precision files: exactly widened they must meet the float32 limits against exact arithmetic on the
/// rounded weights; with activations rounded too, what the library's own half-precision run was off by.
#[track_caller]
pub fn compare_half_with_goldens(
    family: &str,
    model: &str,
    dtype: &str,
    run: impl Fn(Ctx<'_>, &Goldens, &str) -> Vec<(String, Vec<f32>)>,
) {
    let goldens = Goldens::read(format!("{model}/goldens.safetensors"));
    let expected = Goldens::read(format!("{model}/lowp_goldens.safetensors"));
    let limits = Limits::read();
    let case = "rpad_s13";
    for_each_level(Level::supported(), |level| {
        for precision in Precision::ALL {
            let ctx = Ctx::new(level).unwrap().with_precision(precision);
            for (tensor, got) in run(ctx, &goldens, case) {
                if tensor.contains("hs.") {
                    continue;
                }
                let expected = expected.float(&format!("{dtype}.weights_{dtype}_compute_f64.{tensor}"));
                let error = relative_error(&got, expected, &goldens.valid(case, kind(family, &tensor)).data);
                let limit = match precision {
                    Precision::Strict | Precision::Bf16x6 => limits.float32(family, &tensor),
                    // The library's run was on weights that are bf16 already; others are rounded as activations are.
                    Precision::Bf16 if dtype == "bf16" => limits.native_half(family, "bf16"),
                    Precision::Bf16 => BOTH_OPERANDS_ROUNDED * limits.native_half(family, "bf16"),
                };
                assert!(error <= limit, "{level} {model} {precision:?} {tensor}: {error:e} of {limit:e}");
            }
        }
    });
}
