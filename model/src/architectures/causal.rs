//! Models that are a decoder alone.

use rachis_kernels::Ctx;

use crate::backbone::private::Network;
use crate::decoder::private::DecoderStacks;
use crate::error::Result;
use crate::layers::{Embedding, LogitsHead, Stack, StackInput, StackWorkspace};
use crate::session::{Extent, First, Limits, Observer, SequenceOutput, Session, Tokens, WorkspacePlan};
use crate::weights::Tensors;

/// The layers of a model that is a decoder alone.
#[derive(Debug)]
pub struct CausalNetwork {
    pub(crate) stack: Stack,
    pub(crate) head: LogitsHead,
    /// The largest number of positions of a sequence.
    pub(crate) positions: usize,
}

impl Network for CausalNetwork {
    type Inputs<'a> = Tokens<'a>;
    type Output<'s> = SequenceOutput<'s>;
    type Observer<'o> = Observer<'o>;

    fn token_embedding(&self) -> &Embedding {
        &self.stack.embeddings.tokens
    }

    fn save<'m>(&'m self, like: &'m Self, tensors: &mut Tensors<'m>) {
        self.stack.save(&like.stack, tensors);
        self.head.save(&like.head, tensors);
    }

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<WorkspacePlan> {
        Ok(WorkspacePlan::of(&self.stack, ctx, Extent::of_batch(batch, seq, self.positions)?))
    }

    fn run<'s>(
        &self,
        ctx: &Ctx,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<SequenceOutput<'s>> {
        run_stack((&self.stack, self.positions), ctx, session, tokens, observer)
    }
}

/// One forward pass through a stack that is a model by itself, for sequences of up to `positions` tokens.
pub(crate) fn run_stack<'s>(
    (stack, positions): (&Stack, usize),
    ctx: &Ctx,
    session: &'s mut Session<'_>,
    tokens: Tokens<'_>,
    observer: Option<Observer<'_>>,
) -> Result<SequenceOutput<'s>> {
    let Session { work, stop, .. } = session;
    let limits = Limits { vocabulary: stack.vocabulary_size(), positions };
    work.rows.fill(tokens, limits, First::IfReal)?;
    let sizes = stack.sizes(ctx, work.rows.extent());
    let buffers = sizes.carve(work.activations.take(sizes.total())?);
    let workspace = StackWorkspace { buffers, threads: &mut work.threads, stop };
    let input = StackInput::of(&work.rows);
    ctx.enter(|ctx| stack.run(ctx, input, workspace, observer))?;
    work.output(stack)
}

impl DecoderStacks for CausalNetwork {
    fn encoder(&self) -> Option<&Stack> {
        None
    }

    fn decoder(&self) -> &Stack {
        &self.stack
    }

    fn head(&self) -> &LogitsHead {
        &self.head
    }

    fn positions(&self) -> usize {
        self.positions
    }
}
