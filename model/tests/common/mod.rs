//! What the model's tests share: BERT fixtures as batches.
#![allow(dead_code, reason = "each test file uses a part")]

use rachis::bert::BertPretrainingHeads;
use rachis::kernels::{Ctx, MatRef};
use rachis::loader::{Access, Preset};
use rachis::{BertBackbone, BertInputs, SequenceOutput, Session, Tokens};
use rachis_testkit::goldens::{Goldens, fixture};

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
        let get = |name: &str| goldens.input(case, name).expect("an input of the case");
        let ids = get("input_ids");
        let unsigned = |name: &str| get(name).data.iter().map(|x| u32::try_from(*x).unwrap()).collect();
        Batch {
            shape: (ids.shape[0], ids.shape[1]),
            ids: unsigned("input_ids"),
            mask: get("attention_mask").data.iter().map(|x| u8::try_from(*x).unwrap()).collect(),
            segments: unsigned("token_type_ids"),
        }
    }

    pub fn inputs(&self) -> BertInputs<'_> {
        let tokens = Tokens::with_mask(&self.ids, self.shape.0, self.shape.1, &self.mask);
        BertInputs { tokens, segment_ids: Some(&self.segments) }
    }
}

/// A fixture's model and its heads, where it has them.
pub fn load(dir: &str, access: Access) -> (BertBackbone, Option<BertPretrainingHeads>) {
    let preset = Preset::open(fixture(dir), access).unwrap();
    assert_eq!(preset.bytes_copied(), 0, "{dir}: fixtures are aligned");
    let model = BertBackbone::load(&preset).unwrap();
    let heads = BertPretrainingHeads::load(&preset, &model).unwrap();
    (model, heads)
}

/// Padded outputs by the names of the golden files.
pub fn outputs(
    model: &BertBackbone,
    heads: Option<&BertPretrainingHeads>,
    ctx: Ctx<'_>,
    batch: &Batch,
) -> Vec<(String, Vec<f32>)> {
    let (hidden, vocabulary) = (model.config().hidden_dim, model.config().vocabulary_size);
    let (count, tokens) = (batch.shape.0, batch.shape.0 * batch.shape.1);
    let mut session = Session::new(ctx);
    let mut all = Vec::new();
    let padded = |output: SequenceOutput<'_>| {
        let mut values = vec![f32::NAN; tokens * hidden];
        output.write_padded(&mut values).unwrap();
        values
    };
    let mut observe =
        |layer: usize, states: SequenceOutput<'_>| all.push((format!("hs.{layer}"), padded(states)));
    let output = model.forward_observed(&mut session, batch.inputs(), Some(&mut observe)).unwrap();
    let sequence = padded(output.sequence_output);
    let pooled: Vec<f32> = (0..count).flat_map(|i| output.pooled_output.row(i).to_vec()).collect();
    if let Some(heads) = heads {
        let mut logits = vec![f32::NAN; tokens * vocabulary];
        let rows = MatRef::new(&sequence, tokens, hidden).unwrap();
        heads.mlm_logits(&mut session, rows, &mut logits).unwrap();
        all.push(("mlm_logits".to_owned(), logits));
        let mut logits = vec![f32::NAN; count * 2];
        heads.nsp_logits(&mut session, MatRef::new(&pooled, count, hidden).unwrap(), &mut logits).unwrap();
        all.push(("nsp_logits".to_owned(), logits));
    }
    all.push(("sequence_output".to_owned(), sequence));
    all.push(("pooled_output".to_owned(), pooled));
    all
}

/// The kind of positions that a tensor of this name has.
pub fn kind(tensor: &str) -> &'static str {
    if tensor == "pooled_output" || tensor == "nsp_logits" { "pooled" } else { "seq" }
}
