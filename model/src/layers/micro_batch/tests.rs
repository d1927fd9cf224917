use super::*;

/// Spans of consecutive sequences of these lengths.
fn spans(lengths: &[usize]) -> Vec<Span> {
    let mut end = 0;
    let span = |len: &usize| {
        let rows = end..end + len;
        end = rows.end;
        Span { queries: rows.clone(), keys: rows }
    };
    lengths.iter().map(span).collect()
}

/// A share's rows, and the rows that its states, context, sum and intermediate buffers have memory for.
type Found = (Range<usize>, [usize; 4]);

/// All shares of a batch; none where sharing each product is better.
fn shares(lengths: &[usize], width: usize, threads: usize) -> Vec<Found> {
    fn visit(share: Share<'_>, shares: &mut Vec<Found>) {
        let sizes = RowSizes { states: 3, context: 2, sum: 5, intermediate: 7 };
        let (share, far) = share.halves(sizes);
        if let Some(far) = far {
            visit(share, shares);
            return visit(far, shares);
        }
        let end = share.spans.last().map_or(0, |span| span.queries.end);
        let LayerBuffers { context, sum, intermediate } = &share.layer;
        let rows = [share.states.len() / 3, context.len() / 2, sum.len() / 5, intermediate.len() / 7];
        shares.push((share.start()..end, rows));
    }
    let (spans, rows) = (spans(lengths), lengths.iter().sum::<usize>());
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let (mut caller, mut workers) = (ThreadScratch::default(), Vec::new());
    workers.resize_with(threads - 1, ThreadScratch::default);
    let mut shares = Vec::new();
    if divide(&spans, width, &mut workers) {
        let inside = rows_in_flight(threads, rows, longest);
        let memory = &mut [3 * rows, 2 * inside, 5 * inside, 7 * inside].map(|len| vec![0.0; len]);
        let [states, context, sum, intermediate] = memory.each_mut().map(|memory| &mut memory[..]);
        let layer = LayerBuffers { context, sum, intermediate };
        let (caller, workers) = (&mut caller, &mut workers);
        visit(Share { spans: &spans, longest, states, layer, caller, workers }, &mut shares);
    }
    shares
}

#[test]
fn shares_cover_all_sequences_and_have_memory_for_their_micro_batches() {
    let many: Vec<usize> = (0..24).map(|i| [80, 7, 61, 33, 1, 80][i % 6]).collect();
    for threads in 2..6 {
        for lengths in [&many[..], &[128; 60], &[0, 600, 0, 600, 600, 0, 600, 600, 600, 0]] {
            let (mut end, found) = (0, shares(lengths, 64, threads));
            let equal = threads == 2 || lengths.len() == 60;
            assert!(found.len() == threads || found.is_empty() && !equal, "{threads}: {found:?}");
            for (rows, [states, layer @ ..]) in &found {
                assert_eq!((rows.start, rows.len()), (end, *states));
                let longest = lengths.iter().max().unwrap();
                let needed = rows.len().min(ROWS_PER_THREAD.max(*longest));
                layer.iter().for_each(|rows| assert!(*rows >= needed));
                end = rows.end;
            }
            assert!(found.is_empty() || end == lengths.iter().sum::<usize>(), "{threads}: {found:?}");
        }
    }
    assert_eq!(shares(&[128, 128], 384, 2).len(), 2);
}

#[test]
fn small_and_unequal_batches_are_not_divided() {
    assert!(shares(&[], 384, 2).is_empty());
    assert!(shares(&[512], 384, 2).is_empty(), "one sequence");
    assert!(shares(&[16, 16], 384, 2).is_empty(), "few rows");
    assert!(shares(&[300, 100], 384, 2).is_empty(), "unequal lengths");
    assert!(shares(&[128, 128, 128], 384, 2).is_empty(), "two sequences for one thread, one for the other");
    // As many rows in both halves, but the first has more keys for each row.
    assert_eq!(shares(&[512, 64, 64, 64, 64, 64, 64, 64, 64], 2048, 2).len(), 2);
    assert!(shares(&[512, 64, 64, 64, 64, 64, 64, 64, 64], 64, 2).is_empty());
}
