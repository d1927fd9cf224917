//! An encoder or a decoder: embeddings, layers, and what follows the last of them.

use core::ops::Range;

use rachis_kernels::{Activation, Ctx, MatRef, Span};

use crate::error::Result;
use crate::layers::attention::{Around, Memory};
use crate::layers::block::{Block, BlockConfig, BlockNames, Buffers};
use crate::layers::embeddings::Embeddings;
use crate::layers::micro_batch::{
    GroupSpans, Own, RowSizes, Share, Threads, cut, groups, others, rows_inside, within,
};
use crate::layers::positions::{Places, Positions, Prepared};
use crate::layers::{Linear, Norm, matrix, matrix_len, matrix_mut};
use crate::session::RowLayout;
use crate::session::Stop;
use crate::session::{CrossKeys, KeptKeys};
use crate::session::{Observer, SequenceOutput};
use crate::trace;
use crate::weights::Tensors;
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
    pub(crate) rows: &'a RowLayout,
    /// A segment for each row, where the embeddings have any.
    pub(crate) segments: &'a [u32],
    /// Keys and values of earlier calls.
    pub(crate) kept: Option<KeptKeys<'a>>,
    /// The sequences that layers attend to beside their own.
    pub(crate) memory: Option<SceneMemory<'a>>,
}

impl<'a> Scene<'a> {
    /// RowLayout that attend to one another.
    pub(crate) fn of(rows: &'a RowLayout) -> Scene<'a> {
        Scene { rows, segments: &[], kept: None, memory: None }
    }

    /// Whether what a layer does to some rows leaves nothing for others to wait for.
    fn is_apart(&self) -> bool {
        self.kept.is_none() && self.memory.is_none()
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
    pub(crate) threads: &'w mut Threads,
    pub(crate) stop: &'w Stop,
}

/// What is done to a group of rows, whose sequences may be noted in the last.
type OnGroup<'t> =
    &'t (dyn Fn(&mut Scene<'_>, &Range<usize>, Buffers<'_>, &mut GroupSpans) -> Result<()> + Sync);

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

    /// RowLayout of the token table.
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
        let (inside, sizes) = (rows_inside(ctx.threads(), rows, end), self.row_sizes());
        let [y, z, wide] = sizes.room.map(|size| inside * size);
        let x = rows * sizes.x;
        // Before a projection, z has all rows.
        let z = if self.projection.is_some() { x } else { z };
        [x.max(matrix_len([rows, self.embeddings.width()])), y, z, wide, self.positions.room(rows, end)]
    }

    fn row_sizes(&self) -> RowSizes {
        let [y, z, wide] = Block::sizes(&self.config, 1);
        let table = matrix_len([1, self.embeddings.width()]);
        RowSizes { x: matrix_len([1, self.hidden_dim()]), room: [y, z, wide.max(table)] }
    }

    /// Elements of scratch that a call on `rows` rows needs, with up to as many in the other sequences.
    pub(crate) fn scratch_len(&self, ctx: &Ctx, rows: usize) -> usize {
        let blocks = self.blocks.first().map_or(0, |block| block.scratch_len(ctx, rows));
        let projections = self.embeddings.projection.iter().chain(&self.projection);
        projections.map(|projection| projection.scratch_len(ctx, rows, 0)).fold(blocks, usize::max)
    }

    /// Threads beside the calling one that may take sequences through layers by themselves, and the elements of scratch
    /// that each of them needs then.
    pub(crate) fn apart(&self, ctx: &Ctx, (rows, end): (usize, usize)) -> (usize, usize) {
        match others(ctx, [rows, self.hidden_dim()], end) {
            0 => (0, 0),
            others => (others, self.scratch_len(&ctx.with_pool(None), rows_inside(1, rows, end))),
        }
    }

    /// Runs the layers; the output is the [`matrix`] `[rows, output_dim]` at the start of the room's first piece.
    pub(crate) fn run(
        &self,
        ctx: &Ctx,
        mut scene: Scene<'_>,
        room: Room<'_>,
        mut observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let Room { pieces: [table_x, y, z, wide, positions], threads, stop } = room;
        let (rows, hidden) = (scene.rows, self.hidden_dim());
        let count = rows.len();
        let _span = trace::stack(count);
        let longest = rows.spans.iter().map(|span| span.queries.len()).max().unwrap_or(0);
        let Threads { caller, others } = threads;
        let apart = scene.is_apart() && cut(&rows.spans, hidden, others);
        let (inside, others) =
            if apart { (&ctx.with_pool(None), &mut others[..]) } else { (ctx, &mut [][..]) };
        let x = &mut table_x[..count * self.row_sizes().x];
        let mut share = Share { spans: &rows.spans, longest, x, room: [y, &mut *z, wide], caller, others };
        let contexts = [ctx, inside];

        self.on_groups(contexts, &mut scene, share.again(), &|scene, group, mut buffers, _| {
            self.embeddings.apply(inside, (rows, group.clone()), scene.segments, &mut buffers)
        })?;
        let keys = scene.kept.as_ref().map_or(&rows.positions[..], |kept| kept.positions);
        let prepared = self.positions.prepare(Places { queries: &rows.positions, keys }, positions)?;

        for i in 0..=self.blocks.len() {
            stop.check()?;
            if let Some(observe) = observer.as_mut() {
                observe(i, SequenceOutput { data: matrix(share.x, [count, hidden])?, rows });
            }
            let Some(block) = self.blocks.get(i) else { break };
            let _span = trace::layer(i);
            self.on_groups(contexts, &mut scene, share.again(), &|scene, group, buffers, spans| {
                stop.check()?;
                let positions = prepared.of(group, scene.kept.is_none());
                let (around, memory) = scene.around((i, group), positions, self.config.causal, spans);
                block.apply(inside, around, memory, buffers)
            })?;
        }

        if let Some(norm) = &self.norm {
            self.on_groups(contexts, &mut scene, share, &|_, group, Buffers { x, z, .. }, _| {
                z.copy_from_slice(x);
                let shape = [group.len(), hidden];
                norm.apply(inside, matrix(z, shape)?, matrix_mut(x, shape)?)
            })?;
        }
        if let Some(projection) = &self.projection {
            let x = &mut table_x[..count * self.row_sizes().x];
            let z = &mut z[..x.len()];
            z.copy_from_slice(x);
            let scratch = &mut caller.scratch;
            let out = matrix_mut::<f32>(table_x, [count, self.output_dim()])?;
            let plain = (Activation::Identity, None);
            projection.apply(ctx, scratch, matrix(z, [count, hidden])?, plain, out)?;
        }
        Ok(())
    }

    /// Does something to each group of a share's rows: in the second context, and if several threads have shares of
    /// their own, in those of the first at the same time.
    fn on_groups(
        &self,
        [threads, inside]: [&Ctx; 2],
        scene: &mut Scene<'_>,
        share: Share<'_>,
        task: OnGroup<'_>,
    ) -> Result<()> {
        let sizes = self.row_sizes();
        let (share, far) = share.halves(sizes);
        if let Some(far) = far {
            debug_assert!(scene.is_apart(), "halves begin with none of what others left");
            let (rows, segments) = (scene.rows, scene.segments);
            let half = |share| {
                let scene = &mut Scene { segments, ..Scene::of(rows) };
                self.on_groups([threads, inside], scene, share, task)
            };
            let (near, far) = threads.join(|| half(share), || half(far));
            return near.and(far);
        }
        let start = share.start();
        let Share { spans, x, room: [y, z, wide], caller, .. } = share;
        for group in groups(inside, spans) {
            let x = &mut x[(group.start - start) * sizes.x..(group.end - start) * sizes.x];
            let z = &mut z[..x.len()];
            let Own { scratch, spans, .. } = &mut *caller;
            task(scene, &group, Buffers { rows: group.len(), x, y, z, wide, scratch }, spans)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rachis_kernels::Level;
    use rayon::{ThreadPool, ThreadPoolBuilder};

    use super::*;
    use crate::architectures::seq2seq::{Seq2SeqInputs, Seq2SeqParts};
    use crate::architectures::t5::T5Config;
    use crate::backbone::private::{Architecture, Forward};
    use crate::error::Error;
    use crate::session::Session;
    use crate::session::{First, Tokens};
    use crate::weights::Source;

    const HIDDEN: usize = 24;

    fn model() -> Seq2SeqParts {
        let config = T5Config {
            vocabulary_size: 9,
            num_layers: 2,
            num_heads: 2,
            hidden_dim: HIDDEN,
            intermediate_dim: 40,
            ..T5Config::default()
        };
        Source::randomly(1, |source| config.build(source)).unwrap()
    }

    fn pool(threads: usize) -> ThreadPool {
        ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn threads_take_sequences_where_there_are_enough() {
        let (model, ids) = (model(), [3u32; 60]);
        for threads in [2, 3] {
            let pool = pool(threads);
            for (lengths, apart) in [(&[10usize; 6][..], true), (&[60], false), (&[1, 1, 1], false)] {
                let mut session = Session::new(Ctx::new(Level::Scalar).unwrap().with_pool(Some(&pool)));
                let tokens = Tokens::ragged(&ids[..lengths.iter().sum()], lengths);
                model
                    .run(&mut session, Seq2SeqInputs { encoder: tokens, decoder: tokens }, None)
                    .map(drop)
                    .unwrap();
                let others = &session.work.threads.others;
                assert_eq!(others.len(), threads - 1);
                // Scratch is had when it is needed.
                others.iter().for_each(|own| assert_eq!(own.scratch.bytes() > 0, apart, "{lengths:?}"));
            }
        }
    }

    #[test]
    fn every_share_is_done_and_the_error_of_any_is_that_of_all() {
        let (model, pool) = (model(), pool(3));
        let ctx = Ctx::new(Level::Scalar).unwrap().with_pool(Some(&pool));
        let mut rows = RowLayout::default();
        rows.fill(Tokens::ragged(&[3; 60], &[10; 6]), (9, 100), First::IfReal).unwrap();
        let sizes = model.encoder.sizes(&ctx, (60, 10));
        for fails in [None, Some(0), Some(20), Some(40)] {
            let mut memory = sizes.map(|len| vec![0.0f32; len]);
            let mut threads = Threads::default();
            threads.others.resize_with(2, Own::default);
            assert!(cut(&rows.spans, HIDDEN, &mut threads.others));
            let [x, y, z, wide, _] = memory.each_mut().map(|piece| &mut piece[..]);
            let Threads { caller, others } = &mut threads;
            let share = Share { spans: &rows.spans, longest: 10, x, room: [y, z, wide], caller, others };
            let done = Mutex::new(Vec::new());
            let task: OnGroup<'_> = &|_, group, buffers, _| {
                assert_eq!(buffers.rows, group.len());
                done.lock().unwrap().push(group.clone());
                if Some(group.start) == fails { Err(Error::Cancelled) } else { Ok(()) }
            };
            let contexts = [&ctx, &ctx.with_pool(None)];
            let result = model.encoder.on_groups(contexts, &mut Scene::of(&rows), share, task);
            assert_eq!(result.is_err(), fails.is_some(), "{fails:?}");
            let mut done = done.into_inner().unwrap();
            done.sort_unstable_by_key(|group| group.start);
            assert_eq!(done, [0..20, 20..40, 40..60]);
        }
    }
}
