//! The sequences that go through a layer together: so many that what one product leaves for the next stays in a core's
//! own cache. Which those are does not change a bit of any result.

use core::ops::Range;

use rachis_kernels::{Ctx, Span};

/// Rows of a group for each thread, unless one sequence has more. Measured with layers 384 and 768 wide, from 128 to all
/// of 2048 rows: fewer read the weights more often than they save, and with more than 512 results leave the cache.
const ROWS: usize = 384;

/// The spans of a group, in rows of the group: with their own keys, and with those of the memory that they attend to.
#[derive(Debug, Default)]
pub(crate) struct GroupSpans {
    pub(crate) own: Vec<Span>,
    pub(crate) memory: Vec<Span>,
}

/// The most rows of a group, of `rows` rows in sequences of at most `longest`.
pub(crate) fn group_rows(ctx: &Ctx, rows: usize, longest: usize) -> usize {
    rows.min(longest.max(ROWS * ctx.threads()))
}

/// The rows of each group of these sequences, which lie behind one another.
pub(crate) fn groups<'a>(ctx: &Ctx, spans: &'a [Span]) -> impl Iterator<Item = Range<usize>> + use<'a> {
    let most = ROWS * ctx.threads();
    let mut rest = spans;
    std::iter::from_fn(move || {
        let (first, others) = rest.split_first()?;
        let start = first.queries.start;
        let joined = others.iter().take_while(|span| span.queries.end - start <= most).count();
        rest = &others[joined..];
        let last = others[..joined].last().unwrap_or(first);
        Some(start..last.queries.end)
    })
}

/// The parts of `spans` that lie in a group, in rows of the group, and keys in rows from `keys` on.
pub(crate) fn within(spans: &[Span], group: &Range<usize>, keys: usize, parts: &mut Vec<Span>) {
    parts.clear();
    let first = spans.partition_point(|span| span.queries.end <= group.start);
    let inside = spans[first..].iter().take_while(|span| span.queries.start < group.end);
    parts.extend(inside.map(|span| {
        let (start, end) = (span.queries.start.max(group.start), span.queries.end.min(group.end));
        Span {
            queries: start - group.start..end - group.start,
            keys: span.keys.start - keys..span.keys.end - keys,
        }
    }));
}
