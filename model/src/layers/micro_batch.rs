//! The sequences that go through a layer together: so many that what one product leaves for the next stays in a core's
//! own cache. And those that a thread takes through it by itself, where a batch has enough of them for all threads:
//! then none waits for another before the end of the layer, nor for what lies in another's cache. Which those are does
//! not change a bit of any result.

use core::ops::Range;

use rachis_kernels::{Ctx, Scratch, Span};

use crate::error::{Result, try_reserve};

/// Rows of a group for each thread, unless one sequence has more. Measured with layers 384 and 768 wide, from 128 to all
/// of 2048 rows: fewer read the weights more often than they save, and with more than 512 results leave the cache.
const ROWS: usize = 384;

/// Rows of this width that are worth a share of their own: with fewer, reading all weights takes a thread longer than to
/// wait for another that reads half of them. Measured on two threads of two sequences of 16 to 128 rows: 384 wide it pays
/// with 32 rows and costs as much with 16, 768 wide it pays from about 48 on in f32 and 64 in bf16.
fn least(width: usize) -> usize {
    width.div_ceil(12).max(1)
}

/// Threads beside the calling one that may take shares of their own of so many rows, in sequences of at most `longest`.
pub(crate) fn others(ctx: &Ctx, [rows, width]: [usize; 2], longest: usize) -> usize {
    let threads = ctx.threads();
    if rows > longest && rows / threads >= least(width) { threads - 1 } else { 0 }
}

/// How many times as long as the average the longest share may take: sharing each product loses as much.
const UNEQUAL: f64 = 1.2;

/// What a thread needs of its own within a call.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// That of the calling thread is also for products that all share.
    pub(crate) scratch: Scratch,
    pub(crate) spans: GroupSpans,
    /// The first row of its share.
    start: usize,
}

/// The threads of a call.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    pub(crate) caller: Own,
    pub(crate) others: Vec<Own>,
}

/// Elements of a row in the activations of all rows, and in what a layer needs for the rows that are in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSizes {
    pub(crate) x: usize,
    pub(crate) room: [usize; 3],
}

/// Sequences behind one another, memory for their rows, and the threads that take them through a layer: in shares of
/// their own, or else as one.
pub(crate) struct Share<'w> {
    pub(crate) spans: &'w [Span],
    /// Rows of the longest, of these or of more.
    pub(crate) longest: usize,
    pub(crate) x: &'w mut [f32],
    pub(crate) room: [&'w mut [f32]; 3],
    pub(crate) caller: &'w mut Own,
    pub(crate) others: &'w mut [Own],
}

impl<'w> Share<'w> {
    /// The same, to be used and come back.
    pub(crate) fn again(&mut self) -> Share<'_> {
        let Share { spans, longest, x, room, caller, others } = self;
        Share { spans, longest: *longest, x, room: room.each_mut().map(|room| &mut **room), caller, others }
    }

    /// The first row.
    pub(crate) fn start(&self) -> usize {
        self.spans.first().map_or(0, |span| span.queries.start)
    }

    /// The shares of half of the threads each; all in the first if there is one thread.
    pub(crate) fn halves(mut self, sizes: RowSizes) -> (Share<'w>, Option<Share<'w>>) {
        let near = self.others.len().div_ceil(2);
        let others = std::mem::take(&mut self.others);
        let Some((own, [first, others @ ..])) = near.checked_sub(1).map(|own| others.split_at_mut(own))
        else {
            return (self, None);
        };
        self.others = own;
        let rows = first.start - self.start();
        let (before, spans) =
            self.spans.split_at(self.spans.partition_point(|span| span.queries.start < first.start));
        self.spans = before;
        let behind = |memory: &mut &'w mut [f32], at: usize| {
            let (before, behind) = std::mem::take(memory).split_at_mut(at);
            *memory = before;
            behind
        };
        let x = behind(&mut self.x, rows * sizes.x);
        let inside = rows_inside(near, rows, self.longest);
        let mut sizes = sizes.room.into_iter();
        let room = self.room.each_mut().map(|room| behind(room, inside * sizes.next().unwrap_or(0)));
        let far = Share { spans, longest: self.longest, x, room, caller: first, others };
        (self, Some(far))
    }
}

/// Cuts sequences into shares that take about as long: one for the calling thread and one for each of the others. False
/// where sharing each product is better.
pub(crate) fn cut(spans: &[Span], hidden: usize, others: &mut [Own]) -> bool {
    // A row meets 12 hidden^2 weights and 2 hidden numbers of each key, which take several times as long.
    let cost = |span: &Span| span.queries.len() as f64 * (2 * hidden + span.keys.len()) as f64;
    let threads = 1 + others.len();
    let average = spans.iter().map(cost).sum::<f64>() / threads as f64;
    let (mut rest, mut before) = (spans, 0.0);
    for i in 0..threads {
        let mut load = 0.0;
        let taken = |span: &&Span| {
            let cost = cost(span);
            let inside = i + 1 == threads || before + load + cost / 2.0 < average * (i + 1) as f64;
            load += if inside { cost } else { 0.0 };
            inside
        };
        let count = rest.iter().take_while(taken).count();
        let (share, behind) = rest.split_at(count);
        let rows = share.iter().map(|span| span.queries.len()).sum::<usize>();
        if rows < least(hidden) || load > UNEQUAL * average {
            return false;
        }
        if let (Some(own), Some(first)) = (i.checked_sub(1).and_then(|i| others.get_mut(i)), share.first()) {
            own.start = first.queries.start;
        }
        (rest, before) = (behind, before + load);
    }
    true
}

/// The spans of a group, in rows of the group: with their own keys, and with those of the memory that they attend to.
#[derive(Debug, Default)]
pub(crate) struct GroupSpans {
    pub(crate) own: Vec<Span>,
    pub(crate) memory: Vec<Span>,
}

impl GroupSpans {
    /// Makes room for so many sequences.
    pub(crate) fn try_reserve(&mut self, sequences: usize) -> Result<()> {
        try_reserve(&mut self.own, sequences)?;
        try_reserve(&mut self.memory, sequences)
    }
}

/// The most rows that are in a layer at once, of `rows` rows in sequences of at most `longest`: those of a group for each
/// thread.
pub(crate) fn rows_inside(threads: usize, rows: usize, longest: usize) -> usize {
    rows.min(longest.max(ROWS).saturating_mul(threads))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans of sequences of these lengths, behind one another.
    fn spans(lengths: &[usize]) -> Vec<Span> {
        let mut end = 0;
        let span = |len: &usize| {
            let rows = end..end + len;
            end = rows.end;
            Span { queries: rows.clone(), keys: rows }
        };
        lengths.iter().map(span).collect()
    }

    /// The rows of each share, and of the memory that it was given; none if there are no good shares.
    fn shares(lengths: &[usize], width: usize, threads: usize) -> Vec<(Range<usize>, [usize; 4])> {
        fn each(share: Share<'_>, shares: &mut Vec<(Range<usize>, [usize; 4])>) {
            let (share, far) = share.halves(RowSizes { x: 3, room: [2, 5, 7] });
            if let Some(far) = far {
                each(share, shares);
                return each(far, shares);
            }
            let end = share.spans.last().map_or(0, |span| span.queries.end);
            let [y, z, wide] = share.room.each_ref().map(|room| room.len());
            shares.push((share.start()..end, [share.x.len() / 3, y / 2, z / 5, wide / 7]));
        }
        let (spans, rows) = (spans(lengths), lengths.iter().sum::<usize>());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (mut caller, mut others) = (Own::default(), Vec::new());
        others.resize_with(threads - 1, Own::default);
        let mut shares = Vec::new();
        if cut(&spans, width, &mut others) {
            let inside = rows_inside(threads, rows, longest);
            let memory = &mut [3 * rows, 2 * inside, 5 * inside, 7 * inside].map(|len| vec![0.0; len]);
            let [x, room @ ..] = memory.each_mut().map(|memory| &mut memory[..]);
            let all = Share { spans: &spans, longest, x, room, caller: &mut caller, others: &mut others };
            each(all, &mut shares);
        }
        shares
    }

    #[test]
    fn shares_are_all_sequences_with_memory_for_their_groups() {
        let many: Vec<usize> = (0..24).map(|i| [80, 7, 61, 33, 1, 80][i % 6]).collect();
        for threads in 2..6 {
            for lengths in [&many[..], &[128; 60], &[0, 600, 0, 600, 600, 0, 600, 600, 600, 0]] {
                let (mut end, found) = (0, shares(lengths, 64, threads));
                let equal = threads == 2 || lengths.len() == 60;
                assert!(found.len() == threads || found.is_empty() && !equal, "{threads}: {found:?}");
                for (rows, [x, room @ ..]) in &found {
                    assert_eq!((rows.start, rows.len()), (end, *x));
                    let longest = lengths.iter().max().unwrap();
                    room.iter().for_each(|room| assert!(*room >= rows.len().min(ROWS.max(*longest))));
                    end = rows.end;
                }
                assert!(found.is_empty() || end == lengths.iter().sum::<usize>(), "{threads}: {found:?}");
            }
        }
        assert_eq!(shares(&[128, 128], 384, 2).len(), 2);
    }

    #[test]
    fn small_and_unequal_shares_are_not_worth_it() {
        assert!(shares(&[], 384, 2).is_empty());
        assert!(shares(&[512], 384, 2).is_empty(), "one sequence");
        assert!(shares(&[16, 16], 384, 2).is_empty(), "few rows");
        assert!(shares(&[300, 100], 384, 2).is_empty(), "unequal");
        assert!(shares(&[128, 128, 128], 384, 2).is_empty(), "two for one thread");
        // As many rows, but one of them has more keys to meet.
        assert_eq!(shares(&[512, 64, 64, 64, 64, 64, 64, 64, 64], 2048, 2).len(), 2);
        assert!(shares(&[512, 64, 64, 64, 64, 64, 64, 64, 64], 64, 2).is_empty());
    }
}
