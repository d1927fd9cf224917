//! Models that are a decoder alone.

use rachis_kernels::Ctx;

use crate::backbone::private::Forward;
use crate::decoder::private::Stacks;
use crate::error::Result;
use crate::layers::{Embedding, LogitsHead, Room, Scene, Stack};
use crate::session::{self, Observer, Plan, SequenceOutput, Session, carve};
use crate::session::{First, Tokens};
use crate::weights::Tensors;

/// What a decoder alone is made of.
#[derive(Debug)]
pub struct CausalParts {
    pub(crate) stack: Stack,
    pub(crate) head: LogitsHead,
    /// The most positions of a sequence.
    pub(crate) positions: usize,
}

impl Forward for CausalParts {
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

    fn plan(&self, ctx: &Ctx, batch: usize, seq: usize) -> Result<Plan> {
        let rows = session::rows(batch, (seq, self.positions))?;
        Ok(Plan::of(&self.stack, ctx, (rows, seq)))
    }

    fn run<'s>(
        &self,
        session: &'s mut Session<'_>,
        tokens: Tokens<'_>,
        observer: Option<Observer<'_>>,
    ) -> Result<SequenceOutput<'s>> {
        let stack = &self.stack;
        let Session { call: ctx, work, stop, .. } = session;
        work.rows.fill(tokens, (stack.vocabulary_size(), self.positions), First::IfReal)?;
        let rows = work.rows.len();
        let pieces = carve(&mut work.hidden, stack.sizes(ctx, (rows, work.rows.end())))?;
        let room = Room { pieces, threads: &mut work.threads, stop };
        ctx.enter(|ctx| stack.run(ctx, Scene::of(&work.rows), room, observer))?;
        work.output(stack)
    }
}

impl Stacks for CausalParts {
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
