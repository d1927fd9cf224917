//! An encoder or a decoder: embeddings, layers, and what follows the last of them.

use core::ops::Range;

use rachis_kernels::{Activation, Ctx, MatRef, Scratch, Span};

use crate::cache::{CrossKeys, KeptKeys};
use crate::error::Result;
use crate::layers::attention::{Around, Memory};
use crate::layers::block::{Block, BlockConfig, BlockNames, Buffers};
use crate::layers::embeddings::Embeddings;
use crate::layers::groups::{GroupSpans, group_rows, groups, within};
use crate::layers::positions::{Places, Positions, Prepared};
use crate::layers::{Linear, Norm, matrix, matrix_len, matrix_mut};
use crate::save::Tensors;
use crate::session::{Observer, SequenceOutput};
use crate::stop::Stop;
use crate::tokens::Rows;
use crate::trace;
use crate::weights::{Naming, Scope};

/// An encoder or a decoder.
#[derive(Debug)]
pub struct Stack {
    pub(crate) embeddings: Embeddings,
    pub(crate) positions: Positions,
    pub(crate) blocks: Vec<Block>,
    pub(crate) config: BlockConfig,
    /// Of the last layer's output.
    pub(crate) norm: Option<Norm>,
    /// From the width of the layers to that of the output.
    pub(crate) projection: Option<Linear>,
}

/// What a stack runs on.
pub(crate) struct Scene<'a> {
    pub(crate) rows: &'a Rows,
    /// A segment for each row, where the embeddings have any.
    pub(crate) segments: &'a [u32],
    /// Keys and values of earlier calls.
    pub(crate) kept: Option<KeptKeys<'a>>,
    /// The sequences that layers attend to beside their own.
    pub(crate) memory: Option<SceneMemory<'a>>,
}

impl<'a> Scene<'a> {
    /// Rows that attend to one another.
    pub(crate) fn of(rows: &'a Rows) -> Scene<'a> {
        Scene { rows, segments: &[], kept: None, memory: None }
    }

    /// What the rows of a group attend to in a layer.
    fn around<'s>(
        &'s mut self,
        (layer, group): (usize, &Range<usize>),
        Prepared { bias, rotary }: Prepared<'s>,
        causal: bool,
        spans: &'s mut GroupSpans,
    ) -> (Around<'s>, Option<Memory<'s>>) {
        match &self.kept {
            None => within(&self.rows.spans, group, group.start, &mut spans.own),
            Some(kept) => within(kept.spans, group, 0, &mut spans.own),
        }
        let kept = self.kept.as_mut().map(|kept| kept.store.layer(layer));
        let memory = self.memory.as_mut().map(|memory| {
            within(memory.spans, group, 0, &mut spans.memory);
            Memory {
                // Once the first group has attended to them, keys and values are there.
                states: memory.states.filter(|_| group.start == 0),
                spans: &spans.memory,
                kept: memory.kept.layer(layer),
            }
        });
        (Around { spans: &spans.own, causal, bias, rotary, kept }, memory)
    }
}

/// See [`Memory`].
pub(crate) struct SceneMemory<'a> {
    pub(crate) states: Option<MatRef<'a, f32>>,
    pub(crate) spans: &'a [Span],
    pub(crate) kept: CrossKeys<'a>,
}

/// What a stack works with: pieces of the workspace, of the lengths that [`Stack::sizes`] gives. The output comes to lie in the first,
/// unless it is time to stop.
pub(crate) struct Room<'w> {
    pub(crate) pieces: [&'w mut [f32]; 5],
    pub(crate) scratch: &'w mut Scratch,
    pub(crate) spans: &'w mut GroupSpans,
    pub(crate) stop: &'w Stop,
}

impl Stack {
    /// The layers of this name, from number `first` on; a Hugging Face file must have no more of them. KerasHub's
    /// numbers go on from one stack to the next.
    pub(crate) fn blocks(
        scope: &Scope<'_>,
        (name, first, layers): (&str, usize, usize),
        names: &BlockNames,
        config: BlockConfig,
    ) -> Result<Vec<Block>> {
        let end = first + layers;
        if scope.naming() == Naming::HuggingFace {
            scope.layer(name, end).expect_none()?;
        }
        (first..end).map(|i| Block::load(&scope.layer(name, i), names, config)).collect()
    }

    /// What is to be stored, under the names of `like`.
    pub(crate) fn save<'m>(&'m self, like: &'m Stack, tensors: &mut Tensors<'m>) {
        self.embeddings.save(&like.embeddings, tensors);
        if let (Positions::Relative(bias), Positions::Relative(like)) = (&self.positions, &like.positions) {
            bias.save(like, tensors);
        }
        self.blocks.iter().zip(&like.blocks).for_each(|(block, like)| block.save(like, tensors));
        if let (Some(norm), Some(like)) = (&self.norm, &like.norm) {
            norm.save(like, tensors);
        }
        if let (Some(projection), Some(like)) = (&self.projection, &like.projection) {
            projection.save(like, tensors);
        }
    }

    /// Rows of the token table.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.embeddings.tokens.table().rows()
    }

    /// Width of the layers.
    pub(crate) fn hidden_dim(&self) -> usize {
        self.config.attention.hidden
    }

    /// Width of the output.
    pub(crate) fn output_dim(&self) -> usize {
        if self.projection.is_some() { self.embeddings.width() } else { self.hidden_dim() }
    }

    /// Elements of the pieces of a [`Room`] for `rows` rows at positions less than `end`.
    pub(crate) fn sizes(&self, ctx: &Ctx, (rows, end): (usize, usize)) -> [usize; 5] {
        let (group, table) = (group_rows(ctx, rows, end), self.embeddings.width());
        let [y, z, wide] = Block::sizes(&self.config, group);
        let x = matrix_len([rows, self.hidden_dim()]);
        let wide = wide.max(matrix_len([group, table]));
        // Before a projection, z has all rows.
        let z = if self.projection.is_some() { x } else { z };
        [x.max(matrix_len([rows, table])), y, z, wide, self.positions.room(rows, end)]
    }

    /// Elements of scratch that a call on `rows` rows needs, with up to as many in the other sequences.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let blocks = self.blocks.first().map_or(0, |block| block.scratch_len(ctx, rows));
        let projections = self.embeddings.projection.iter().chain(&self.projection);
        projections.map(|projection| projection.scratch_len(ctx, rows, 0)).fold(blocks, usize::max)
    }

    /// Runs the layers; the output is the [`matrix`] `[rows, output_dim]` at the start of the room's first piece.
    pub(crate) fn run(
        &self,
        ctx: &Ctx,
        mut scene: Scene<'_>,
        room: Room<'_>,
        mut observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let Room { pieces: [table_x, y, z, wide, positions], scratch, spans, stop } = room;
        let (rows, segments, hidden) = (scene.rows, scene.segments, self.hidden_dim());
        let count = rows.len();
        let _span = trace::stack(count);
        let len = |rows: usize| matrix_len([rows, hidden]);
        let x = &mut table_x[..len(count)];
        let elements = |group: &Range<usize>| len(group.start)..len(group.end);

        for group in groups(ctx, &rows.spans) {
            let x = &mut x[elements(&group)];
            let buffers = &mut Buffers { rows: group.len(), x, y, z, wide, scratch };
            self.embeddings.apply(ctx, (rows, group), segments, buffers)?;
        }
        let keys = scene.kept.as_ref().map_or(&rows.positions[..], |kept| kept.positions);
        let prepared = self.positions.prepare(Places { queries: &rows.positions, keys }, positions)?;

        for i in 0..=self.blocks.len() {
            stop.check()?;
            if let Some(observe) = observer.as_mut() {
                observe(i, SequenceOutput { data: matrix(x, [count, hidden])?, rows });
            }
            let Some(block) = self.blocks.get(i) else { break };
            let _span = trace::layer(i);
            for group in groups(ctx, &rows.spans) {
                stop.check()?;
                let (x, z) = (&mut x[elements(&group)], &mut z[..len(group.len())]);
                let positions = prepared.of(&group, scene.kept.is_none());
                let (around, memory) = scene.around((i, &group), positions, self.config.causal, spans);
                let rows = group.len();
                block.apply(ctx, around, memory, Buffers { rows, x, y, z, wide, scratch })?;
            }
        }

        if let Some(norm) = &self.norm {
            for group in groups(ctx, &rows.spans) {
                let (x, z) = (&mut x[elements(&group)], &mut z[..len(group.len())]);
                z.copy_from_slice(x);
                let shape = [group.len(), hidden];
                norm.apply(ctx, matrix(z, shape)?, matrix_mut(x, shape)?)?;
            }
        }
        if let Some(projection) = &self.projection {
            let z = &mut z[..len(count)];
            z.copy_from_slice(x);
            let out = matrix_mut::<f32>(table_x, [count, self.output_dim()])?;
            let plain = (Activation::Identity, None);
            projection.apply(ctx, scratch, matrix(z, [count, hidden])?, plain, out)?;
        }
        Ok(())
    }
}
