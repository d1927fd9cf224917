//! Forward passes over whole sequences, of one stack or of two.

use rachis_kernels::{Ctx, MatRef, Span};

use crate::cache::CrossKeys;
use crate::decoder::private::Stacks;
use crate::error::{Result, request};
use crate::layers::{Room, Scene, SceneMemory};
use crate::session::{Observer, Plan, SequenceOutput, Session, Tower, TowerObserver, carve};
use crate::tokens::{First, Tokens};

/// The inputs of an encoder-decoder model, as many sequences in each; the padding masks are part of the tokens.
#[derive(Debug, Clone, Copy)]
pub struct Seq2SeqInputs<'a> {
    /// `encoder_token_ids` and `encoder_padding_mask`.
    pub encoder: Tokens<'a>,
    /// `decoder_token_ids` and `decoder_padding_mask`.
    pub decoder: Tokens<'a>,
}

/// The outputs of an encoder-decoder model, in the session's memory.
#[derive(Debug, Clone, Copy)]
pub struct Seq2SeqOutput<'s> {
    /// A vector for every token of the encoder.
    pub encoder_sequence_output: SequenceOutput<'s>,
    /// A vector for every token of the decoder.
    pub decoder_sequence_output: SequenceOutput<'s>,
}

/// The forward pass of a model that is a decoder alone.
pub(crate) fn causal<'s>(
    model: &impl Stacks,
    session: &'s mut Session<'_>,
    tokens: Tokens<'_>,
    observer: Option<Observer<'_>>,
) -> Result<SequenceOutput<'s>> {
    let stack = model.decoder();
    let Session { ctx, work, .. } = session;
    work.rows.fill(tokens, (stack.vocabulary_size(), model.positions()), First::IfReal)?;
    let rows = work.rows.len();
    let pieces = carve(&mut work.hidden, stack.sizes(rows, work.rows.end()));
    let (scene, room) = (Scene::of(&work.rows), Room { pieces, scratch: &mut work.scratch });
    ctx.enter(|| stack.run(ctx, scene, room, observer))?;
    let width = stack.output_dim();
    let x = &work.hidden.take(rows * width)[..];
    Ok(SequenceOutput { data: MatRef::new(x, rows, width)?, rows: &work.rows })
}

/// The working memory of [`causal`].
pub(crate) fn causal_plan(model: &impl Stacks, ctx: &Ctx, (batch, seq): (usize, usize)) -> Result<Plan> {
    let rows = crate::session::rows(batch, (seq, model.positions()))?;
    Ok(Plan::of(model.decoder(), ctx, (rows, seq)))
}

/// The forward pass of an encoder and a decoder.
pub(crate) fn seq2seq<'s>(
    model: &impl Stacks,
    session: &'s mut Session<'_>,
    inputs: Seq2SeqInputs<'_>,
    mut observer: Option<TowerObserver<'_>>,
) -> Result<Seq2SeqOutput<'s>> {
    let decoder = model.decoder();
    let encoder = model.encoder().unwrap_or(decoder);
    let Session { ctx, work, .. } = session;
    let (from, to) = (inputs.encoder.batch(), inputs.decoder.batch());
    if from != to {
        return Err(request("sequences of the decoder", to, format!("{from}, as in the encoder")));
    }
    let limits = (decoder.vocabulary_size(), model.positions());
    work.source.fill(inputs.encoder, limits, First::IfReal)?;
    work.rows.fill(inputs.decoder, limits, First::IfReal)?;
    work.cross.clear();
    let spans = work.rows.spans.iter().zip(&work.source.spans);
    work.cross.extend(spans.map(|(to, from)| Span { queries: to.queries.clone(), keys: from.keys.clone() }));

    let (from, to) = (work.source.len(), work.rows.len());
    let sizes = seq2seq_sizes(model, (from, work.source.end()), (to, work.rows.end()));
    let (source, rows, spans, scratch) = (&work.source, &work.rows, &work.cross, &mut work.scratch);
    let [states, x, y, z, wide, positions, keys] = carve(&mut work.hidden, sizes);
    let width = encoder.output_dim();
    ctx.enter(|| -> Result<()> {
        let mut observe = |layer: usize, output: SequenceOutput<'_>| {
            if let Some(observe) = observer.as_mut() {
                observe(Tower::Encoder, layer, output);
            }
        };
        let pieces = [&mut *states, &mut *y, &mut *z, &mut *wide, &mut *positions];
        encoder.run(ctx, Scene::of(source), Room { pieces, scratch }, Some(&mut observe))?;
        let mut observe = |layer: usize, output: SequenceOutput<'_>| {
            if let Some(observe) = observer.as_mut() {
                observe(Tower::Decoder, layer, output);
            }
        };
        let kept = CrossKeys::shared(keys, ctx.precision(), [from, decoder.config.attention.key_width()]);
        let states = Some(MatRef::new(&states[..from * width], from, width)?);
        let memory = Some(SceneMemory { states, spans, kept });
        let room = Room { pieces: [x, y, z, wide, positions], scratch };
        decoder.run(ctx, Scene { memory, ..Scene::of(rows) }, room, Some(&mut observe))
    })?;
    let [states, x, ..] = carve(&mut work.hidden, sizes);
    let states = MatRef::new(&states[..from * width], from, width)?;
    let width = decoder.output_dim();
    Ok(Seq2SeqOutput {
        encoder_sequence_output: SequenceOutput { data: states, rows: &work.source },
        decoder_sequence_output: SequenceOutput {
            data: MatRef::new(&x[..to * width], to, width)?,
            rows: &work.rows,
        },
    })
}

/// The working memory of [`seq2seq`], for as many tokens in the encoder as in the decoder.
pub(crate) fn seq2seq_plan(model: &impl Stacks, ctx: &Ctx, (batch, seq): (usize, usize)) -> Result<Plan> {
    let rows = crate::session::rows(batch, (seq, model.positions()))?;
    let stacks = model.encoder().into_iter().chain([model.decoder()]);
    let scratch = stacks.map(|stack| stack.scratch_len(ctx, rows)).fold(0, usize::max);
    let hidden = seq2seq_sizes(model, (rows, seq), (rows, seq)).iter().sum();
    Ok(Plan { hidden, scratch })
}

/// Elements of the encoder's output, of what the stacks use, the decoder's output first, and of keys and values of
/// the encoder's rows.
fn seq2seq_sizes(model: &impl Stacks, source: (usize, usize), target: (usize, usize)) -> [usize; 7] {
    let decoder = model.decoder();
    let encoder = model.encoder().unwrap_or(decoder);
    let (first, second) = (encoder.sizes(source.0, source.1), decoder.sizes(target.0, target.1));
    let [_, y, z, wide, positions]: [usize; 5] = std::array::from_fn(|i| first[i].max(second[i]));
    let keys = 2 * source.0 * decoder.config.attention.key_width();
    [first[0], second[0], y, z, wide, positions, keys]
}
